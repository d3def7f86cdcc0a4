"""Nats per held-out row of tables: a VAE beside a mixture of classes with independent columns, on the same rows.

python benchmarks/table_nats.py FILE.csv ...
    trains `jensen train vae` with its defaults and fits the mixture by EM, with the number of classes that is best on
    the validation rows; prints nats per test row with errors, and the paired difference.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import jensen
from jensen.bound import Estimate
from jensen.data.load import load_again
from jensen.data.table_preparation import PreparedField, TablePreparation
from jensen.likelihood import log_normal_interval
from jensen.monotone import Curves
from jensen.recipe.vae.settings import VAERecipe

CLASSES = (1, 2, 4, 8, 16, 32, 64)
ROUNDS = 100
SMALLEST = 0.03  # deviation of a class in a column whose numbers are about N(0, 1)


class Column:
    """One column in the form of the mixture: a state (code, atom, missing or other number) and the number T."""

    def __init__(self, field: PreparedField, x: Tensor) -> None:
        self.field = field
        self.curve = Curves([field.curve]) if field.law in ("whole", "count") and field.curve is not None else None
        known = x[~x.isnan()]
        self.atoms = torch.tensor(sorted(field.images)) if field.law == "real" else None
        self.states = (int(known.max()) + 1 if len(known) else 1) if field.law == "codes" else 1 + len(field.images)
        self.states = max(self.states, field.levels or 0) if field.law == "codes" else self.states
        self.states += 1  # missing

    def state(self, x: Tensor) -> Tensor:
        """The state of each cell."""
        missing = x.isnan()
        value = x.nan_to_num()
        if self.field.law == "codes":
            found = value.long()
        elif self.atoms is not None and len(self.atoms):
            same = value[:, None] == self.atoms
            found = torch.where(same.any(1), 1 + same.int().argmax(1), 0)
        else:
            found = torch.zeros_like(value, dtype=torch.long)
        return torch.where(missing, self.states - 1, found)

    def number(self, x: Tensor) -> Tensor:
        """T of each cell that has a number, NaN for all others."""
        if self.field.law == "codes":
            return torch.full_like(x, torch.nan).double()
        value = x.double() if self.curve is None else self.curve(x.nan_to_num()[:, None])[:, 0]
        return torch.where(self.state(x) == 0, value, torch.nan)

    def log_prob(self, x: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """log p of the numbers given each class, (rows, classes); 0 for cells without a number."""
        value = self.number(x)[:, None]
        if self.curve is None:
            found = torch.distributions.Normal(mean, deviation).log_prob(value.nan_to_num())
        else:
            k = x.nan_to_num()[:, None]
            ends = [self.curve(k - 0.5), self.curve(k + 0.5)]
            ends[0] = torch.where(k <= 0, -1e3, ends[0])
            if self.field.levels is not None:
                ends[1] = torch.where(k >= self.field.levels - 1, 1e3, ends[1])
            low, high = ((end - mean) / deviation for end in ends)
            found = log_normal_interval(low, high, high - low)
        return torch.where(value.isnan(), 0, found)


class Mixture:
    """Classes with independent columns: probabilities of states, and a normal law of T of numbers."""

    def __init__(self, columns: list[Column], x: Tensor, classes: int, seed: int = 0) -> None:
        self.columns = columns
        source = torch.Generator().manual_seed(seed)
        centres = torch.randperm(len(x), generator=source)[:classes]
        self.states = [column.state(x[:, j]) for j, column in enumerate(columns)]
        self.numbers = [column.number(x[:, j]) for j, column in enumerate(columns)]
        distance = torch.zeros(len(x), classes, dtype=torch.float64)
        for state, number in zip(self.states, self.numbers, strict=True):
            distance += (state[:, None] != state[centres][None]).double()
            distance += (number[:, None] - number[centres][None]).nan_to_num().square()
        shares = torch.softmax(-distance, 1)
        for _ in range(ROUNDS):
            self._maximise(shares)
            joint = self._joint(self.states, self.numbers)
            shares = joint.softmax(1)

    def _maximise(self, shares: Tensor) -> None:
        self.log_weights = ((shares.sum(0) + 1) / (len(shares) + shares.shape[1])).log()
        self.tables, self.means, self.deviations = [], [], []
        for column, state, number in zip(self.columns, self.states, self.numbers, strict=True):
            counts = torch.zeros(column.states, shares.shape[1], dtype=torch.float64).index_add_(0, state, shares)
            overall = counts.sum(1, keepdim=True) / counts.sum()
            counts = counts + overall + 1e-3 / column.states  # a row's worth of the overall shares
            self.tables.append((counts / counts.sum(0)).log())
            seen = shares * ~number.isnan()[:, None]
            total = seen.sum(0) + 1.0
            value = number.nan_to_num()[:, None]
            mean = (seen * value).sum(0) / total
            variance = ((seen * (value - mean).square()).sum(0) + 1.0 * 1.0) / total
            self.means.append(mean)
            self.deviations.append(variance.sqrt().clamp(min=SMALLEST))

    def _joint(self, states: list[Tensor], numbers: list[Tensor]) -> Tensor:
        joint = self.log_weights.expand(len(states[0]), -1).clone()
        for j, (state, number) in enumerate(zip(states, numbers, strict=True)):
            joint += self.tables[j][state]
            normal = torch.distributions.Normal(self.means[j], self.deviations[j])
            joint += torch.where(number.isnan()[:, None], 0, normal.log_prob(number.nan_to_num()[:, None]))
        return joint

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) of rows, in nats, with masses of whole numbers."""
        joint = self.log_weights.expand(len(x), -1).clone()
        for j, column in enumerate(self.columns):
            joint += self.tables[j][column.state(x[:, j])]
            joint += column.log_prob(x[:, j], self.means[j], self.deviations[j])
        return joint.logsumexp(1)


def main() -> None:
    """Train, fit and print a row for each file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--samples", type=int, default=100)
    arguments = parser.parse_args()
    print("| table | rows x columns | VAE: ELBO | VAE: L_K | mixture | L_K - mixture | classes | s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for file in arguments.files:
        training = {} if arguments.steps is None else {"steps": arguments.steps}
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            run = jensen.train(VAERecipe.model_validate({"data": file, "training": training}), Path(folder) / "run")
            seconds = time.process_time() - began
            report(file, run, arguments.samples, seconds)


def report(file: str, run: jensen.Run, samples: int, seconds: float) -> None:
    """Print the row of a file."""
    data, preparation = load_again(run.spec), run.spec.preparation
    assert isinstance(preparation, TablePreparation)
    train, validation = (preparation(part.x[:]) for part in (data.train, data.validation))
    raw = data.test.x[:]
    x, index = preparation(raw), torch.arange(len(raw))
    columns = [Column(field, train[:, j]) for j, field in enumerate(preparation.fields)]
    mixtures = [Mixture(columns, train, count) for count in CLASSES if count <= len(train) // 20]
    best = max(mixtures, key=lambda mixture: float(mixture.log_prob(validation).mean()))
    bound = run.model.importance_weighted_bound(x, samples=samples, index=index).value
    values = [run.model.elbo(x, draws=16, index=index).value, bound, best.log_prob(x)]
    elbo, bound, other = (preparation.raw_nats(nats, raw) for nats in values)
    size = f"{len(train) + len(validation) + len(raw)} x {x.shape[1]}"
    found = [Estimate.of(each) for each in (elbo, bound, other, bound - other)]
    numbers = " | ".join(str(each) for each in found)
    print(f"| {Path(file).stem} | {size} | {numbers} | {len(best.log_weights)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
