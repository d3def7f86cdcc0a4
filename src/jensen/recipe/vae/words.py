"""The family's captions and formulas in a report."""

from jensen.report.words import Words

WORDS = Words(
    name="variational autoencoder",
    formulas={
        "ELBO": "E<sub>q</sub> log p(x, z) / q(z) ≤ log p(x) (4.4)",
        "reconstruction": "E<sub>q</sub> log p(x|z), first term of (4.6)",
        "rate": "−KL(q(z|x) ‖ p(z)), second term of (4.6)",
        "rate_": "−KL(q(u<sub>g</sub>|u<sub>&lt;g</sub>, x) ‖ p(u<sub>g</sub>)) of a group, from the top (4.17)",
        "optimised ELBO": "(4.4), q optimised for each example, the model fixed",
        "L_": "log (1/K) Σ<sub>k</sub> p(x, z<sub>k</sub>) / q(z<sub>k</sub>|x) (4.9)",
        "amortisation gap": "the loss because the q of an example is not the best of its family",
        "inference gap, at least": "KL(q(z|x) ‖ p(z|x)) (4.4), log p(x) replaced by the bound (4.9)",
        "approximation gap, at least": "the loss that remains with the best q of the family",
    },
    loss="the negative bound (4.8), or the recipe's objective",
    samples="Samples: z from the prior (4.1), then x ~ p(x|z), including the noise of p(x|z) (4.2).",
    means="Means: z from the prior (4.1), then E[x|z].",
    reconstructions="E[x|z] at the mean of q(z|x) (4.6)",
    codes="the mean of q(z|x) (4.5)",
    points=2000,
)
