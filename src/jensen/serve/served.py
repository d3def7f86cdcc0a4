"""A run as a server holds it: the model, the verbs it answers, its sizes of batches, and its description."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from jensen.data.examples import Examples
from jensen.data.table.column import Column, Table
from jensen.diffusion import DiffusionModel
from jensen.errors import InputError
from jensen.evaluation.scores import spread
from jensen.inference.columns import checked
from jensen.model import Effort
from jensen.progress import track
from jensen.recipe.family import ImputationWish, SamplingWish
from jensen.run import Run
from jensen.serve.work import AbstractWork, Decode, Encode, Reconstruct, Row, Sample, Score, crowd
from jensen.vae import VAE

LADDER = (1, 4, 16, 64)  # numbers of rows that a model may compute at once
COMPARED = 16  # rows whose bits are compared between sizes
VALUES = {"cpu": 1 << 16, "gpu": 1 << 22}  # the most values of x in a block
BINS = 40  # of the histogram


@dataclass(eq=False)
class Served:
    """A run and what the server knows about it. `sizes` has the sizes of blocks of each work, by its name.

    `scores` are the bounds of test examples in nats, ascending; None until they are known. `shown` are test examples
    that any client may see; None for none.
    """

    name: str
    run: Run
    sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    scores: np.ndarray | None = None
    shown: Examples | None = None

    @classmethod
    def of(cls, run: Run, name: str | None = None) -> "Served":
        """The run, measured: see `measure`."""
        served = cls(name or run.folder.resolve().name, run)
        served.measure()
        return served

    # -- what it answers

    @property
    def table(self) -> Table | None:
        """The columns of a run on a table, else None."""
        return self.run.spec.table

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs that the run answers."""
        model, table = self.run.model, self.table
        answers = {
            "sample": True,
            "score": True,
            "reconstruct": table is None,
            "encode": True,
            "decode": True,
            "impute": _possible(lambda: self.run.family.imputer(ImputationWish(), self.run.spec)),
            "predict": self._predicts(),
            "interpolate": True,
            "film": isinstance(model, DiffusionModel) and self.run.spec.pictured,
        }
        return tuple(verb for verb, can in answers.items() if can)

    def _predicts(self) -> bool:
        model = self.run.model
        if self.table is not None:
            return _possible(lambda: checked(model))
        return model.predicted_targets is not None or model.predicted_classes is not None

    @property
    def bound(self) -> str:
        """The name of the bound that a score is."""
        return self.run.model.estimators(Effort())[0].name

    def percentile(self, bound: float) -> float | None:
        """The share of test examples with a lower bound; None until it is known."""
        if self.scores is None:
            return None
        return float(np.searchsorted(self.scores, bound)) / len(self.scores)

    def secrets(self) -> list[tuple[str, str]]:
        """The paths of the machine that an error of this run may name, each with the word for it; long ones first."""
        folder = self.run.folder
        paths = {str(folder.resolve()): self.name, str(folder): self.name, str(folder.absolute()): self.name}
        source = self.run.spec.source
        if Path(source).is_absolute():
            paths[source] = Path(source).name
        return sorted(paths.items(), key=lambda pair: -len(pair[0]))

    # -- sizes of blocks

    def measure(self) -> None:
        """Find the sizes of blocks in which every row has the same bits, whatever its place and its neighbours.

        Of the sizes in `LADDER`, the largest group is kept whose members agree; of two such groups, the one that begins
        nearer to 16. Whether two sizes agree depends on the networks and the machine's kernels, not on the values.
        """
        self.sizes = {"sample": (1,)}
        works = self._probed()
        for work, rows in track(works, f"{self.name}: batches that do not change a bit"):
            self.sizes[work.name] = _agreeing(work, rows)

    def _probed(self) -> list[tuple[AbstractWork, Sequence[Row]]]:
        """The works whose rows are batched, with rows to try.

        A model that evaluates its network many times per example, or solves an ODE with a common step, scores and
        encodes one example at a time.
        """
        model, spec = self.run.model, self.run.spec
        values = VALUES["cpu" if model.device.type == "cpu" else "gpu"]
        count = max(1, min(LADDER[-1], values // math.prod(model.shape)))
        labels: Sequence[int | None] = model.known_labels if model.classes is not None else (None,)
        rows = [Row(number=number, label=labels[number % len(labels)]) for number in range(count)]
        steps = SamplingWish(steps=2) if isinstance(model, DiffusionModel) else SamplingWish()
        sample = Sample(self, wish=steps)
        found: list[tuple[AbstractWork, Sequence[Row]]] = [(sample, rows)]
        if not isinstance(model, VAE):
            return found
        raw = torch.from_numpy(spec.preparation.to_raw(torch.stack(sample.compute(rows))))
        examples = [Row(number=row.number, x=one) for row, one in zip(rows, raw, strict=True)]
        found[0] = (_Drawn(self), rows)
        found += [(Score(self), examples), (Encode(self), examples)]
        if spec.table is None:
            codes = torch.randn(count, model.latent_dims, generator=torch.Generator().manual_seed(0))
            found += [(Reconstruct(self), examples), (Decode(self), [Row(x=z) for z in codes])]
        return found

    # -- the description

    def description(self) -> dict[str, Any]:
        """What `/runs` tells about the run."""
        spec, model = self.run.spec, self.run.model
        kind = "table" if self.table is not None else "picture" if spec.pictured else "array"
        labels = None
        if model.classes is not None:
            labels = [spec.label_name(label) for label in model.known_labels]
        return {
            "name": self.name,
            "family": self.run.recipe.family,
            "data": kind,
            "layout": spec.layout,
            "shape": list(spec.shape),
            "levels": spec.levels,
            "minimum": _finite(spec.minimum),
            "maximum": _finite(spec.maximum),
            "labels": labels,
            "columns": None if self.table is None else [_column(self.table, place) for place in self.table.columns],
            "target": spec.options.labels if self.table is not None else None,
            "latent": model.latent_dims,
            "verbs": list(self.verbs),
            "noisy": model.noisy_samples and self.table is None,
            "bound": self.bound,
            "unit": "nats",
            "examples": 0 if self.shown is None else len(self.shown),
            "histogram": None if self.scores is None else _histogram(self.scores),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "step": self.run.step,
        }

    def test_rows(self, count: int) -> list[Row]:
        """Up to `count` test examples, evenly spread. Raises `InputError` if the data are gone."""
        examples = self.run.examples()
        rows = spread(len(examples), count)
        return [Row(number=int(number), x=x) for number, x in zip(rows, examples.x[rows], strict=True)]


@dataclass(frozen=True)
class _Drawn(Sample):
    """Samples of a VAE with the decoder's output, whose last bits a sample of whole numbers does not show."""

    def compute(self, rows: Sequence[Row]) -> list[Any]:
        model, labels = self.served.run.model, None
        assert isinstance(model, VAE)
        if rows[0].label is not None:
            labels = torch.tensor([row.label for row in rows])
        with torch.no_grad():
            output = model.decoder(model.prior_draws(len(rows), seed=crowd(rows), labels=labels))
        return [*zip(super().compute(rows), output.cpu(), strict=True)]


def _possible(ask: Callable[[], Any]) -> bool:
    try:
        ask()
    except InputError:
        return False
    return True


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _column(table: Table, column: Column) -> dict[str, Any]:
    fields = [one for one in table.fields if table.columns[one.column] is column]
    levels = fields[0].levels
    numbers = column.type in ("integer", "count") and not column.values
    high = column.low + column.step * (levels - 1) if numbers and levels else None
    return {
        "name": column.name,
        "kind": column.type,
        "categories": list(column.values) or None,
        "low": column.low if numbers else None,
        "high": high,
        "missing": column.missing,
    }


def _histogram(scores: np.ndarray) -> dict[str, Any]:
    counts, edges = np.histogram(scores[np.isfinite(scores)], bins=min(BINS, max(1, len(scores) // 4)))
    return {"edges": edges.tolist(), "counts": counts.tolist(), "examples": len(scores)}


def _agreeing(work: AbstractWork, rows: Sequence[Row]) -> tuple[int, ...]:
    """The sizes of blocks, ascending, that give every row the same bits; see `Served.measure`."""
    groups: dict[bytes, list[int]] = {}
    for size in (size for size in LADDER if size <= len(rows)):
        some = rows[: max(size, COMPARED)]
        found = _bits(work, some, size)
        if size == 1 or _bits(work, some[::-1], size)[::-1] == found:
            groups.setdefault(b"".join(found[:COMPARED]), []).append(size)
    # Of single sizes, 16 wastes least: a request alone pays for 15 more rows, and 64 in a crowd for none
    _, _, chosen = max((len(sizes), -abs(sizes[0] - COMPARED), sizes) for sizes in groups.values())
    return tuple(chosen)


def _bits(work: AbstractWork, rows: Sequence[Row], size: int) -> list[bytes]:
    """The bits of every row, computed in blocks of one size."""
    found: list[bytes] = []
    for start in range(0, len(rows), size):
        block = rows[start : start + size]
        padded = [*block, *rows[: size - len(block)]]
        found += [_bytes(one) for one in work.compute(padded)][: len(block)]
    return found


def _bytes(result: Any) -> bytes:
    parts = result if isinstance(result, tuple) else (result,)
    return b"".join(
        part.numpy().tobytes() if isinstance(part, Tensor) else np.float64(part).tobytes()
        for part in parts
        if part is not None
    )
