"""Columns of real numbers: point masses at atoms, and a mixture of normal laws (4.13)."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from jensen.gaussian import LOG_SQRT_TWO_PI
from jensen.likelihood.components import Components, Normal
from jensen.likelihood.laws import Real
from jensen.likelihood.stack import Cells, Stack, pick, ragged

NORMAL = Normal()


@dataclass(frozen=True, eq=False)
class RealCells(Cells):
    """P(x = a_i) = p_i for the atoms a_i; elsewhere the density (1 - Σ_i p_i) Σ_c w_c N(x | m_c, s_c²) (4.13).

    `atoms` (fields, A) are in ascending order, with infinity where a field has fewer. `log_shares` (*batch, fields,
    1 + A) are log(1 - Σ_i p_i) and log p_i; None if no field has atoms.
    """

    components: Components
    atoms: Tensor
    log_shares: Tensor | None

    @property
    def levels(self) -> int | None:
        return None

    @property
    def mean(self) -> Tensor:
        if self.log_shares is None:
            return self.components.mean
        shares = self.log_shares.exp()
        finite = torch.where(self.atoms.isinf(), 0, self.atoms)
        return shares[..., 0] * self.components.mean + (shares[..., 1:] * finite).sum(-1)

    def log_prob(self, x: Tensor) -> Tensor:
        t = self.components.standardised(x)
        density = self.components.log_weights - 0.5 * t.square() - self.components.scales.log() - LOG_SQRT_TWO_PI
        density = density.logsumexp(-1)
        if self.log_shares is None:
            return density
        equal = x.unsqueeze(-1) == self.atoms
        # zero times minus infinity, where a field has fewer atoms, would be NaN
        mass = torch.where(equal, self.log_shares[..., 1:], 0).sum(-1)
        return torch.where(equal.any(-1), mass, self.log_shares[..., 0] + density)

    def cdf(self, x: Tensor) -> Tensor:
        below = self.components.cdf(x, NORMAL)
        if self.log_shares is None:
            return below
        shares = self.log_shares.double().exp()
        return shares[..., 0] * below + (shares[..., 1:] * (self.atoms <= x.unsqueeze(-1))).sum(-1)

    def quantile(self, u: Tensor) -> Tensor:
        if self.log_shares is None:
            return self.components.quantile(u, NORMAL)
        u = u.double()
        shares = self.log_shares.double().exp()
        # P(x < a_i) and P(x <= a_i): u between the two is the atom.
        dense = torch.stack([self.components.cdf(atom, NORMAL) for atom in self.atoms.unbind(-1)], -1)
        upto = shares[..., 1:].cumsum(-1)
        reached = shares[..., :1] * dense + upto
        start = reached - shares[..., 1:]
        is_atom = (start < u.unsqueeze(-1)) & (u.unsqueeze(-1) <= reached) & (shares[..., 1:] > 0)
        passed = (shares[..., 1:] * (reached < u.unsqueeze(-1))).sum(-1)
        rest = (u - passed) / shares[..., 0].clamp(min=1e-300)
        atom = torch.where(is_atom, self.atoms.double(), 0).sum(-1)
        return torch.where(is_atom.any(-1), atom, self.components.quantile(rest, NORMAL))

    def at(self, field: int) -> "RealCells":
        shares = None if self.log_shares is None else self.log_shares[..., field : field + 1, :]
        return RealCells(self.components.at(field), self.atoms[field : field + 1], shares)


class RealStack(Stack):
    """Columns of real numbers with the same number of components, all with atoms or all without."""

    atoms: Tensor
    floor: Tensor
    index: Tensor
    padding: Tensor

    def __init__(self, laws: Sequence[Real]) -> None:
        super().__init__()
        self.components, self.fields = laws[0].components, len(laws)
        counts = [len(law.atoms) for law in laws]
        self.logits = sum(counts)
        index, padding = ragged(counts)
        atoms = torch.tensor([atom for law in laws for atom in law.atoms] or [math.inf])
        self.register_buffer("index", index, persistent=False)
        self.register_buffer("padding", padding, persistent=False)
        self.register_buffer("atoms", atoms[index].masked_fill(padding, math.inf), persistent=False)
        self.register_buffer("floor", torch.tensor([law.floor for law in laws]), persistent=False)

    @staticmethod
    def key(law: Real) -> Hashable:
        return Real, law.components, len(law.atoms).bit_length()

    def forward(self, raw: Tensor) -> RealCells:
        logits, dense = raw.split([self.logits, 3 * self.components * self.fields], -1)
        components = Components.of(dense.unflatten(-1, (self.fields, 3, self.components)), self.floor)
        if not self.logits:
            return RealCells(components, self.atoms, None)
        atoms = pick(logits, self.index).masked_fill(self.padding, -torch.inf)
        density = atoms.new_zeros(*atoms.shape[:-1], 1)
        return RealCells(components, self.atoms, torch.cat([density, atoms], -1).log_softmax(-1))
