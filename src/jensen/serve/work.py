"""The kinds of request as functions of rows: each row has its own seed and number, and settings are common.

A work computes blocks of fixed sizes. A matrix product on a CPU or GPU may round a row differently in batches of
different sizes, because other kernels are used. So rows are padded to one of `sizes`, for which `measure` of `served`
has found equal bits.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.table.fill import centre, quantiles
from jensen.diffusion import DiffusionModel
from jensen.errors import InputError
from jensen.evaluation.scores import prepare, score
from jensen.inference.codes import InterpolationPath, decode_codes, decode_rows, interpolate_codes
from jensen.inference.columns import draw_given
from jensen.inference.imputation import impute
from jensen.inference.predict_column import predict_classes, predict_numbers
from jensen.inference.prediction import predict_examples
from jensen.inference.rows import seen_rows
from jensen.inference.target_prediction import predict_target_examples
from jensen.randomness import Crowd
from jensen.recipe.family import ImputationWish, SamplingWish

if TYPE_CHECKING:
    from jensen.serve.served import Served

LEVEL = 0.95  # of the intervals of imputed values


@dataclass(frozen=True, eq=False)
class Row:
    """One row of a request: the seed and the number of its draws, and, by the kind of request, an example x.

    x is raw, or a code z. `label` is for samples, `observed` (True: known) for imputation.
    """

    seed: int = 0
    number: int = 0
    x: Tensor | None = None
    label: int | None = None
    observed: Tensor | None = None

    @property
    def size(self) -> int:
        """The numbers that the row holds while it waits."""
        return 1 if self.x is None else self.x.numel()


def crowd(rows: Sequence[Row]) -> Crowd:
    """The seed under which the rows draw together what each draws alone."""
    return Crowd.of([(row.seed, row.number) for row in rows])


def _stacked(rows: Sequence[Row]) -> Tensor:
    return torch.stack([row.x for row in rows if row.x is not None])


@dataclass(frozen=True)
class AbstractWork(ABC):
    """One kind of request to one run, with its settings; requests of equal works are computed together."""

    name: ClassVar[str]
    served: "Served"

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of rows that the model computes at once, ascending; each gives the same bits."""
        return self.served.sizes.get(self.name, (1,))

    def numbers(self, rows: Sequence[Row]) -> int:
        """The numbers that the rows and their results hold, about."""
        return len(rows) * math.prod(self.served.run.spec.shape) + sum(row.size for row in rows)

    @abstractmethod
    def compute(self, rows: Sequence[Row]) -> list[Any]:
        """The result of each row."""

    def padded(self, rows: Sequence[Row]) -> list[Any]:
        """The results of rows, computed in a block of one of `sizes`."""
        size = next(size for size in self.sizes if size >= len(rows))
        return self.compute([*rows, *[rows[-1]] * (size - len(rows))])[: len(rows)]


# ---------------------------------------------------------------------------------------------- samples


@dataclass(frozen=True)
class Sample(AbstractWork):
    """Samples, or with `mean` their means E[x | latent]; a result is x in the form of the preparation."""

    name = "sample"
    mean: bool = False
    wish: SamplingWish = field(default_factory=SamplingWish)

    def compute(self, rows: Sequence[Row]) -> list[Tensor]:
        run = self.served.run
        model = run.family.sampling(run.model, run.recipe, self.wish).model
        labels = None if rows[0].label is None else torch.tensor([row.label for row in rows])
        draw = model.sample_mean if self.mean else model.sample
        found = draw(len(rows), seed=crowd(rows), labels=labels).cpu()
        return [_finite(one, self.served) for one in found]


@dataclass(frozen=True)
class SampleGiven(AbstractWork):
    """Rows of a table with some given cells; `cells` are x of the given row, inf where the cell is drawn."""

    name = "sample given"
    cells: tuple[float, ...] = ()

    def compute(self, rows: Sequence[Row]) -> list[Tensor]:
        model, x = self.served.run.model, torch.tensor(self.cells)
        found, _ = draw_given(model, x, len(rows), seed=crowd(rows))
        return [_finite(one, self.served) for one in found.cpu()]


