"""Make docs/images/expectation.png: one search of jensen.expectation, and the criterion by which it stopped.

Run from the repository: python docs/make_expectation_picture.py
"""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor

from jensen.expectation import Minimum, Search, minimise_expectation
from jensen.gaussian import MultivariateGaussian

A = torch.tensor([[2.0, 1.2], [1.2, 1.5]], dtype=torch.float64)
TARGET = torch.tensor([2.0, -1.0], dtype=torch.float64)
BEST = MultivariateGaussian.from_covariance(TARGET, torch.linalg.inv(A))
START = MultivariateGaussian(torch.tensor([-2.0, 1.0], dtype=torch.float64), 0.7 * torch.eye(2, dtype=torch.float64))
SEARCH = Search(tolerance=2e-3)


def f(x: Tensor) -> Tensor:
    return 0.5 * ((x - TARGET) @ A * (x - TARGET)).sum(-1)


def ellipse(distribution: MultivariateGaussian) -> Tensor:
    """Two standard deviations around the mean: mu + 2 L (cos, sin)."""
    angle = torch.linspace(0, 2 * torch.pi, 200, dtype=torch.float64)
    return distribution.mean + 2 * torch.stack([angle.cos(), angle.sin()], dim=-1) @ distribution.cholesky.T


def draw_plane(axes: Axes, found: Minimum[MultivariateGaussian]) -> None:
    x, y = torch.meshgrid(*[torch.linspace(-4.2, 4.2, 120, dtype=torch.float64)] * 2, indexing="xy")
    values = f(torch.stack([x.flatten(), y.flatten()], dim=-1)).reshape(x.shape)
    axes.contour(x, y, values, levels=np.array([0.5, 2, 5, 10, 20, 40]), colors="0.8", linewidths=0.8)
    for distribution, style, label in [
        (START, {"color": "0.5", "linestyle": "--"}, "start"),
        (BEST, {"color": "0.6", "linewidth": 5.0}, r"closed form $\mathcal{N}(a, \tau A^{-1})$"),
        (found.distribution, {"color": "black"}, "found"),
    ]:
        axes.plot(*ellipse(distribution).T, label=label, **style)
    axes.set(
        xlabel="$x_1$", ylabel="$x_2$", title="Contours of $f$; distributions at two sd", xlim=(-4.2, 4.2), ylim=(-4, 4)
    )
    axes.legend(loc="lower left", frameon=False)


def draw_loss(axes: Axes, found: Minimum[MultivariateGaussian]) -> None:
    losses, windows = [step.loss for step in found.history.steps], found.history.windows
    steps = np.array([window.steps for window in windows])
    centres = steps.cumsum() - steps / 2
    exact = float(1.0 - BEST.entropy())  # E f = ½ tr(A A^{-1}) = 1
    axes.plot(np.arange(1, len(losses) + 1), losses, color="0.75", linewidth=0.6, label="each step, 64 draws")
    axes.errorbar(
        centres,
        [window.loss for window in windows],
        yerr=[2 * window.standard_error for window in windows],
        xerr=steps / 2,
        fmt="ko",
        markersize=4,
        label="average of a window, ± 2 se",
    )
    axes.axhline(exact, color="black", linestyle=":", label="minimum, closed form")
    axes.set(xlabel="step", ylabel=r"$\mathrm{E} f - \tau H$ (nats)", title="Loss", ylim=(exact - 1, exact + 8))
    axes.legend(frameon=False)


def draw_criterion(axes: Axes, found: Minimum[MultivariateGaussian]) -> None:
    ends = np.cumsum([window.steps for window in found.history.windows])
    bounds = [abs(window.gain) + 2 * window.gain_standard_error for window in found.history.windows]
    axes.plot(ends, bounds, "ko-", markersize=4, label="|gain of the window| + 2 se")
    axes.axhline(SEARCH.tolerance, color="black", linestyle=":", label="tolerance")
    for end, bound, window in zip(ends, bounds, found.history.windows, strict=True):
        label = f"rate {window.learning_rate:.3g}"
        axes.annotate(label, (end, bound), xytext=(6, 4), textcoords="offset points", fontsize=8)
    axes.set(yscale="log", xlabel="step", ylabel="nats", title="When it stops", xlim=(0, 1.3 * ends[-1]))
    axes.legend(frameon=False, loc="upper right")


def main() -> None:
    found = minimise_expectation(f, START, torch.Generator().manual_seed(0), temperature=1.0, search=SEARCH)
    figure, panels = plt.subplots(1, 3, figsize=(14, 4.4), layout="constrained")
    for draw, axes in zip((draw_plane, draw_loss, draw_criterion), panels, strict=True):
        draw(axes, found)
    path = Path(__file__).parent / "images" / "expectation.png"
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    kl = float(found.distribution.kl(BEST))
    print(f"converged {found.converged} after {found.steps} steps, KL to the closed form {kl:.1e} nats: {path.name}")


if __name__ == "__main__":
    main()
