"""Columns of codes: a free probability for each code (4.10)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.likelihood.laws import Codes
from jensen.likelihood.stack import Cells, Stack, pick, ragged


@dataclass(frozen=True, eq=False)
class CodesCells(Cells):
    """P(x = k) = softmax(logits)_k (4.10).

    `log_probabilities` is (*batch, fields, most levels of a field); the probabilities of codes that a field does not
    have are 0. `counts` are the levels of each field.
    """

    log_probabilities: Tensor
    counts: tuple[int, ...]

    @property
    def levels(self) -> int | None:
        return self.counts[0] if len(self.counts) == 1 else None

    @property
    def mean(self) -> Tensor:
        return self.log_probabilities.argmax(-1).to(self.log_probabilities.dtype)

    def log_prob(self, x: Tensor) -> Tensor:
        code = x.long().clamp(0, self.log_probabilities.shape[-1] - 1)
        batch = torch.broadcast_shapes(code.shape, self.log_probabilities.shape[:-1])
        table = self.log_probabilities.expand(*batch, -1)
        return table.gather(-1, code.expand(batch).unsqueeze(-1)).squeeze(-1)

    def cdf(self, x: Tensor) -> Tensor:
        code = torch.arange(self.log_probabilities.shape[-1], device=x.device)
        return (self.log_probabilities.double().exp() * (code <= x.unsqueeze(-1))).sum(-1)

    def quantile(self, u: Tensor) -> Tensor:
        cumulative = self.log_probabilities.double().exp().cumsum(-1)
        # The last sum may be below u by rounding; codes beyond the levels of a field have no probability.
        cumulative = cumulative / cumulative[..., -1:]
        return (cumulative < u.unsqueeze(-1)).sum(-1).double()

    def at(self, field: int) -> "CodesCells":
        levels = self.counts[field]
        return CodesCells(self.log_probabilities[..., field : field + 1, :levels], (levels,))


class CodesStack(Stack):
    """Columns of codes whose numbers of levels have the same power of two above them, so that little is padded."""

    index: Tensor
    padding: Tensor

    def __init__(self, laws: Sequence[Codes]) -> None:
        super().__init__()
        self.counts = tuple(law.levels for law in laws)
        index, padding = ragged(self.counts)
        self.padded = bool(padding.any())
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("padding", padding, persistent=False)

    @staticmethod
    def key(law: Codes) -> Hashable:
        return Codes, (law.levels - 1).bit_length()

    def forward(self, raw: Tensor) -> CodesCells:
        if not self.padded:
            return CodesCells(raw.unflatten(-1, self.index.shape).log_softmax(-1), self.counts)
        logits = pick(raw, self.index).masked_fill(self.padding, -torch.inf)
        return CodesCells(logits.log_softmax(-1), self.counts)