def _finite(x: Tensor, served: "Served") -> Tensor:
    bad = x.isinf() if served.run.spec.table is not None else ~x.isfinite()
    if bool(bad.any()):
        raise InputError("samples that are not finite: expected finite numbers; try other settings of sampling")
    return x


@dataclass(frozen=True, eq=False)
class Film(AbstractWork):
    """One sample while it is drawn: `show` gets the number of the step, the state and the estimate of x_0."""

    name = "film"
    show: Callable[[int, int, Tensor, Tensor], None] = lambda *_: None
    frames: int = 25

    @property
    def sizes(self) -> tuple[int, ...]:
        return (1,)

    def compute(self, rows: Sequence[Row]) -> list[Tensor]:
        run, size = self.served.run, self.served.sizes["sample"][0]
        model = run.family.sampling(run.model, run.recipe, SamplingWish()).model
        assert isinstance(model, DiffusionModel)
        rows = [rows[0]] * size  # the bits of the sample
        labels = None if rows[0].label is None else torch.tensor([row.label for row in rows])
        with torch.no_grad():
            for state in model.trajectory(size, seed=crowd(rows), labels=labels):
                steps = model.generation.steps
                step = steps - state.position
                if state.position % max(1, round(steps / max(1, self.frames - 1))) == 0 or not step:
                    estimate = state.history[0].x0 if state.history else state.x
                    self.show(step, steps, state.x[:1].cpu(), estimate[:1].cpu())
        return [state.x[0].cpu()]


# ---------------------------------------------------------------------------------------------- examples


@dataclass(frozen=True)
class Score(AbstractWork):
    """The bound of examples: pairs of the bound and its standard error, in nats of the raw data."""

    name = "score"

    def compute(self, rows: Sequence[Row]) -> list[tuple[float, float]]:
        run = self.served.run
        draws = run.model.usual_draws
        found = score(run.model, Examples(_stacked(rows)), run.spec.preparation, draws=draws, seed=crowd(rows))
        return list(zip(found.bound.tolist(), found.standard_error.tolist(), strict=True))


@dataclass(frozen=True)
class Encode(AbstractWork):
    """Codes of examples: pairs of z and its standard deviation, None for a code without."""

    name = "encode"

    @torch.no_grad()
    def compute(self, rows: Sequence[Row]) -> list[tuple[Tensor, Tensor | None]]:
        found = self.served.run.model.codes(_prepared(rows, self.served), seed=crowd(rows))
        sigma = [None] * len(rows) if found.sigma is None else [*found.sigma.cpu()]
        return list(zip(found.z.cpu(), sigma, strict=True))


@dataclass(frozen=True)
class Decode(AbstractWork):
    """E[x|z] of codes z in the form of the preparation; of a table the centre of p(x|z), as a raw row."""

    name = "decode"

    def compute(self, rows: Sequence[Row]) -> list[Tensor]:
        run, z = self.served.run, _stacked(rows)
        if self.served.table is None:
            return list(decode_codes(run.model, z))
        found = decode_rows(run.model, z, run.spec.preparation, self.served.table, seed=crowd(rows))
        return list(torch.from_numpy(found))


@dataclass(frozen=True)
class Between(AbstractWork):
    """Codes (n, latent) on a path; a row holds the codes of both ends, (2, latent)."""

    name = "between"
    n: int = 2
    path: InterpolationPath = InterpolationPath.SPHERICAL

    def compute(self, rows: Sequence[Row]) -> list[Tensor]:
        model = self.served.run.model
        return [interpolate_codes(model, first, last, self.n, self.path) for first, last in _stacked(rows)]


