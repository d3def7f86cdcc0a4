"""The recipe of a diffusion model: `settings` (torch-free), `build` (the model), `family` (the rest)."""
