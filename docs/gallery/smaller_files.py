"""A model as a compressor

A bound on log p(x) is also the length of a file: bits-back coding writes examples in about as many bits as the bound
says, and reads them back exactly.
"""

import io
import lzma
import zlib
from pathlib import Path

from matplotlib import pyplot
from PIL import Image

import jensen

recipe = jensen.VAERecipe(
    data="digits",
    model={"network": "mlp", "hidden": (128,), "latent_dims": 8},
    training={"steps": 1500, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/codec")

# %%
# The test split in one file, and back.
test = run.examples(split="test").x.numpy()
jensen.compress(run).save("test.jensen")
again = jensen.decompress(run, "test.jensen")
print("bit for bit:", (again == test).all())

# %%
# The size beside other formats for the same digits.
picture = io.BytesIO()
Image.fromarray(test.reshape(-1, 8)).save(picture, "png", optimize=True)
sizes = {
    "one byte per pixel": test.size,
    "zlib": len(zlib.compress(test.tobytes(), 9)),
    "PNG": len(picture.getvalue()),
    "xz": len(lzma.compress(test.tobytes())),
    "jensen": Path("test.jensen").stat().st_size,
}
figure, axis = pyplot.subplots(figsize=(6, 2.6), num="Sizes of the file of 180 digits by format")
bars = axis.barh(list(sizes), [size / 1000 for size in sizes.values()])
axis.bar_label(bars, [f"{8 * size / test.size:.2f} bits per pixel" for size in sizes.values()], padding=4)
axis.set(xlabel="kilobytes", xlim=(0, 1.5 * test.size / 1000))
axis.invert_yaxis()
