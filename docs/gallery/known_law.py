"""The bound beside the truth

Points from a mixture of normals have a density that is a formula. So the bound of a model of these points can be
compared with log p(x) itself, point by point.
"""

import numpy as np
import torch
from matplotlib import pyplot

import jensen
from jensen.mixture import mixture

angles = torch.arange(6, dtype=torch.float64) * torch.pi / 3
means = 2 * torch.stack([angles.cos(), angles.sin()], -1)
weights, covariances = torch.full((6,), 1 / 6).double(), 0.15 * torch.eye(2).double().expand(6, 2, 2)
law = mixture(weights, means, covariances)
points = law.sample(1, seed=0, index=range(6000))[0].numpy()

# %%
# A VAE with one latent dimension cannot follow the ring as well as one with two.
settings = {"steps": 1500, "learning_rate": 3e-3, "batch_size": 256}
runs = {}
for dims in (1, 2):
    model = {"latent_dims": dims, "hidden": (64, 64)}
    runs[dims] = jensen.train(jensen.VAERecipe(data=points, model=model, training=settings), f"runs/{dims}")

# %%
# The truth, and the bounds at new points. The difference is the price of the model and of the bound together.
new = law.sample(1, seed=1, index=range(1000))[0]
truth = law.log_prob(new).numpy()
figure, axes = pyplot.subplots(
    1, 3, figsize=(11, 3.6), layout="constrained", num="The points; bounds against the exact density"
)
axes[0].scatter(*new.T, c=truth, s=4)
axes[0].set(title="log p(x), exact", aspect="equal")
for axis, (dims, run) in zip(axes[1:], runs.items(), strict=True):
    scored = jensen.score(run, new.numpy(), draws=64)
    gap = truth - scored.bound.numpy()
    print(f"{dims} latent: log p(x) - ELBO = {gap.mean():.3f} ± {gap.std() / np.sqrt(len(gap)):.3f} nats")
    axis.scatter(truth, scored.bound, s=4)
    axis.axline((-3, -3), slope=1, color="grey")
    axis.set(title=f"latent dimensions: {dims}", xlabel="log p(x)", ylabel="ELBO", ylim=(-9, -0.5))
