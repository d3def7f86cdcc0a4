"""Synthetic rows beside real rows

A table goes in as it is, and rows of the same form come out: the same columns, the same types, the same dependence
between columns.
"""

from matplotlib import pyplot
from sklearn.datasets import load_iris

import jensen

iris = load_iris(as_frame=True).frame
iris["species"] = load_iris().target_names[iris.pop("target")]
recipe = jensen.VAERecipe(data=iris, training={"steps": 800})
run = jensen.train(recipe, "runs/iris")

# %%
# 150 rows from the model: a DataFrame like the one that went in.
made = jensen.sample(run, 150, seed=0).frame(like=iris)
print(made.head())
print()
print(made.species.value_counts().to_string())

# %%
# Two pairs of columns, real and synthetic.
figure, axes = pyplot.subplots(
    2, 2, figsize=(8, 6.5), sharex="row", sharey="row", layout="constrained", num="Real and synthetic rows of iris"
)
pairs = [("petal length (cm)", "petal width (cm)"), ("sepal length (cm)", "sepal width (cm)")]
for line, (across, up) in zip(axes, pairs, strict=True):
    for axis, (title, frame) in zip(line, {"real": iris, "synthetic": made}.items(), strict=True):
        for species, rows in frame.groupby("species"):
            axis.scatter(rows[across], rows[up], s=10, label=species)
        axis.set(title=title, xlabel=across, ylabel=up)
axes[0, 0].legend(fontsize=8)
