"""The recipe of latent diffusion: `settings` (torch-free), `build` (the model), `family` (the rest)."""
