"""Posteriors of several groups of latent variables, of which each depends on the groups before it.

q(z|x) = Π_g N(z_g | m_g(z_<g, x), diag(s_g(z_<g, x)²)) has correlations and any shape, but each factor is a normal. So
z_g = m_g + s_g ⊙ eps_g (4.7) group by group, and log q(z|x) is the sum of the factors' log-densities at z.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from jensen.gaussian import Gaussian

Choice = Callable[[slice, Gaussian], Tensor]
"""Chooses z_g (*draws, batch, size), given the dimensions of group g and its law given the groups before it."""


@dataclass(frozen=True, eq=False)
class Draw:
    """z (*draws, batch, latent_dims), and `law`, the factors of q at z: a normal for each group given those before it.

    log q(z|x) is `law.log_prob(z)`. `output` is the output of the decoder for z, if it was computed on the way.
    """

    z: Tensor
    law: Gaussian
    output: Tensor | None = None


class AbstractSequential(ABC):
    """q(z|x) over z (batch, latent_dims) for a batch of examples, as a product of factors."""

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """(batch, latent_dims)."""

    @abstractmethod
    def visit(self, choose: Choice, *, decoded: bool = False) -> Draw:
        """The z that `choose` gives group by group; with `decoded`, also the output of the decoder if q computes it."""

    @abstractmethod
    def __getitem__(self, rows: slice) -> Self:
        """q of the examples in these rows."""

    @abstractmethod
    def detach(self) -> Self:
        """The same density, without gradients to its parameters."""

    @abstractmethod
    def refined(self, within: Gaussian) -> Self:
        """q with N(mean_g, scale_g²), `within` (batch, latent_dims), in place of the noise eps_g ~ N(0, I)."""

    def draw(self, eps: Tensor) -> Draw:
        """z = m_g + s_g ⊙ eps_g group by group (4.7), for eps (*draws, batch, latent_dims)."""
        return self.visit(lambda group, law: law.moved(eps[..., group]), decoded=True)

    def moved(self, eps: Tensor) -> Tensor:
        """The z of `draw`."""
        return self.draw(eps).z

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z|x) in nats, (*draws, batch)."""
        return self.visit(lambda group, _: z[..., group]).law.log_prob(z)

    @property
    def mean(self) -> Tensor:
        """The z whose groups are the means m_g given the groups before them, (batch, latent_dims)."""
        return self._centre.z

    @property
    def scale(self) -> Tensor:
        """The scales s_g at `mean`, (batch, latent_dims)."""
        return self._centre.law.scale

    @cached_property
    def _centre(self) -> Draw:
        return self.visit(lambda _, law: law.mean)


Posterior = Gaussian | AbstractSequential
"""q(z|x) of a batch: a single normal law, or a product of factors."""


def conditioned(law: Gaussian, within: Gaussian | None, group: slice) -> Gaussian:
    """The factor N(m, s²) of a group after `AbstractSequential.refined`: N(m + s mean, (s scale)²)."""
    if within is None:
        return law
    mean, scale = within.mean[:, group], within.scale[:, group]
    return Gaussian(law.mean + law.scale * mean, law.scale * scale)


def drawn(q: Posterior, eps: Tensor) -> Draw:
    """z ~ q (4.7) by standard normal eps (*draws, batch, latent_dims)."""
    return Draw(q.moved(eps), q) if isinstance(q, Gaussian) else q.draw(eps)


def joined(groups: list[Tensor], laws: list[Gaussian], output: Tensor | None = None) -> Draw:
    """The draw of all groups, each (*draws, batch, size) or without draws."""
    lead = torch.broadcast_shapes(*(z.shape[:-1] for z in groups))

    def whole(parts: list[Tensor]) -> Tensor:
        return torch.cat([part.expand(*lead, part.shape[-1]) for part in parts], -1)

    sizes = [z.shape[-1] for z in groups]
    scales = [law.scale.expand(*law.scale.shape[:-1], size) for law, size in zip(laws, sizes, strict=True)]
    return Draw(whole(groups), Gaussian(whole([law.mean for law in laws]), whole(scales)), output)
