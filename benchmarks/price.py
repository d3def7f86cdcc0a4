"""What a number costs: rows through the network for a test bound to a wanted error, by four ways on the same weights.

    python benchmarks/price.py RUN [--error 0.01] [--images 24] [--bank 1000] [--repeats 200]

The ways: OpenAI's `calc_bpd_loop` (improved-diffusion, gaussian_diffusion.py), re-made from its published algorithm;
`jensen evaluate` with --examples and --draws; `jensen evaluate --error` without and with controls. Then the coverage of
± 1.96 errors of --error over repeats, each on a test set of 10,000 drawn with replacement from a bank of images whose
parts have all been drawn twice. --images 0 and --bank 0 leave their lines out. RUN is a diffusion model of images;
nothing is written into it.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import jensen
from jensen.bound import Estimate
from jensen.evaluation.controls import controls
from jensen.evaluation.scores import score, spread
from jensen.evaluation.source import Source
from jensen.evaluation.until import Goal, until
from jensen.progress import track
from jensen.randomness import generator

BITS = "bits per dimension"


# ---------------------------------------------------------------------------------------------- calc_bpd_loop


def standard_normal_cdf(x: Tensor) -> Tensor:
    """Their approximation of the normal distribution function."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log P(x) for 256 levels in [-1, 1], as they compute it."""
    centred, inverse = x - mean, torch.exp(-log_scale)
    plus, minus = (standard_normal_cdf(inverse * (centred + s / 255)) for s in (1, -1))
    upper, lower = plus.clamp(min=1e-12).log(), (1 - minus).clamp(min=1e-12).log()
    return torch.where(x < -0.999, upper, torch.where(x > 0.999, lower, (plus - minus).clamp(min=1e-12).log()))


