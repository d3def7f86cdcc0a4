"""A stack: columns of a table with laws of one kind, which are computed together."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn


class Cells(ABC):
    """The distribution of the present cells of several columns of one kind: x is (*batch, fields) without NaN."""

    @property
    @abstractmethod
    def levels(self) -> int | None:
        """The number of values of a single column of codes or whole numbers; None for any other distribution."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """E[x], (*batch, fields); for codes the most probable code."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """The log-mass or log-density of each cell in nats, (*batch, fields)."""

    @abstractmethod
    def cdf(self, x: Tensor) -> Tensor:
        """P(x or less) of each cell, float64; codes are in the order of their numbers."""

    @abstractmethod
    def quantile(self, u: Tensor) -> Tensor:
        """The smallest x whose `cdf` is u or more, float64."""

    @abstractmethod
    def at(self, field: int) -> "Cells":
        """The distribution of one of the columns."""


class Stack(nn.Module, ABC):
    """Turns the outputs of a decoder for several columns of one kind into their distribution."""

    @staticmethod
    @abstractmethod
    def key(law: Any) -> Hashable:
        """Laws with the same key go into one stack."""

    @abstractmethod
    def forward(self, raw: Tensor) -> Cells:
        """The distribution, given outputs (*batch, outputs)."""


def ragged(lengths: Sequence[int]) -> tuple[Integer[Tensor, "rows most"], Bool[Tensor, "rows most"]]:
    """The places of the numbers of each row if all rows stand one after the other, and a mask of the padding.

    >>> ragged([2, 1])[0].tolist(), ragged([2, 1])[1].tolist()
    ([[0, 1], [2, 0]], [[False, False], [False, True]])
    """
    counts = torch.tensor(lengths)
    place = torch.arange(int(counts.max()))
    padding = place >= counts[:, None]
    return ((counts.cumsum(0) - counts)[:, None] + place).masked_fill(padding, 0), padding


def pick(
    values: Float[Tensor, "*batch many"], index: Integer[Tensor, "rows most"]
) -> Float[Tensor, "*batch rows most"]:
    """values[..., index], whose gradient is much quicker than that of torch's indexing."""
    return values.index_select(-1, index.flatten()).unflatten(-1, index.shape)
