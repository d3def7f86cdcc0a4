"""The data's side of a function: raw values in, nats of raw values out."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from jensen.data.preparation import (
    Dequantise,
    DynamicBinarisation,
    Levels,
    Preparation,
    Standardise,
    StaticBinarisation,
    Threshold,
)
from jensen.data.table_preparation import TablePreparation
from jensen.errors import InputError
from jensen.exchange.functions.function import BATCH, Port, uniform
from jensen.randomness import Noise
from jensen.run import Run


@dataclass(frozen=True, eq=False)
class _Given:
    """A noise whose uniform numbers are given, so that a preparation becomes a function of them."""

    u: Tensor

    def uniform(self, shape: object) -> Tensor:
        return self.u

    def below(self, high: int, shape: object) -> Tensor:
        return (self.u * high).floor()


class Data(nn.Module):
    """The preparation of a run as a module: from raw values, and uniform numbers `u` if it is random, to x.

    A static binarisation draws from a hash of the values, which no exported file computes; it takes `u`, too.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        own = run.spec.preparation
        fields = own.model_dump(exclude={"kind", "seed"})
        # A copy: what tracing leaves in its caches must not reach the run
        self.preparation: Preparation = (
            DynamicBinarisation(**fields) if isinstance(own, StaticBinarisation) else type(own)(**own.model_dump())
        )
        self.examples = _examples(run)
        self(*self.probe(2))  # fills the caches of the preparation before anything is traced
        self.preparation.raw_nats(torch.zeros(2), self.probe(2)[0])

    @property
    def ports(self) -> tuple[Port, ...]:
        """x, and u if the preparation is random."""
        shape = (BATCH, *self.examples.shape[1:])
        x = Port(name="x", dtype=self.preparation.dtype, axes=shape, meaning="raw examples, as they are read")
        if isinstance(self.preparation, TablePreparation):
            meaning = "rows of a table as numbers, a field each (see fields in model.json); NaN is a missing cell"
            x = x.model_copy(update={"meaning": meaning})
        use = "dequantisation" if isinstance(self.preparation, Dequantise) else "binarisation"
        u = Port(name="u", dtype="float32", axes=shape, meaning=f"uniform numbers in [0, 1), the noise of {use}")
        return (x,) if self.preparation.deterministic else (x, u)

    def probe(self, count: int) -> tuple[Tensor, ...]:
        """Raw examples, and u if the preparation is random."""
        x = self.examples[torch.arange(count) % len(self.examples)]
        return (x,) if self.preparation.deterministic else (x, uniform(tuple(x.shape)))

    def forward(self, raw: Tensor, u: Tensor | None = None) -> Tensor:
        return self.preparation(raw, None if u is None else cast(Noise, _Given(u)))

    def split(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """The raw values, x, and the other inputs of a function whose first inputs are `ports`."""
        count = len(self.ports)
        return inputs[0], self(*inputs[:count]), inputs[count:]

    def raw_nats(self, nats: Tensor, raw: Tensor) -> Tensor:
        """log p(raw) of log p(x), float64."""
        return self.preparation.raw_nats(nats, raw)


class ToRaw(nn.Module):
    """From x, or a mean of x, to the units of the raw data; numbers are not rounded, but those of a table are."""

    def __init__(self, data: Data) -> None:
        super().__init__()
        self.preparation = data.preparation
        self.forward(self.preparation(*_with_noise(data)))  # fills the caches before anything is traced

    def forward(self, x: Tensor) -> Tensor:
        preparation = self.preparation
        if isinstance(preparation, TablePreparation):
            return preparation.raw_of(x)
        if isinstance(preparation, Standardise):
            return preparation.raw_of(x)
        if isinstance(preparation, Levels):
            return (x + 1) * ((preparation.levels - 1) / 2)
        if isinstance(preparation, Dequantise):
            return (x + 1) * (preparation.levels / 2) - 0.5
        if isinstance(preparation, Threshold | StaticBinarisation | DynamicBinarisation):
            return x * (1 if preparation.levels is None else preparation.levels - 1)
        raise InputError(f"preparation {preparation.kind}: it has no inverse to export")


def _with_noise(data: Data) -> tuple[Tensor, Noise | None]:
    raw, *u = data.probe(2)
    return raw, cast(Noise, _Given(u[0])) if u else None


def _examples(run: Run) -> Tensor:
    """Some raw examples: of the test split or, if the data are not there, samples of the model."""
    try:
        return run.examples().x[:8]
    except InputError:
        return torch.from_numpy(run.spec.preparation.to_raw(run.model.sample(8)))
