"""Any column from the others

One model of the rows predicts every column from all others, and says how sure it is. Here are the alcohol of a wine,
which is a number, and its class, which is a category.
"""

from sklearn.datasets import load_wine

import jensen

wine = load_wine(as_frame=True).frame
wine["class"] = "class " + wine.pop("target").astype(str)
run = jensen.train(jensen.VAERecipe(data=wine, training={"steps": 600}), "runs/wine")

# %%
# The same model, asked twice.
alcohol = jensen.predict(run, wine, target="alcohol")
grape = jensen.predict(run, target="class")
print(type(grape), [k for k in dir(grape) if k[0] != "_"], type(alcohol), [k for k in dir(alcohol) if k[0] != "_"])
