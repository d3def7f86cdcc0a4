"""The family's captions and formulas in a report."""

from jensen.report.words import Words

WORDS = Words(
    name="latent diffusion model",
    formulas={
        "ELBO": "E<sub>q</sub> [log p(x|z) − log q(z|x) + bound of log p(z)] ≤ log p(x) (4.4), (5.11)",
        "reconstruction": "E<sub>q</sub> log p(x|z), first term of (4.6)",
        "entropy": "−E<sub>q</sub> log q(z|x)",
        "latent reconstruction": "E log p(z<sub>0</sub>|z<sub>1</sub>), −L<sub>0</sub> of (5.11) in the units of z",
        "denoising": "minus the sum over all L<sub>t−1</sub> of (5.11) for z",
        "prior": "−KL(q(z<sub>T</sub>|z<sub>0</sub>) ‖ p(z<sub>T</sub>)), −L<sub>T</sub> of (5.11) for z",
        "ELBO, flow prior": "another model: log p(z) by the flow of the same network (5.20)",
        "ELBO, N(0, I) prior": "another model: the same VAE with the prior of its first stage (4.6)",
    },
    loss="first the negative bound (4.8) of the VAE, then the prior's error of denoising (5.18), in other units",
    samples="Samples: z by the sampler of the prior (5.19), then x ~ p(x|z), including the noise of p(x|z) (4.2).",
    means="Means: z by the sampler of the prior (5.19), then E[x|z].",
    reconstructions="E[x|z] at the mean of q(z|x) (4.6)",
    codes="the mean of q(z|x) (4.5)",
    points=2000,
    comparable=False,
)
