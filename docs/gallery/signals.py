"""Heartbeats

Signals are arrays with a long axis. These are made here: beats with random rates, heights and noise, 64 values each.
"""

import numpy as np
from matplotlib import pyplot

import jensen

random = np.random.default_rng(0)
time = np.linspace(0, 2, 64)


def beats(count):
    """Signals of some beats in two seconds: a wave before, a spike, and a wave after, (count, 1, 64)."""
    period, start = random.uniform(0.7, 1.1, (count, 1)), random.uniform(0, 0.2, (count, 1))
    phase = (time - start) % period / period
    waves = [(0.2, 0.05, 0.15), (0.4, 0.04, 1.0), (0.5, 0.04, -0.25), (0.7, 0.07, 0.3)]
    signal = sum(height * np.exp(-((phase - centre) ** 2) / (2 * width**2)) for centre, width, height in waves)
    signal = signal * random.uniform(0.7, 1.3, (count, 1)) + random.normal(0, 0.02, signal.shape)
    return signal[:, None].astype("float32")


recipe = jensen.VAERecipe(
    data=beats(3000),
    read={"layout": "signal"},
    model={"network": "mlp", "hidden": (256, 128), "latent_dims": 8},
    training={"steps": 2500, "learning_rate": 2e-3},
)
run = jensen.train(recipe, "runs/beats")

# %%
# Real signals, samples of the model, and a signal with a gap, which the model fills five times.
holes = beats(1)
holes[..., 22:42] = np.nan
found = jensen.impute(run, holes, draws=5, seed=0)
made = jensen.sample(run, 3, seed=1).x
figure, axes = pyplot.subplots(3, 1, figsize=(8, 6), sharex=True, num="Signals, samples, and draws that fill a gap")
axes[0].plot(time, beats(3)[:, 0].T)
axes[0].set_title("data")
axes[1].plot(time, made[:, 0].T)
axes[1].set_title("samples")
axes[2].plot(time, found.draws[:, 0, 0].T, color="tab:orange", alpha=0.6)
axes[2].plot(time, holes[0, 0], color="black")
axes[2].set(title="five draws of a gap", xlabel="seconds")
figure.tight_layout()
