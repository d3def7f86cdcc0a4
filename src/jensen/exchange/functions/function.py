"""A function of a model as a module from tensors to tensors, with names, types and shapes: what a file can hold."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jensen.records import Value

BATCH, DRAWS = "batch", "k"
"""The names of the axes whose length is free."""


class Port(Value):
    """An input or output: its name, type and axes, each of fixed or free length, and its meaning."""

    name: str
    dtype: str
    """As in NumPy."""
    axes: tuple[int | str, ...]
    """Lengths; a free length has a name."""
    meaning: str

    @property
    def free(self) -> dict[int, str]:
        """The names of the free axes by their places."""
        return {place: axis for place, axis in enumerate(self.axes) if isinstance(axis, str)}


@dataclass(frozen=True, eq=False)
class Function:
    """A function of a model: `module` maps one tensor per input to one tensor, or a tuple of them, per output.

    `probe` makes inputs for a batch of this size, on which the function can be traced and checked.
    """

    name: str
    meaning: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    probe: Callable[[int], tuple[Tensor, ...]]

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The outputs, in the order of `outputs`."""
        found = self.module(*inputs)
        return found if isinstance(found, tuple) else (found,)


@dataclass(frozen=True, eq=False)
class Functions:
    """The functions of a model; `facts` are the numbers beside them by name, as JSON, and `notes` what is left out."""

    functions: tuple[Function, ...]
    facts: Mapping[str, object]
    notes: tuple[str, ...] = ()


def normal(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Standard normal numbers for a probe."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uniform(shape: tuple[int, ...]) -> Tensor:
    """Uniform numbers in [0, 1) for a probe."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))
