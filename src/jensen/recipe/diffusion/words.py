"""The family's captions and formulas in a report."""

from jensen.report.words import Words

WORDS = Words(
    name="diffusion model",
    formulas={
        "ELBO": "log p(x<sub>0</sub>) ≥ (5.10), term by term (5.11)",
        "reconstruction": "E log p(x<sub>0</sub>|x<sub>1</sub>), −L<sub>0</sub> of (5.11)",
        "prior": "−KL(q(x<sub>T</sub>|x<sub>0</sub>) ‖ p(x<sub>T</sub>)), −L<sub>T</sub> of (5.11)",
        "denoising": "minus the sum over all L<sub>t−1</sub> of (5.11)",
        "ODE": "log p(x) by the flow of the probability-flow ODE (5.20)",
        "ODE - ELBO": "one network defines two models, the chain and the flow; they agree if the network is exact",
    },
    loss="a weighted error of denoising (5.18), in other units than the bound",
    samples="Samples: from noise to data by the recipe's sampler (5.19).",
    codes="x<sub>T</sub> by the probability-flow ODE (5.20)",
    points=100,
    comparable=False,
)
