"""The film of denoising

A diffusion model begins with noise and removes a little of it at every step. At each step it also has an opinion on
where the path will end.
"""

from matplotlib import pyplot
from sklearn.datasets import load_digits

import jensen

pixels, labels = load_digits(return_X_y=True)
recipe = jensen.DiffusionRecipe(
    data={"x": pixels.astype("uint8"), "y": labels},
    read={"levels": 17},
    model={"network": "mlp", "depth": 2, "sampling_steps": 60},
    training={"steps": 800, "batch_size": 128, "optimiser": "adamw", "learning_rate": 3e-3, "ema_decay": 0.99},
)
run = jensen.train(recipe, "runs/film")

# %%
# Three samples on the way from noise (left) to data (right): above the state x_t, below the estimate of x_0.
film = run.model.denoising(3, frames=10, seed=2)
figure, axes = pyplot.subplots(6, 10, figsize=(9, 5.5), num="States and estimates of three digits, from noise to data")
for number in range(3):
    for frame in range(10):
        for row, values in ((2 * number, film.x), (2 * number + 1, film.estimate)):
            axes[row, frame].imshow(values[frame, number].reshape(8, 8), cmap="gray")
            axes[row, frame].axis("off")
for axis, level in zip(axes[0], film.log_snr, strict=True):
    axis.set_title("∞" if level.isinf() else f"{level:.1f}", fontsize=8)
figure.suptitle("log signal-to-noise ratio", fontsize=9)
