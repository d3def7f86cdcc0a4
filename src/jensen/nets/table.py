"""Networks for tables: mixed columns in, parameters of every column out."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.nets.blocks import AbstractBlockNetwork
from jensen.nets.initial import at_the_edge, zeroed

FURTHEST = 6.0  # numbers beyond it look alike to a network, so an outlier cannot drive it to extremes
HIDDEN_STATE, MISSING_STATE, STATES = 0, 1, 2  # every column has the first two states


@dataclass(frozen=True)
class ColumnInput:
    """What a network sees of one column: which of some single values it has, and its number.

    `values` are the single values; an integer is short for 0..values-1. `number` says whether the network also sees
    the number, and `curved` whether it sees the number through the curve.
    """

    values: int | tuple[float, ...] = 0
    number: bool = False
    curved: bool = False

    @property
    def states(self) -> int:
        """The number of states: hidden, missing, any other number, and one for each single value."""
        return STATES + (self.values if isinstance(self.values, int) else len(self.values)) + self.number


class TableInput(nn.Module):
    """x (batch, columns) -> (batch, width): the sum of one vector per column, by its state, and of its numbers.

    NaN is a missing value, inf a hidden one. A number passes through `curve`, a module for the columns with `curved`
    that should give about N(0, 1); numbers of other columns should already be so. A linear map follows.
    """

    offsets: Tensor
    places: Tensor
    curved: Tensor
    listed: Tensor
    atoms: Tensor
    highest: Tensor

    def __init__(self, columns: Sequence[ColumnInput], width: int, curve: nn.Module | None = None) -> None:
        super().__init__()
        self.curve = curve
        counts = torch.tensor([column.states for column in columns])
        self._keep("offsets", counts.cumsum(0) - counts)
        self._keep("places", torch.tensor([j for j, column in enumerate(columns) if column.number], dtype=torch.long))
        curved = [column.curved for column in columns if column.number]
        self._keep("curved", torch.tensor([k for k, each in enumerate(curved) if each], dtype=torch.long))
        listed = [(j, c.values) for j, c in enumerate(columns) if isinstance(c.values, tuple) and c.values]
        most = max((len(values) for _, values in listed), default=0)
        padded = [(*values, *[math.nan] * (most - len(values))) for _, values in listed]  # NaN equals no value
        self._keep("listed", torch.tensor([j for j, _ in listed], dtype=torch.long))
        self._keep("atoms", torch.tensor(padded).reshape(len(listed), most))
        self._keep("highest", torch.tensor([c.values - 1 if isinstance(c.values, int) else -1 for c in columns]))
        self.states = nn.EmbeddingBag(int(counts.sum()), width, mode="sum")
        with warnings.catch_warnings():  # of a table without numbers, whose matrix is empty
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.numbers = at_the_edge(nn.Linear(len(self.places), width))
        size = 1 / math.sqrt(len(columns))
        nn.init.normal_(self.states.weight, std=size)
        nn.init.normal_(self.numbers.weight, std=size)
        nn.init.zeros_(self.numbers.bias)
        with torch.no_grad():
            self.states.weight[self.offsets + HIDDEN_STATE] = 0  # a hidden column tells nothing

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        missing, out = x.isnan(), x.isinf()
        value = x.masked_fill(missing | out, 0)
        state = torch.where(self.highest >= 0, torch.minimum(value, self.highest).long(), 0)
        if len(self.listed):
            same = value[:, self.listed, None] == self.atoms
            found = (same * torch.arange(1, same.shape[-1] + 1, device=x.device)).sum(-1)
            state = state.index_copy(1, self.listed, found)
        state = torch.where(out, HIDDEN_STATE, torch.where(missing, MISSING_STATE, STATES + state))
        h = self.states(state + self.offsets)
        if not len(self.places):
            return h + self.numbers.bias
        number = value[:, self.places]
        if self.curve is not None and len(self.curved):
            bent = self.curve(number[:, self.curved]).to(number.dtype)
            number = number.index_copy(1, self.curved, bent)
        unknown = (missing | out)[:, self.places]
        return h + self.numbers(number.clamp(-FURTHEST, FURTHEST).masked_fill(unknown, 0))


class ResidualBlocks(AbstractBlockNetwork):
    """h (batch, width) -> (batch, outputs): `depth` residual blocks, then norm and a linear map.

    The output is the last map's bias at first. A block is h + linear(silu(linear(norm(h)))), with 2 width in between.
    """

    def __init__(self, width: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = at_the_edge(nn.Linear(width, outputs))
        nn.init.normal_(self.last.weight, std=0.1 / math.sqrt(width))
        nn.init.zeros_(self.last.bias)

    def forward(self, h: Tensor) -> Tensor:
        for block in self.blocks:
            h = self.block(block, h)
        return self.last(self.norm(h))


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, 2 * width), zeroed(nn.Linear(2 * width, width))

    def forward(self, h: Tensor) -> Tensor:
        return h + self.second(F.silu(self.first(self.norm(h))))


class TableEncoder(nn.Sequential):
    """x (batch, columns), with NaN for missing and inf for hidden values -> (batch, outputs)."""

    def __init__(
        self, columns: Sequence[ColumnInput], outputs: int, width: int, depth: int, curve: nn.Module | None = None
    ) -> None:
        super().__init__(TableInput(columns, width, curve), ResidualBlocks(width, depth, outputs))


class TableDecoder(nn.Sequential):
    """z (batch, latent_dims) -> (batch, outputs)."""

    def __init__(self, latent_dims: int, outputs: int, width: int, depth: int) -> None:
        super().__init__(at_the_edge(nn.Linear(latent_dims, width)), ResidualBlocks(width, depth, outputs))
