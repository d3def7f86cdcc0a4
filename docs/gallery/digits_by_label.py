"""Digits by label

A diffusion model of labelled data draws samples of the label that is asked for. Sample i depends only on the seed and
on i, so more samples continue the earlier ones.
"""

from matplotlib import pyplot
from sklearn.datasets import load_digits

import jensen

pixels, labels = load_digits(return_X_y=True)  # 1,797 digits of 8x8 pixels, 17 levels of grey

# %%
# A network without convolutions learns such small pictures in seconds.
recipe = jensen.DiffusionRecipe(
    data={"x": pixels.astype("uint8"), "y": labels},
    read={"levels": 17},
    model={"network": "mlp", "depth": 2, "sampling_steps": 30},
    training={"steps": 1000, "batch_size": 128, "optimiser": "adamw", "learning_rate": 3e-3, "ema_decay": 0.99},
)
run = jensen.train(recipe, "runs/digits")

# %%
# Ten samples of each label, one label per column.
samples = jensen.sample(run, 100, labels="in-turn", seed=0)
figure, axes = pyplot.subplots(10, 10, figsize=(5, 5), num="A hundred digits, one label per column")
for axis, sample in zip(axes.flat, samples.x, strict=True):
    axis.imshow(sample.reshape(8, 8), cmap="gray")
    axis.axis("off")
