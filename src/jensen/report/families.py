"""What a report says of a family of models: captions and formulas, nothing that is computed."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """The words of a report; HTML except for `name`."""

    name: str
    formulas: Mapping[str, str]
    """Of bounds, terms and gaps by name; of names that start like a key that ends in an underscore."""
    loss: str
    """What training minimises."""
    samples: str
    codes: str
    """What the latent representation is."""
    points: int
    """How many examples the latent plane shows: as many as are quick to encode."""
    means: str | None = None
    """What the mean of a sample is, where that is something else than the sample."""
    reconstructions: str | None = None
    """What a reconstruction is, where that is something else than the example."""
    comparable: bool = True
    """Whether the loss is measured like the negative bound."""

    def formula(self, name: str) -> str:
        """What a row of the table is, empty where that is unknown."""
        for key, formula in self.formulas.items():
            if name == key or (key.endswith("_") and name.startswith(key)):
                return formula
        return ""


VAE = Family(
    name="variational autoencoder",
    formulas={
        "ELBO": "E<sub>q</sub> log p(x, z) / q(z) ≤ log p(x) (4.4)",
        "reconstruction": "E<sub>q</sub> log p(x|z), first term of (4.6)",
        "rate": "−KL(q(z|x) ‖ p(z)), second term of (4.6)",
        "optimised ELBO": "(4.4), q optimised for each example, the model fixed",
        "L_": "log (1/K) Σ<sub>k</sub> p(x, z<sub>k</sub>) / q(z<sub>k</sub>|x) (4.9)",
        "amortisation gap": "what the encoder loses against the best q of its family",
        "inference gap, at least": "KL(q(z|x) ‖ p(z|x)) (4.4), log p(x) replaced by the bound (4.9)",
        "approximation gap, at least": "what no q of the family can reach",
    },
    loss="the negative bound (4.8), or as the recipe's objective says",
    samples="Honest draws: z from the prior (4.1), then x ~ p(x|z), with the noise that p(x|z) has (4.2).",
    means="Means: z from the prior (4.1), then E[x|z].",
    reconstructions="E[x|z] at the mean of q(z|x) (4.6)",
    codes="the mean of q(z|x) (4.5)",
    points=2000,
)

DIFFUSION = Family(
    name="diffusion model",
    formulas={
        "ELBO": "log p(x<sub>0</sub>) ≥ (5.10), term by term (5.11)",
        "reconstruction": "E log p(x<sub>0</sub>|x<sub>1</sub>), −L<sub>0</sub> of (5.11)",
        "prior": "−KL(q(x<sub>T</sub>|x<sub>0</sub>) ‖ p(x<sub>T</sub>)), −L<sub>T</sub> of (5.11)",
        "denoising": "minus the sum over all L<sub>t−1</sub> of (5.11)",
        "ODE": "log p(x) by the flow of the probability-flow ODE (5.20)",
        "ODE - ELBO": "two models by one network, chain and flow: equal where it is exact, else of either sign",
    },
    loss="a weighting of the errors of denoising (5.18), not measured like the bound",
    samples="Samples: from noise to data by the recipe's sampler (5.19).",
    codes="x<sub>T</sub> by the probability-flow ODE (5.20)",
    points=100,
    comparable=False,
)

FAMILIES = {"vae": VAE, "diffusion": DIFFUSION}
