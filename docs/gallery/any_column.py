"""Any column from the others

One model of the rows predicts every column from all others, and says how sure it is. Here are the alcohol of a wine,
which is a number, and its class, which is a category.
"""

from matplotlib import pyplot
from rich import print
from sklearn.datasets import load_wine

import jensen

wine = load_wine(as_frame=True).frame
wine["class"] = "class " + wine.pop("target").astype(str)
run = jensen.train(jensen.VAERecipe(data=wine, training={"steps": 600}), "runs/wine")

# %%
# The class of the wines of the test split: accuracy, and whether the probabilities are right.
print(jensen.predict(run, target="class").table())

# %%
# The alcohol of the same wines, with central intervals.
alcohol = jensen.predict(run, target="alcohol")
print(alcohol.table())
found = alcohol.predictions
mean, truth = found.mean[:, 0], found.y[:, 0]
lower, upper = found.ends[:, 0, 2], found.ends[:, 0, 3]
order = truth.argsort()
figure, axis = pyplot.subplots(figsize=(7, 3.5), num="Alcohol of test wines: predicted and true")
places = range(len(order))
axis.errorbar(places, mean[order], [(mean - lower)[order], (upper - mean)[order]], fmt="o", capsize=3, label="80 %")
axis.plot(places, truth[order], "x", color="black", label="truth")
axis.set(xlabel="wines by their alcohol", ylabel="alcohol, %", xticks=[])
axis.legend()