def normal_kl(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL of two diagonal normals, every dimension for itself."""
    gap = (mean - other_mean) ** 2 * torch.exp(-other_log_variance)
    return 0.5 * (-1 + other_log_variance - log_variance + torch.exp(log_variance - other_log_variance) + gap)


@torch.no_grad()
def calc_bpd_loop(model: torch.nn.Module, x: Tensor, noise: torch.Generator) -> Tensor:
    """Bits per dimension of each image by every step of the chain, without clipping x̂: T rows an image."""
    bound = model.bound()
    cumulative = torch.sigmoid(bound.log_snr[1:].double())
    before = torch.cat([torch.ones(1).double(), cumulative[:-1]])
    betas = 1 - cumulative / before
    total = torch.zeros(len(x), dtype=torch.float64)
    for t in reversed(range(bound.steps)):
        eps = torch.randn(x.shape, generator=noise)
        x_t = cumulative[t].sqrt() * x + (1 - cumulative[t]).sqrt() * eps
        prediction = bound.denoiser(x_t.float(), bound.log_snr[t + 1].expand(len(x)), None)
        level = bound.log_snr[t].expand(len(x))  # inf at the data
        scale = bound.variance.scale(prediction, level).double()
        if t == 0:
            log_scale = scale.clamp(min=0.1 * 2 / 255).log()
            nats = -discretised_log_likelihood(x.double(), prediction.x0.double(), log_scale)
        else:
            first = betas[t] * before[t].sqrt() / (1 - cumulative[t])
            second = (1 - before[t]) * (1 - betas[t]).sqrt() / (1 - cumulative[t])
            truth = (betas[t] * (1 - before[t]) / (1 - cumulative[t])).log()
            means = (first * x0.double() + second * x_t for x0 in (x, prediction.x0))
            nats = normal_kl(next(means), truth, next(means), 2 * scale.log())
        total += nats.flatten(1).mean(1) / math.log(2)
    mean, log_variance = cumulative[-1].sqrt() * x.double(), (1 - cumulative[-1]).log()
    zero = torch.zeros(()).double()
    return total + normal_kl(mean, log_variance, zero, zero).flatten(1).mean(1) / math.log(2)


# ---------------------------------------------------------------------------------------------- the table


def line(way: str, rows: float, found: Estimate, wanted: float, seconds: float) -> None:
    """One way: its rows, its mean and error, and the rows that it needs for the wanted error."""
    needed = rows * (found.standard_error / wanted) ** 2
    mean = f"{found.mean:.4f} ± {found.standard_error:.4f}"
    print(f"| {way} | {rows:,.0f} | {mean} | {needed:,.0f} | {seconds:.0f} |", flush=True)


def ways(run: jensen.Run, wanted: float, images: int) -> None:
    """Print a line for each way of the peers and of today; two share their images, so their difference is paired."""
    examples, preparation, model = run.examples(), run.spec.preparation, run.model

    def scored(count: int) -> Tensor:
        rows, began = spread(len(examples), count), time.perf_counter()
        bits = score(model, examples[rows], preparation, draws=2, seed=0, index=rows).bits_per_dimension
        cost = count * model.bound_evaluations
        line(f"evaluate, 2 draws on {count} images", cost, Estimate.of(bits), wanted, time.perf_counter() - began)
        return bits

    began, rows = time.perf_counter(), spread(len(examples), images)
    theirs = calc_bpd_loop(model, preparation(examples.x[rows]), generator(0, 31))
    cost = images * model.bound().steps
    line(f"calc_bpd_loop on {images} images", cost, Estimate.of(theirs), wanted, time.perf_counter() - began)
    print(f"| the line below minus this, paired | | {Estimate.of(scored(images) - theirs)} | | |")
    scored(5 * images)


def to_error(run: jensen.Run, wanted: float) -> None:
    """Print a line for --error without and with controls, and what Neyman's allocation is worth."""
    for way, control in (("--error, no controls", False), ("--error", True)):
        found = jensen.mean_bound(run, error=wanted, control=control)
        line(f"{way}, on {found.visited} images", found.evaluations, found.bits_per_dimension, wanted, found.seconds)
        spreads = torch.tensor([part.residual_deviation for part in found.parts])
        equal = len(spreads) * spreads.square().sum() / spreads.sum() ** 2
        print(f"| the same with as many rows of each part | | | {equal:.2f} times as many | |")


# ---------------------------------------------------------------------------------------------- coverage


def bank(run: jensen.Run, images: int) -> tuple[Tensor, Tensor]:
    """Two draws of every part of some test images, (2, parts, images), and the controls of these images."""
    examples, preparation, parts = run.examples(), run.spec.preparation, run.model.parts()
    rows = torch.randperm(len(examples), generator=generator(0, 32))[:images]
    draws = torch.empty(2, parts.count, images, dtype=torch.float64)
    for draw, part in track([(d, h) for d in range(2) for h in range(parts.count)], "bank"):
        for own in torch.arange(images).split(250):
            x, places = preparation(examples.x[rows[own]]), torch.full((len(own),), part)
            draws[draw, part, own] = parts.draw(x, places, 10 * part + draw, rows[own])
    known = controls(run.dataset.train, examples[rows], preparation, 0)
    return draws, torch.stack(list(known.values()), 1)


def repeated(draws: Tensor, known: Tensor, wanted: float, repeats: int, dimensions: int) -> None:
    """Print the spread over the stated error, the coverage and the rows of --error on test sets from the bank."""
    truth = -draws.mean(0).mean(1).sum().item() / (dimensions * math.log(2))
    found, rows = [], []
    for seed in range(repeats):
        chosen = torch.randint(draws.shape[2], (10_000,), generator=generator(seed, 33))
        which = generator(seed, 34)

        def draw(examples: Tensor, parts: Tensor, visit: int, own: Tensor = chosen, noise: Any = which) -> Tensor:
            return draws[torch.randint(2, (len(parts),), generator=noise), parts, own[examples]]

        observed = torch.full((10_000,), float(dimensions), dtype=torch.float64)
        source = Source(draws.shape[1], 0 * observed, observed, draw, (), 10_000)
        reached = until(source, known[chosen], Goal(wanted, BITS), seed=seed, tell=lambda _: None)
        found.append(reached.measure.bits_per_dimension)
        rows.append(int(reached.found.rows.sum()))
    means, errors = (torch.tensor([getattr(one, name) for one in found]) for name in ("mean", "standard_error"))
    covered = ((means - truth).abs() <= 1.96 * errors).double().mean()
    ratio, bias = means.std() / errors.square().mean().sqrt(), (means.mean() - truth) / means.std()
    print(
        f"{repeats} repeats from a bank of {draws.shape[2]} images, {known.shape[1]} controls: {min(rows)} to "
        f"{max(rows)} rows, spread / error {ratio:.2f}, bias {bias:+.2f} spreads, coverage {covered:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--error", type=float, default=0.01)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--bank", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=200)
    options = parser.parse_args()
    print(f"| way | rows | {BITS} | rows for ± {options.error:g} | seconds |\n|---|---|---|---|---|")
    run = jensen.load(options.run)
    if options.images:
        ways(run, options.error, options.images)
    to_error(run, options.error)
    if options.bank:
        draws, known = bank(run, options.bank)
        for used in (known[:, :0], known):
            repeated(draws, used, options.error, options.repeats, run.spec.preparation.dimensions)


if __name__ == "__main__":
    main()
