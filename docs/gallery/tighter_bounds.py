"""Tighter with more samples

The importance-weighted bound L_K rises with the number K of samples, and its limit is log p(x). With K = 1 it is the
ELBO.
"""

import math

from matplotlib import pyplot

import jensen

recipe = jensen.VAERecipe(
    data="digits",
    model={"network": "mlp", "hidden": (128,), "latent_dims": 8},
    training={"steps": 800, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/bounds")

# %%
# L_K of 60 test digits, with the standard error over the digits.
x = run.spec.preparation(run.examples(split="test").x[:60])
counts = [1, 3, 10, 30, 100, 300, 1000]
bounds = [run.model.importance_weighted_bound(x, samples=count, seed=0) for count in counts]
for count, bound in zip(counts, bounds, strict=True):
    print(f"K = {count:4d}: {bound.value.mean():.2f} ± {bound.value.std() / math.sqrt(len(x)):.2f} nats")

# %%
# Digits differ far more from each other than the bounds do. The gain over the ELBO is measured digit by digit, so its
# error is small.
figure, axis = pyplot.subplots(figsize=(6, 3.5), num="The gain of L_K over the ELBO rises with K")
gains = [bound.value - bounds[0].value for bound in bounds]
axis.errorbar(counts, [gain.mean() for gain in gains], [gain.std() / math.sqrt(len(x)) for gain in gains], capsize=3)
axis.set(xscale="log", xlabel="K", ylabel="gain over K = 1, nats per digit")
axis.grid(alpha=0.3)
