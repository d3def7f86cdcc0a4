"""Hierarchies p(z_1) p(z_2|z_1) ... p(z_G|z_<G) p(x|z) with top-down inference, as a VAE over the noise u.

    z_g = mu_g(z_<g) + sigma_g(z_<g) ⊙ u_g,      u ~ N(0, I)                                    (4.16)
    q(u|x) = Π_g N(u_g | m_g(u_<g, x), diag(s_g(u_<g, x)²))                                     (4.17)

The map from u to z is one-to-one, so p(x) = ∫ p(x|z) p(z) dz = ∫ p(x|z(u)) N(u | 0, I) du. The latent variable of the
VAE is u, its prior is N(0, I), and its decoder is the top-down network u -> p(x|z(u)). So everything that works on a
VAE works on a hierarchy. In terms of z the factors are N(z_g | mu_g + sigma_g m_g, diag(sigma_g s_g)²): q is relative
to p (the residual normal law of Vahdat & Kautz 2020), and KL_g = ½ Σ (m_g² + s_g² - 1 - log s_g²) (4.6).

Inference goes top-down (Sønderby et al. 2016; Kingma et al. 2016): m_g and s_g see the state of the top-down network,
and the features of x that a bottom-up network computes once.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.randomness import normal_per_example
from jensen.vae.missing import hidden
from jensen.vae.posterior import AbstractPosterior
from jensen.vae.prior import AbstractPrior, StandardNormal, refuse_labels
from jensen.vae.sequential import AbstractSequential, Choice, Draw, conditioned, joined

LOWER = 3  # purpose of the random numbers of the groups below the top


@runtime_checkable
class TopDown(Protocol):
    """The decoder of a hierarchy; `jensen.nets.ladder.AbstractTopDown` says what the methods do."""

    sizes: tuple[int, ...]
    residual: bool

    def start(self) -> Tensor: ...
    def shift_and_factor(self, group: int, state: Tensor) -> tuple[Tensor, Tensor]: ...
    def enter(self, group: int, state: Tensor, z: Tensor) -> Tensor: ...
    def output(self, state: Tensor) -> Tensor: ...


@runtime_checkable
class BottomUp(Protocol):
    """The encoder of a hierarchy; `jensen.nets.ladder.AbstractBottomUp` says what the methods do."""

    def proposal(self, group: int, state: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True, eq=False)
class TopDownPosterior(AbstractSequential):
    """q(u|x) (4.17) of a batch, given the features (batch, ...) of each group.

    `within` (batch, latent_dims) is the law of the noise of all factors, None for N(0, I); see `refined`.
    """

    decoder: TopDown
    encoder: BottomUp
    features: tuple[Tensor, ...]
    within: Gaussian | None = None

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.features[0]), sum(self.decoder.sizes)))

    def visit(self, choose: Choice, *, decoded: bool = False) -> Draw:
        state, groups, laws = self.decoder.start(), list[Tensor](), list[Gaussian]()
        for number, feature in enumerate(self.features):
            group = groups_of(self.decoder.sizes)[number]
            shift, factor = (part.to(feature.dtype) for part in self.decoder.shift_and_factor(number, state))
            laws.append(self._law(number, group, state, shift, factor))
            groups.append(choose(group, laws[-1]))
            if decoded or number + 1 < len(self.features):
                state = self.decoder.enter(number, state, torch.addcmul(shift, factor, groups[-1]))
        return joined(groups, laws, self.decoder.output(state) if decoded else None)

    def __getitem__(self, rows: slice) -> "TopDownPosterior":
        within = None if self.within is None else self.within[rows]
        return replace(self, features=tuple(feature[rows] for feature in self.features), within=within)

    def refined(self, within: Gaussian) -> "TopDownPosterior":
        return replace(self, within=within)

    def detach(self) -> "TopDownPosterior":
        within = None if self.within is None else self.within.detach()
        features = tuple(feature.detach() for feature in self.features)
        return TopDownPosterior(_frozen(self.decoder), _frozen(self.encoder), features, within)

    def _law(self, number: int, group: slice, state: Tensor, shift: Tensor, factor: Tensor) -> Gaussian:
        """The factor of u_g."""
        feature = self.features[number]
        mean, scale = (part.to(feature.dtype) for part in self.encoder.proposal(number, state, feature))
        if not self.decoder.residual:  # the proposal is about z = shift + factor u
            mean, scale = (mean - shift) / factor, scale / factor
        return conditioned(Gaussian(mean, scale), self.within, group)


class HierarchicalPosterior(AbstractPosterior):
    """q(u|x) (4.17) by a bottom-up `encoder` and the states of the top-down `decoder`, which the VAE owns.

    The encoder gets `fill` for missing and hidden values, NaN and inf in x.
    """

    amortised = True

    def __init__(self, encoder: nn.Module, decoder: nn.Module, fill: float = 0.0) -> None:
        super().__init__()
        top_down = cast(TopDown, decoder)
        self.encoder, self.fill, self._decoder = encoder, fill, (top_down,)  # a tuple, so that it is no submodule
        self.latent_dims = sum(top_down.sizes)

    def forward(self, x: Tensor, index: Tensor) -> TopDownPosterior:
        return self.initial(x)

    def initial(self, x: Tensor) -> TopDownPosterior:
        given = x.masked_fill(x.isnan() | hidden(x), self.fill)
        features = tuple(feature.to(x.dtype) for feature in self.encoder(given))
        return TopDownPosterior(self._decoder[0], cast(BottomUp, self.encoder), features)

    def top(self, x: Tensor) -> Gaussian:
        """q(u_1|x) of the top group, (batch, size): it depends on no other group."""
        q = self.initial(x)
        return replace(q, features=q.features[:1]).visit(lambda _, law: law.mean).law

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder,)


class GroupedPrior(AbstractPrior):
    """p(u) = top(u_1) N(u_2, .., u_G | 0, I), with a rate for each group; `sizes` are the sizes of the groups.

    The default `top` is N(0, I). Raises `InputError` for a top prior of another size, and for one that is not exact.
    """

    def __init__(self, sizes: Sequence[int], top: AbstractPrior | None = None) -> None:
        super().__init__(sum(sizes))
        self.sizes, self.top = tuple(sizes), StandardNormal(sizes[0]) if top is None else top
        if self.top.latent_dims != sizes[0] or not self.top.exact:
            raise InputError(
                f"a prior {type(self.top).__name__} of {self.top.latent_dims} dimensions for a top group of "
                f"{sizes[0]}: expected an exact prior of that size"
            )

    def log_prob(self, z: Tensor) -> Tensor:
        top, rest = z.split([self.sizes[0], self.latent_dims - self.sizes[0]], -1)
        return self.top.log_prob(top) + StandardNormal(rest.shape[-1]).log_prob(rest)

    def settled(self) -> "GroupedPrior":
        return GroupedPrior(self.sizes, self.top.settled())

    def rates(
        self,
        q: Gaussian,
        z: Tensor,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Mapping[str, Tensor]:
        """KL(q(u_g|u_<g, x) || p(u_g)) of each group, exact given the draws above it; `top` has its own rate."""
        refuse_labels(labels)
        return {f"rate_{number}": kl for number, kl in enumerate(self._rates(q, z), start=1)}

    def kl_by_part(self, q: Gaussian, z: Tensor) -> Tensor:
        """The rate of each group, (*draws, batch, groups)."""
        return torch.stack(torch.broadcast_tensors(*self._rates(q, z)), -1)

    @property
    def part_sizes(self) -> tuple[int, ...]:
        return self.sizes

    def _rates(self, q: Gaussian, z: Tensor) -> list[Tensor]:
        laws = [Gaussian(q.mean[..., group], q.scale[..., group]) for group in groups_of(self.sizes)]
        (top,) = self.top.rates(laws[0], z[..., : self.sizes[0]]).values()
        return [top, *(law.kl_to_standard() for law in laws[1:])]  # (4.6)

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Tensor | None = None) -> Tensor:
        refuse_labels(labels)
        top, rest = self.top.sample(n, seed=seed, first=first), self.latent_dims - self.sizes[0]
        lower = normal_per_example(seed, range(first, first + n), (rest,), LOWER)
        return torch.cat([top, lower.to(top)], -1)

    def diagnostics(self, z: Tensor) -> dict[str, float]:
        """The diagnostics of the top prior, and the active units of each group (Burda et al. 2016)."""
        active = (z.var(0, correction=0) > 0.01).split(self.sizes)
        own = {f"active units of group {number}": float(each.sum()) for number, each in enumerate(active, start=1)}
        return own | self.top.diagnostics(z[:, : self.sizes[0]])

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return self.top.networks


def groups_of(sizes: Sequence[int]) -> list[slice]:
    """The dimensions of each group."""
    return [slice(start, end) for start, end in pairwise(accumulate(sizes, initial=0))]


def _frozen(module: Any) -> Any:
    """The same module with the same weights, to which no gradients flow."""
    twin = copy.copy(module)
    twin._parameters = {name: None if p is None else p.detach() for name, p in module._parameters.items()}
    twin._modules = {name: None if child is None else _frozen(child) for name, child in module._modules.items()}
    return twin
