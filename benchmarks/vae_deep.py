"""What each part of a deep VAE brings: the ELBO of validation examples after equal CPU seconds of one core.

    python benchmarks/vae_deep.py MNIST_FOLDER [SECONDS]

The first row is a VAE with a single group, an MLP and the prior N(0, I). The rows below change one thing of it: the
prior, or the posterior. Then follow a hierarchy, and the same hierarchy without one of its parts. All have dynamically
binarised pixels and the training of `vae_networks.py`, by which validation images choose; no test image is used.
"""

import sys

import torch
from vae_networks import trained

from jensen.data.options import ReadOptions
from jensen.recipe.vae.settings import VAERecipe, VAESettings

FLAT = {"network": "mlp", "hidden": (256, 256), "activation": "silu", "latent_dims": 40}
WARM = {"kl_warmup_steps": 1000}
LADDER = {"network": "ladder", "groups": (16,) * 6, "width": 256, "depth": 1, **WARM, "kl_balance": True}
MAPS = {"network": "convolutional-ladder", "channels": (16, 32), "patch": 2, "level_groups": (2, 2)}
MODELS = {
    "one group": FLAT,
    "  prior: mixture of 500": {**FLAT, "prior": "mixture"},
    "  prior: VampPrior, 500": {**FLAT, "prior": "vamp"},
    "  prior: flow of 6 couplings": {**FLAT, "prior": "flow"},
    "  posterior: full covariance": {**FLAT, "posterior": "full-covariance"},
    "  warm-up of the KL": {**FLAT, **WARM},
    "hierarchy of 6 groups": LADDER,
    "  3 groups of the same total size": {**LADDER, "groups": (32,) * 3},
    "  one group of the same total size": {**LADDER, "groups": (96,), "kl_balance": False},
    "  no balance": {**LADDER, "kl_balance": False},
    "  no warm-up": {**LADDER, "kl_warmup_steps": 0, "kl_balance": False},
    "  free bits, 0.5 nats a group": {**LADDER, "free_bits": 0.5},
    "  top prior: VampPrior, 500": {**LADDER, "prior": "vamp"},
    "  two blocks a group": {**LADDER, "depth": 2},
    "hierarchy of maps, 4 groups": {**MAPS, **WARM, "kl_balance": True},
    "VampPrior's gated hierarchy": {"network": "gated-ladder", "prior": "vamp", **WARM},
}


def main() -> None:
    torch.set_num_threads(1)
    data, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 600.0
    for name, settings in MODELS.items():
        model = VAESettings(likelihood="bernoulli", **settings)
        recipe = VAERecipe(data=data, model=model, read=ReadOptions(validation_fraction=1 / 60))
        print(f"{name:<36}{trained(recipe, seconds)}", flush=True)


if __name__ == "__main__":
    main()
