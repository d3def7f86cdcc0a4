"""The other half of a picture

Given the upper half of a digit, the model draws the lower half: several times, because several digits may begin alike.
"""

from matplotlib import pyplot

import jensen

recipe = jensen.VAERecipe(
    data="digits",
    model={"network": "mlp", "hidden": (256, 128), "latent_dims": 12},
    training={"steps": 1500, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/halves")

# %%
# Five draws from p(lower half | upper half) for ten digits of the test split.
found = jensen.impute(run, mask="half:bottom", examples=10, draws=5, seed=0)
print(f"draws: {found.draws.shape}, that is draws, examples, channels, rows, columns")

# %%
# From the top: the digit, what the model sees, and the draws.
figure, axes = pyplot.subplots(7, 10, figsize=(7, 5), num="Ten digits, their upper halves, and five draws of the rest")
seen = found.truth.astype(float)
seen[~found.observed.numpy()] = float("nan")
rows = [found.truth, seen, *found.draws]
for line, pictures in zip(axes, rows, strict=True):
    for axis, picture in zip(line, pictures, strict=True):
        axis.imshow(picture[0], cmap="gray", vmin=0, vmax=16)
        axis.set_facecolor("tab:blue")
        axis.set(xticks=[], yticks=[])