@dataclass(frozen=True)
class Reconstruct(AbstractWork):
    """Reconstructions of examples, in the form of the preparation."""

    name = "reconstruct"

    def compute(self, rows: Sequence[Row]) -> list[Tensor]:
        return list(self.served.run.model.reconstruct(_prepared(rows, self.served)).cpu())


def _prepared(rows: Sequence[Row], served: "Served") -> Tensor:
    index = torch.arange(len(rows))
    return prepare(served.run.spec.preparation, _stacked(rows), index, crowd(rows)).to(served.run.model.device)


# ---------------------------------------------------------------------------------------------- one row at a time


@dataclass(frozen=True, eq=False)
class Imputed:
    """Imputed values of one example in raw units: a value, and the ends of its 95 % interval, each (*shape)."""

    x: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Impute(AbstractWork):
    """Missing values of examples, each by `draws` draws."""

    name = "impute"
    draws: int = 5
    wish: ImputationWish = field(default_factory=ImputationWish)

    def compute(self, rows: Sequence[Row]) -> list[Imputed]:
        run, raw, seed = self.served.run, _stacked(rows), crowd(rows)
        observed = torch.stack([row.observed for row in rows if row.observed is not None])
        spec = run.spec
        x = seen_rows(raw, spec, torch.arange(len(rows)), seed)
        found = impute(run.model, x, observed, run.family.imputer(self.wish, spec), draws=self.draws, seed=seed).draws
        if not bool(found.isfinite().all()):
            raise InputError("draws that are not finite: expected finite numbers; try another method or more steps")
        draws = spec.preparation.to_raw(found.cpu().flatten(0, 1)).reshape(tuple(found.shape))
        draws = np.where(observed.numpy(), raw.numpy(), draws)
        if spec.table is not None:
            middle = centre(draws, spec.table, "median")
            low, high = quantiles(draws, spec.table, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        else:
            wide = draws.astype(np.float64)
            middle, (low, high) = wide.mean(0), np.quantile(wide, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        return [Imputed(*one) for one in zip(middle, low, high, strict=True)]


@dataclass(frozen=True)
class Predict(AbstractWork):
    """p(y|x) of examples: a dict by example. `column` is the place of the predicted field of a table, else None."""

    name = "predict"
    column: int | None = None

    def compute(self, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
        run, examples, seed = self.served.run, Examples(_stacked(rows)), crowd(rows)
        spec = run.spec
        if spec.table is not None:
            assert self.column is not None
            values = spec.table.columns[spec.table.fields[self.column].column].values
            if values:
                classes = predict_classes(run.model, examples, spec, self.column, seed=seed)
                return _of_classes(classes.prediction, values)
            return _of_numbers(predict_numbers(run.model, examples, spec, self.column, seed=seed))
        if run.model.predicted_targets is not None:
            assert spec.targets is not None
            return _of_numbers(predict_target_examples(run.model, examples, spec.preparation, spec.targets, seed=seed))
        found = predict_examples(run.model, examples, spec.preparation, seed=seed).prediction
        return _of_classes(found, [spec.label_name(k) for k in range(found.log_probabilities.shape[1])])


def _of_classes(found: Any, names: Sequence[str]) -> list[Mapping[str, Any]]:
    return [
        {
            "predicted": names[int(p.argmax())],
            "probabilities": dict(zip(names, p.tolist(), strict=True)),
            "standard_error": float(error[int(p.argmax())]),
        }
        for p, error in zip(found.probabilities, found.standard_error, strict=True)
    ]


def _of_numbers(found: Any) -> list[Mapping[str, Any]]:
    return [
        {
            "mean": mean.tolist(),
            "standard_deviation": deviation.tolist(),
            "standard_error": error.tolist(),
            "low": ends[:, -2].tolist(),
            "high": ends[:, -1].tolist(),
        }
        for mean, deviation, error, ends in zip(
            found.mean, found.deviation, found.standard_error, found.ends, strict=True
        )
    ]
