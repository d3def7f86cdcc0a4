"""A linear Gaussian hierarchy as a VAE: likelihood and the factors of the posterior are formulas."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jensen.gaussian import MultivariateGaussian
from jensen.likelihood import FixedScale, GaussianLikelihood
from jensen.nets.ladder import AbstractBottomUp, AbstractTopDown
from jensen.vae import VAE, AbstractVAEObjective, GroupedPrior, HierarchicalPosterior


@dataclass(frozen=True)
class LinearHierarchy:
    """z_g = A_g z_<g + a_g + s_g u_g, x = B z + b + sigma e, with u, e ~ N(0, I); everything in float64."""

    sizes: tuple[int, ...]
    matrices: tuple[Tensor, ...]  # A_g (size, sizes of the groups above)
    offsets: tuple[Tensor, ...]  # a_g (size)
    scales: tuple[Tensor, ...]  # s_g (size)
    loading: Tensor  # B (D, sum of sizes)
    offset: Tensor  # b (D)
    sigma: float

    @property
    def joint(self) -> MultivariateGaussian:
        """The law of (z, x), by z = L u + m, whose rows are built group by group."""
        total = sum(self.sizes)
        factor, mean = torch.zeros(0, total).double(), torch.zeros(0).double()
        for matrix, offset, scale in zip(self.matrices, self.offsets, self.scales, strict=True):
            own = torch.zeros(len(scale), total).double()
            own[:, len(mean) : len(mean) + len(scale)] = scale.diag()
            factor, mean = torch.cat([factor, matrix @ factor + own]), torch.cat([mean, matrix @ mean + offset])
        dims = len(self.offset)
        top = torch.cat([factor, torch.zeros(total, dims).double()], 1)
        bottom = torch.cat([self.loading @ factor, self.sigma * torch.eye(dims).double()], 1)
        return MultivariateGaussian(torch.cat([mean, self.loading @ mean + self.offset]), torch.cat([top, bottom]))

    @property
    def _dims_of_x(self) -> list[int]:
        return list(range(sum(self.sizes), sum(self.sizes) + len(self.offset)))

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x), exact."""
        return self.joint.marginal(self._dims_of_x).log_prob(x)

    def posterior(self, x: Tensor) -> MultivariateGaussian:
        """p(z|x), exact."""
        return self.joint.condition(self._dims_of_x, x)

    def draw(self, count: int) -> Tensor:
        return self.joint.marginal(self._dims_of_x).rsample(torch.Generator().manual_seed(0), (count,))

    def factor(self, group: int, above: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean (rows, size) and standard deviations of p(z_g | z_<g, x), for rows of z_<g and x."""
        start = sum(self.sizes[:group])
        known = [*range(start), *self._dims_of_x]
        law = self.joint.marginal([*known, *range(start, start + self.sizes[group])])
        law = law.condition(range(len(known)), torch.cat([above, x], 1))
        return law.mean, law.covariance.diagonal(dim1=-2, dim2=-1).sqrt()


def random_hierarchy(sizes: tuple[int, ...] = (1, 1, 1), dims: int = 5, sigma: float = 0.6) -> LinearHierarchy:
    source = torch.Generator().manual_seed(2)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=source)

    above = [sum(sizes[:group]) for group in range(len(sizes))]
    first = [torch.zeros(sizes[0], 0).double()]
    return LinearHierarchy(
        sizes,
        (*first, *(normal(size, a) for size, a in zip(sizes[1:], above[1:], strict=True))),
        (torch.zeros(sizes[0]).double(), *(normal(size) for size in sizes[1:])),
        (torch.ones(sizes[0]).double(), *(0.3 + normal(size).abs() for size in sizes[1:])),
        normal(dims, sum(sizes)),
        normal(dims),
        sigma,
    )


class LinearTopDown(AbstractTopDown):
    """The state is all z so far."""

    residual = False

    def __init__(self, of: LinearHierarchy) -> None:
        super().__init__()
        self.sizes, self.of = of.sizes, of
        self.last = nn.Linear(*of.loading.T.shape).double()
        with torch.no_grad():
            self.last.weight.copy_(of.loading)
            self.last.bias.copy_(of.offset)
        self.shifts = nn.ParameterList(nn.Parameter(offset.clone()) for offset in of.offsets[1:])

    def start(self) -> Tensor:
        return self.last.weight.new_zeros(0)

    def shift_and_factor(self, group: int, state: Tensor) -> tuple[Tensor, Tensor]:
        if not group:
            return self.of.offsets[0], self.of.scales[0]
        return state @ self.of.matrices[group].T + self.shifts[group - 1], self.of.scales[group]

    def enter(self, group: int, state: Tensor, z: Tensor) -> Tensor:
        return torch.cat([state.expand(*z.shape[:-1], state.shape[-1]), z], -1)

    def output(self, state: Tensor) -> Tensor:
        return self.last(state).reshape(-1, 1, len(self.of.offset))

    @property
    def last_layer(self) -> nn.Module:
        return self.last


class LinearBottomUp(AbstractBottomUp):
    """The exact factors of the posterior, moved by `error` in their means."""

    def __init__(self, of: LinearHierarchy, error: float = 0.0) -> None:
        super().__init__()
        self.error = nn.Parameter(torch.full((), error, dtype=torch.float64))
        dims, self.slopes, self.offsets, self.scales = len(of.offset), [], [], []
        for group in range(len(of.sizes)):
            inputs = sum(of.sizes[:group]) + dims
            points = torch.cat([torch.zeros(1, inputs), torch.eye(inputs)]).double()
            mean, scale = of.factor(group, points[:, :-dims], points[:, -dims:])
            self.slopes.append((mean[1:] - mean[0]).T)
            self.offsets.append(mean[0])
            self.scales.append(scale)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return (x,) * len(self.slopes)

    def proposal(self, group: int, state: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
        slope = self.slopes[group]
        mean = state @ slope[:, : state.shape[-1]].T + feature @ slope[:, state.shape[-1] :].T
        return mean + self.offsets[group] + self.error, self.scales[group]


def as_vae(of: LinearHierarchy, error: float = 0.0, objective: AbstractVAEObjective | None = None) -> VAE:
    """The VAE over u that is `of`; its q is the posterior if the groups have size 1 and there is no error."""
    decoder = LinearTopDown(of)
    posterior = HierarchicalPosterior(LinearBottomUp(of, error), decoder)
    likelihood = GaussianLikelihood((len(of.offset),), FixedScale(of.sigma)).double()
    return VAE(posterior, decoder, likelihood, objective, prior=GroupedPrior(of.sizes))
