"""How unusual is a picture?

The bound on log p(x) of an example tells how unusual the example is. The model below has seen the digits 0 to 7 only;
the digits 8 and 9 are strange to it.
"""

import numpy as np
from matplotlib import pyplot
from sklearn.datasets import load_digits

import jensen

pixels, labels = load_digits(return_X_y=True)
pictures = pixels.reshape(-1, 8, 8).astype("uint8")
recipe = jensen.VAERecipe(
    data={"x": pictures[labels < 8]},
    read={"levels": 17},
    model={"network": "mlp", "hidden": (128,), "latent_dims": 8},
    training={"steps": 1500, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/to-seven")

# %%
# Scores of the test split, which has digits that the model knows, and of the two others.
known = jensen.score(run)
strange = jensen.score(run, pictures[labels >= 8])
rank = (known.bound[:, None] > strange.bound[None, :]).double().mean()
print(f"known digits   {known.bound.mean():7.1f} nats")
print(f"8 and 9        {strange.bound.mean():7.1f} nats")
print(f"area under the ROC curve: {rank:.3f}")

# %%
# The histograms, and the six digits with the lowest bounds of all.
figure, axes = pyplot.subplots(1, 7, figsize=(11, 2.6), width_ratios=[6, 1, 1, 1, 1, 1, 1], num="Scores by digit")
bins = np.linspace(min(known.bound.min(), strange.bound.min()), known.bound.max(), 40)
axes[0].hist(known.bound, bins, density=True, alpha=0.6, label="0 to 7")
axes[0].hist(strange.bound, bins, density=True, alpha=0.6, label="8 and 9")
axes[0].set(xlabel="bound on log p(x), nats", yticks=[])
axes[0].legend()
for axis, index in zip(axes[1:], strange.bound.argsort()[:6], strict=True):
    axis.imshow(pictures[labels >= 8][index], cmap="gray")
    axis.set_title(f"{strange.bound[index]:.0f}", fontsize=9)
    axis.axis("off")
