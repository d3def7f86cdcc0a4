"""The plane of a VAE's latent variables

With two latent dimensions, every point of a plane is a picture. The decoder shows the plane, and the encoder shows
where digits lie in it.
"""

import torch
from matplotlib import pyplot

import jensen

recipe = jensen.VAERecipe(
    data="digits",
    model={
        "likelihood": "bernoulli",
        "binarisation": "threshold",
        "network": "mlp",
        "hidden": (256, 128),
        "latent_dims": 2,
    },
    training={"steps": 2000, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/plane")

# %%
# E[x | z] on a lattice of z. The lattice has equal probabilities under N(0, I) between its points.
side = 15
ticks = torch.distributions.Normal(0, 1).icdf(torch.linspace(0.02, 0.98, side))
lattice = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).reshape(-1, 2)
with torch.no_grad():
    pictures = run.model.decode(lattice).mean.reshape(side, side, 8, 8)

# %%
# The means of q(z|x) for the digits of the training split, with colours by label.
digits = run.examples(split="train")
with torch.no_grad():
    codes = run.model.infer(run.spec.preparation(digits.x)).mean

figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 4.4), num="Decoded lattice of z; codes of digits, by label")
left.imshow(pictures.permute(0, 2, 1, 3).reshape(8 * side, 8 * side), cmap="gray", origin="upper")
left.set(title="E[x | z]", xticks=[], yticks=[])
right.scatter(*codes.T, c=digits.labels, cmap="tab10", s=6)
right.set(title="means of q(z | x)", xlabel="z_1", ylabel="z_2")
right.invert_yaxis()  # as in the picture on the left
figure.colorbar(right.collections[0], ticks=range(10))
