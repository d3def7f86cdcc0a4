"""The bound of models of tables on rows whose log p is a formula: nats per row below log p(row).

python benchmarks/table_bound.py
    draws a table of four hidden classes with categories, counts, heavy tails, exact zeros and missing cells, trains a
    VAE and latent diffusion on it, and prints the gap between log p(row) and the bounds on the test rows.
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.special import gammaln, logsumexp

import jensen
from jensen.bound import Estimate
from jensen.data.load import load_again
from jensen.recipe.latent.settings import LatentRecipe
from jensen.recipe.vae.settings import VAERecipe
from jensen.run.run import Run

WEIGHTS = np.array([0.4, 0.3, 0.2, 0.1])
COLOURS = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.05, 0.05, 0.8, 0.1], [0.1, 0.1, 0.1, 0.7]])
MEMBERS = np.array([0.9, 0.2, 0.5, 0.05])
VISITS = np.array([0.8, 3.0, 8.0, 2.0])  # means of Poisson laws
ZERO = np.array([0.6, 0.1, 0.3, 0.0])  # probability of an amount of exactly 0
AMOUNT = np.array([[1.0, 0.5], [3.0, 0.4], [2.0, 0.8], [4.0, 0.3]])  # location and scale of log amount
SCORE = np.array([[-2.0, 0.5], [0.0, 1.0], [2.0, 0.5], [5.0, 1.5]])  # location and scale of a Student t
FREEDOM = 3.0
MISSING = np.array([0.1, 0.2, 0.4, 0.2])  # of an amount, of a colour and of a score, by class; 20 % on average
NAMES = ("red", "green", "blue", "grey")


def draw(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Rows of the table; NaN and an empty text are missing cells."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(4, rows, p=WEIGHTS)
    colour = np.array(NAMES)[(COLOURS[kind].cumsum(1) < rng.random((rows, 1))).sum(1)]
    amount = np.exp(AMOUNT[kind, 0] + AMOUNT[kind, 1] * rng.normal(size=rows)) * (rng.random(rows) >= ZERO[kind])
    score = SCORE[kind, 0] + SCORE[kind, 1] * rng.standard_t(FREEDOM, rows)
    gone = rng.random((3, rows)) < MISSING[kind]
    return {
        "colour": np.where(gone[0], "", colour),
        "member": np.where(rng.random(rows) < MEMBERS[kind], "yes", "no"),
        "visits": rng.poisson(VISITS[kind]),
        "amount": np.where(gone[1], np.nan, amount),
        "score": np.where(gone[2], np.nan, score),
    }


def log_prob(table: dict[str, np.ndarray]) -> np.ndarray:
    """log p(row) in nats: masses of colour, member, visits, zeros and missing cells, densities of amount and score."""
    terms = np.log(WEIGHTS)[None].repeat(len(table["visits"]), 0)
    there = table["colour"] != ""
    code = np.array([NAMES.index(name) if name else 0 for name in table["colour"]])
    terms += np.where(there[:, None], np.log(1 - MISSING) + np.log(COLOURS.T[code]), np.log(MISSING))
    terms += np.log(np.where((table["member"] == "yes")[:, None], MEMBERS, 1 - MEMBERS))
    visits = table["visits"][:, None]
    terms += visits * np.log(VISITS) - VISITS - gammaln(visits + 1)
    for name, law in (("amount", log_amount), ("score", log_score)):
        value = table[name][:, None]
        density = np.log(1 - MISSING) + law(np.nan_to_num(value, nan=1.0))
        terms += np.where(np.isnan(value), np.log(MISSING), density)
    return logsumexp(terms, axis=1)


def log_amount(value: np.ndarray) -> np.ndarray:
    """The law of an amount that is not missing, by class."""
    safe = np.where(value == 0, 1.0, value)
    location, scale = AMOUNT.T
    density = -0.5 * ((np.log(safe) - location) / scale) ** 2 - np.log(scale * safe) - 0.5 * math.log(2 * math.pi)
    with np.errstate(divide="ignore"):
        return np.where(value == 0, np.log(ZERO), np.log1p(-ZERO) + density)


def log_score(value: np.ndarray) -> np.ndarray:
    """The law of a score that is not missing, by class."""
    location, scale = SCORE.T
    constant = gammaln((FREEDOM + 1) / 2) - gammaln(FREEDOM / 2) - 0.5 * np.log(FREEDOM * np.pi) - np.log(scale)
    return constant - (FREEDOM + 1) / 2 * np.log1p(((value - location) / scale) ** 2 / FREEDOM)


def write(table: dict[str, np.ndarray], path: Path) -> Path:
    """The table as CSV with all digits."""
    lines = [",".join(table)]
    for cells in zip(*table.values(), strict=True):
        lines.append(",".join("" if cell != cell else str(cell) for cell in cells))
    path.write_text("\n".join(lines) + "\n")
    return path


def gaps(run: Run, table: dict[str, np.ndarray], samples: int) -> None:
    """Print log p(row) and how far below it the bounds are, in nats per test row."""
    data, preparation = load_again(run.spec), run.spec.preparation
    truth = torch.from_numpy(log_prob(table)[data.test.names.rows.numpy()])
    raw = data.test.x[:]
    x, index = preparation(raw), torch.arange(len(raw))
    found = {"ELBO": run.model.elbo(x, draws=16 if run.model.prior.exact else 2, index=index).value}
    if run.model.prior.exact:
        found[f"L_{samples}"] = run.model.importance_weighted_bound(x, samples=samples, index=index).value
    for name, nats in found.items():
        gap = Estimate.of(truth - preparation.raw_nats(nats, raw))
        print(f"| {run.recipe.family} | {name} | {truth.mean():.3f} | {gap} |", flush=True)


def main() -> None:
    """Draw, train and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--prior-steps", type=int, default=3000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--warmup", type=int, default=0, help="steps of the KL's warm-up; 0 for the default")
    arguments = parser.parse_args()
    table = draw(arguments.rows, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = write(table, Path(folder) / "known.csv")
        training = {} if arguments.steps is None else {"steps": arguments.steps}
        settings = {"data": str(path), "training": training, "model": {"kl_warmup_steps": arguments.warmup}}
        vae = jensen.train(VAERecipe.model_validate(settings), Path(folder) / "vae")
        print("| model | bound | log p(row) | log p(row) - bound, nats per row |\n|---|---|---|---|")
        gaps(vae, table, arguments.samples)
        latent = LatentRecipe.model_validate({"training": {"steps": arguments.prior_steps}})
        gaps(jensen.train(latent, Path(folder) / "latent", vae), table, arguments.samples)


if __name__ == "__main__":
    main()
