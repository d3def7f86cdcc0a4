"""The distribution of a row of a table: each column has a law of its own, independent of the others given z (4.2).

| law     | x                              | distribution                                                        |
|---------|--------------------------------|---------------------------------------------------------------------|
| `Codes` | 0 .. levels - 1, no distances  | softmax (4.10)                                                      |
| `Whole` | 0 .. levels - 1                | a mixture of logistic laws of T(x), integrated over the bins (4.11) |
| `Count` | 0, 1, 2, ...                   | a zero-inflated negative binomial law (4.12)                        |
| `Real`  | real numbers                   | point masses, and a mixture of normal laws (4.13)                   |

A law with `missing` has one more value, NaN: a missing cell (4.14). Columns with the same law are computed together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.likelihood.codes import CodesStack
from jensen.likelihood.count import CountStack
from jensen.likelihood.laws import Codes, Count, Law, Real, Whole
from jensen.likelihood.likelihoods import AbstractLikelihood
from jensen.likelihood.real import RealStack
from jensen.likelihood.stack import Cells, Stack
from jensen.likelihood.whole import WholeStack

STACKS: dict[type[Law], type[Stack]] = {Codes: CodesStack, Whole: WholeStack, Count: CountStack, Real: RealStack}
MOST_LEVELS = 1 << 16


@dataclass(frozen=True, eq=False)
class Columns:
    """A distribution over rows x (*batch, D) with NaN for missing cells; x may lack leading batch dimensions.

    `parts` are the distributions of cells: those of `sizes[0]` columns, of `sizes[1]` columns, and so on. Their columns
    are `order` (D). `missing` (*batch, D) is the logit of p(missing); it is minus infinity for a column that has no
    missing cells.
    """

    parts: tuple[Cells, ...]
    sizes: tuple[int, ...]
    order: Tensor
    missing: Tensor

    @property
    def mean(self) -> Tensor:
        """E[x] of each column given that the cell is present, (*batch, D); for codes the most probable code.

        Codes have no distances, so their mean would say nothing.
        """
        return self._gathered([part.mean for part in self.parts]).to(self.missing)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (*batch): the sum over the columns of log-masses and log-densities."""
        return self.log_prob_by_dimension(x).sum(-1)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """log p(x_d) in nats, (*batch, D); for a missing cell log p(missing) (4.14)."""
        absent = x.isnan()
        filled = x.masked_fill(absent, 0)
        present = self._gathered([part.log_prob(cells) for part, cells in self._split(filled)])
        return torch.where(absent, F.logsigmoid(self.missing), present.to(self.missing) + F.logsigmoid(-self.missing))

    def quantile(self, u: Tensor) -> Tensor:
        """The inverse of `cdf`, where NaN comes before all numbers: a sample of x if u ~ U(0, 1), u (*batch, D)."""
        absent = torch.sigmoid(self.missing.to(u))
        rest = (u - absent) / (1 - absent)
        x = self._gathered([part.quantile(cells) for part, cells in self._split(rest)])
        return torch.where(u < absent, torch.nan, x.to(self.missing.dtype))

    def cdf(self, x: Tensor) -> Tensor:
        """P(missing) + P(present, x_d or less), (*batch, D), float64; for NaN it is P(missing)."""
        absent = torch.sigmoid(self.missing.double())
        filled = x.masked_fill(x.isnan(), 0)
        below = self._gathered([part.cdf(cells) for part, cells in self._split(filled)])
        return absent + (1 - absent) * torch.where(x.isnan(), 0, below)

    def present(self) -> "Columns":
        """The distribution given that no cell is missing."""
        return replace(self, missing=torch.full_like(self.missing, -torch.inf))

    def field(self, field: int) -> "Columns":
        """The distribution of one column, D = 1."""
        one = self._cells(field)
        return Columns((one,), (1,), torch.zeros_like(self.order[:1]), self.missing[..., field : field + 1])

    def log_probabilities(self, field: int) -> Tensor:
        """log P(x = k | present) for all values k of a column of codes or whole numbers, (*batch, levels)."""
        one = self._cells(field)
        levels = one.levels
        if levels is None or levels > MOST_LEVELS:
            raise InputError(
                f"column {field} has no list of probabilities: expected codes or whole numbers with at most "
                f"{MOST_LEVELS} values; use cdf and quantile"
            )
        batch = self.missing.shape[:-1]
        k = torch.arange(levels, dtype=self.missing.dtype, device=self.missing.device)
        grid = k.reshape(levels, *[1] * len(batch), 1)
        return one.log_prob(grid.expand(levels, *batch, 1))[..., 0].movedim(0, -1)

    def _cells(self, field: int) -> Cells:
        """The distribution of the present cells of one column."""
        place = int((self.order == field).nonzero())
        for part, size in zip(self.parts, self.sizes, strict=True):
            if place < size:
                return part.at(place)
            place -= size
        raise IndexError(field)

    def _split(self, values: Tensor) -> Iterator[tuple[Cells, Tensor]]:
        """The parts, each with its columns of values (*batch, D)."""
        return zip(self.parts, values.index_select(-1, self.order).split(self.sizes, -1), strict=True)

    def _gathered(self, values: Sequence[Tensor]) -> Tensor:
        """The values of the parts, in the order of the columns."""
        return torch.cat(tuple(values), -1).index_select(-1, self.order.argsort())


class ColumnsLikelihood(AbstractLikelihood):
    """p(row|z) for a table with a law for each column; `outputs` is the number of decoder outputs for a whole row.

    The decoder's output is (*batch, outputs), without an axis for the columns: laws take different numbers of outputs.
    """

    order: Tensor
    with_missing: Tensor

    def __init__(self, laws: Sequence[Law]) -> None:
        super().__init__()
        if not laws:
            raise InputError("a table without columns: expected a law for each column")
        groups: dict[object, list[int]] = {}
        for field, law in enumerate(laws):
            groups.setdefault(STACKS[type(law)].key(law), []).append(field)
        self.laws, self.shape = tuple(laws), (len(laws),)
        self.stacks = nn.ModuleList(STACKS[type(laws[at[0]])]([laws[field] for field in at]) for at in groups.values())
        self.sizes = tuple(len(at) for at in groups.values())
        self.widths = [sum(laws[field].outputs for field in at) for at in groups.values()]
        with_missing = [field for field, law in enumerate(laws) if law.missing]
        self.outputs = sum(self.widths) + len(with_missing)
        self.register_buffer("order", torch.tensor([field for at in groups.values() for field in at]), persistent=False)
        self.register_buffer("with_missing", torch.tensor(with_missing, dtype=torch.long), persistent=False)

    def forward(self, output: Tensor) -> Columns:
        """p(row|z) from the output of a decoder (*batch, outputs)."""
        *raw, missing = output.split([*self.widths, len(self.with_missing)], -1)
        logits = output.new_full((*output.shape[:-1], len(self.laws)), -torch.inf)
        logits = logits.index_copy(-1, self.with_missing, missing)
        parts = tuple(stack(each) for stack, each in zip(self.stacks, raw, strict=True))
        return Columns(parts, self.sizes, self.order, logits)
