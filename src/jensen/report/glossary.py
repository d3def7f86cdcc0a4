"""Explanations in HTML of the lecture's formulas and the field's terms; a page explains the terms that it mentions."""

FORMULAS = {
    "1.4": "p(y|x) = ∫ p(x, y, z) dz / Σ<sub>ŷ</sub> ∫ p(x, ŷ, z) dz: prediction of y from x with hidden variables z",
    "3.1": "f(λx + (1−λ)y) ≤ λ f(x) + (1−λ) f(y) for convex f: Jensen's inequality. log is concave, so that "
    "log E w ≥ E log w: every bound here is this line",
    "3.2": "f(Σ d<sub>i</sub> x<sub>i</sub>) ≤ Σ d<sub>i</sub> f(x<sub>i</sub>) for convex f and probabilities "
    "d<sub>i</sub>: the finite form of Jensen's inequality",
    "4.1": "p(z) = N(z | 0, I): the prior of the latent variables",
    "4.2": "p(x|z) = N(x | μ(z), Σ(z)), or another likelihood: the decoder's output as a distribution",
    "4.4": "log p(x) ≥ E<sub>q</sub> log [p(x, z) / q(z)] for any density q. The gap is KL(q(z) ‖ p(z|x))",
    "4.5": "q(z|x) = N(z | μ(x), diag s(x)²), by an encoder, or with free μ and s for each example",
    "4.6": "ELBO = E<sub>q</sub> log p(x|z) − KL(q(z|x) ‖ p(z)): reconstruction minus rate",
    "4.8": "Loss = −(1/B) Σ<sub>j</sub> [log p(x<sub>j</sub>|z<sub>j</sub>) − KL<sub>j</sub>], z<sub>j</sub> drawn "
    "from q(z|x<sub>j</sub>), over a batch of B examples",
    "4.9": "L<sub>K</sub> = E log (1/K) Σ<sub>k</sub> p(x, z<sub>k</sub>) / q(z<sub>k</sub>|x): the "
    "importance-weighted bound. It does not fall as K grows; L<sub>1</sub> is the ELBO, L<sub>∞</sub> is log p(x)",
    "4.17": "q(u|x) = Π<sub>g</sub> N(u<sub>g</sub> | m<sub>g</sub>(u<sub>&lt;g</sub>, x), diag "
    "s<sub>g</sub>(u<sub>&lt;g</sub>, x)²): the posterior of a hierarchy, from the top group down. The rate of a group "
    "is the mean of KL(q(u<sub>g</sub>|u<sub>&lt;g</sub>, x) ‖ p(u<sub>g</sub>)) over the groups above it",
    "5.6": "q(x<sub>t</sub>|x<sub>0</sub>) = N(x<sub>t</sub> | √ᾱ<sub>t</sub> x<sub>0</sub>, (1−ᾱ<sub>t</sub>) I): the "
    "example with noise of step t",
    "5.10": "log p(x<sub>0</sub>) ≥ E<sub>q</sub> [log p(x<sub>T</sub>) + Σ<sub>t</sub> log "
    "p(x<sub>t−1</sub>|x<sub>t</sub>) / q(x<sub>t</sub>|x<sub>t−1</sub>)]",
    "5.11": "the bound (5.10) as −KL(q(x<sub>T</sub>|x<sub>0</sub>) ‖ p(x<sub>T</sub>)) − Σ<sub>t≥2</sub> E "
    "KL(q(x<sub>t−1</sub>|x<sub>t</sub>, x<sub>0</sub>) ‖ p(x<sub>t−1</sub>|x<sub>t</sub>)) + E log "
    "p(x<sub>0</sub>|x<sub>1</sub>): minus the prior term L<sub>T</sub>, the denoising terms L<sub>t−1</sub> and the "
    "reconstruction term L<sub>0</sub>",
    "5.18": "DDPM's training: x<sub>0</sub> from the data, t uniform, ε ~ N(0, I), loss "
    "‖ε − ε<sub>θ</sub>(√ᾱ<sub>t</sub> x<sub>0</sub> + √(1−ᾱ<sub>t</sub>) ε, t)‖²",
    "5.19": "Sampling: x<sub>T</sub> ~ N(0, I), then from each x<sub>t</sub> a less noisy x<sub>t−1</sub> until "
    "x<sub>0</sub>; the recipe's sampler says by which steps",
    "5.20": "In continuous time the same network also gives an ordinary differential equation, the probability flow, "
    "whose log-likelihood is exact up to integration error",
}

TERMS = {
    "ELBO": "evidence lower bound: a lower bound on log p(x), the log-probability of an example under the model",
    "nats": "units of natural logarithms: a probability p costs −log p nats; one nat is 1.44 bits",
    "bits per dimension": "−log<sub>2</sub> p(x) divided by the number of observed values in an example: the size per "
    "pixel and channel of a file compressed by the model; lower is better",
    "standard error": "the standard deviation of a mean over repeated experiments: about 95 % of intervals of ± 1.96 "
    "standard errors hold the true mean",
    "Monte-Carlo error": "the part of an error that comes from the random draws of the computation; more draws make "
    "it smaller",
    "effective sample size": "the number of equally weighted draws that would be as precise as the weighted draws; "
    "near 1, a single draw decides the result",
    "Pareto k": "the shape of the tail of the importance weights: above 0.7, neither the estimate nor its error is to "
    "be trusted",
    "log-SNR": "logarithm of the signal-to-noise ratio ᾱ<sub>t</sub> / (1−ᾱ<sub>t</sub>): large near the data, small "
    "near pure noise",
    "amortisation gap": "the loss in the bound because q is not optimised for each example: one encoder serves "
    "them all",
    "KL": "Kullback-Leibler divergence of one distribution from another: at least 0, and 0 if they are equal",
    "Fréchet distance": "distance between two sets of examples by the means and covariances of their features",
    "calibration error": "mean difference between the probability of the predicted label and the share of right labels",
    "log-loss": "mean of −log p(true label): lower is better",
    "AIS": "annealed importance sampling: a chain of distributions from an easy one to the posterior, whose weights "
    "estimate log p(x)",
    "probability-flow ODE": "a differential equation that turns data into noise and back without randomness",
}
