"""From one digit to another

Between the codes of two digits lie codes of digits in between. A path on the sphere keeps the length of the codes,
which a straight line would shorten.
"""

import torch
from matplotlib import pyplot

import jensen

recipe = jensen.VAERecipe(
    data="digits",
    model={"network": "mlp", "hidden": (256, 128), "latent_dims": 12},
    training={"steps": 1500, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/between")

# %%
# Pairs of digits of the test split, which the model has not seen.
test = run.examples(split="test")
where = [int((test.labels == label).nonzero()[0]) for label in range(10)]
pairs = [(where[0], where[6]), (where[3], where[8]), (where[4], where[9]), (where[1], where[7])]


def between(start, end, share):
    """The point at a share of the way along the sphere."""
    angle = torch.acos(torch.cosine_similarity(start, end, dim=0))
    return (torch.sin((1 - share) * angle) * start + torch.sin(share * angle) * end) / torch.sin(angle)


shares = torch.linspace(0, 1, 9)
figure, axes = pyplot.subplots(len(pairs), 11, figsize=(9, 3.4), num="Each row changes one digit into another")
with torch.no_grad():
    codes = run.model.infer(run.spec.preparation(test.x)).mean
    for row, (first, last) in zip(axes, pairs, strict=True):
        path = torch.stack([between(codes[first], codes[last], share) for share in shares])
        decoded = run.spec.preparation.to_raw(run.model.decode(path).mean)
        strip = [test.x[first, 0], *decoded[:, 0], test.x[last, 0]]  # the digits themselves at both ends
        for axis, picture in zip(row, strip, strict=True):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=16)
            axis.axis("off")
