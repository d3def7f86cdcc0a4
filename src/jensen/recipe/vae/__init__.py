"""The recipe of a variational autoencoder: `settings` (torch-free), `build` (the model), `family` (the rest)."""
