"""1. Probability: diagonal (1.7) and full (1.6) normal densities, sampling (1.8), and the linear Gaussian model (5.5).

The free functions compute elementwise. The classes define which dimensions form one event, and sum term by term: if
many examples or dimensions share a scale, its logarithm is computed once. All densities are in nats. Constructors check
shapes but not values, because reading values would make a GPU wait at every call.
`MultivariateGaussian.from_covariance` also checks values, because they come from a user.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.errors import InputError

LOG_SQRT_TWO_PI = 0.5 * math.log(2 * math.pi)


def normal_log_density(
    x: Float[Tensor, "*#shape"], mean: Float[Tensor, "*#shape"], scale: Float[Tensor, "*#shape"]
) -> Float[Tensor, "..."]:
    """log N(x | mean, scale²) (1.5), elementwise with broadcasting, in nats.

    >>> normal_log_density(torch.zeros(3), torch.zeros(3), torch.ones(1))
    tensor([-0.9189, -0.9189, -0.9189])
    """
    standardised = (x - mean) / scale
    return -0.5 * standardised.square() - (scale.log() + LOG_SQRT_TWO_PI)  # (1.5)


def normal_kl(
    mean: Float[Tensor, "*#shape"],
    scale: Float[Tensor, "*#shape"],
    other_mean: Float[Tensor, "*#shape"],
    other_scale: Float[Tensor, "*#shape"],
) -> Float[Tensor, "..."]:
    """KL(N(mean, scale²) || N(other_mean, other_scale²)), elementwise with broadcasting, in nats.

    The code standardises by the second distribution and uses (4.6). The result stays accurate when the two
    distributions are close.
    """
    return standard_normal_kl((mean - other_mean) / other_scale, scale / other_scale)


def standard_normal_kl(mean: Float[Tensor, "*#shape"], scale: Float[Tensor, "*#shape"]) -> Float[Tensor, "..."]:
    """KL(N(mean, scale²) || N(0, 1)) = ½ (mean² + scale² - 1 - log scale²) (4.6), elementwise, in nats.

    The arguments broadcast. The code uses d = scale - 1, for which scale² - 1 = d² + 2d. Near scale = 1 the subtraction
    is exact, and only d - log scale still cancels. So the error is of the order of d times the machine epsilon, not of
    the order of epsilon itself.

    >>> standard_normal_kl(torch.tensor(1.0), torch.tensor(1.0))
    tensor(0.5000)
    """
    return 0.5 * mean.square() + _scale_kl(scale)  # (4.6)


def _scale_kl(scale: Tensor) -> Tensor:
    excess = scale - 1
    return torch.addcmul(excess - scale.log(), excess, excess, value=0.5)  # (4.6) at mean = 0


def _sum_event(values: Tensor, event: torch.Size | Sequence[int]) -> Tensor:
    """The sum over the trailing event dimensions; a dimension to which `values` only broadcasts counts in full."""
    if not event:
        return values  # sum(dim=()) would sum everything
    batch = values.shape[: max(values.ndim - len(event), 0)]
    return values.expand(*batch, *event).sum(dim=tuple(range(-len(event), 0)))


@dataclass(frozen=True, eq=False)
class Gaussian:
    """N(x | mean, diag(scale²)) (1.7): independent normals.

    The last `event_dims` dimensions form one event. `mean` and `scale` (the standard deviation, > 0, not checked)
    broadcast against each other. Every method counts each dimension of the *broadcast* shape, so a scale of shape
    (batch, 1, 1, 1) works for images. Raises `InputError` if the shapes do not broadcast or have fewer than
    `event_dims` dimensions.

    >>> Gaussian(torch.zeros(5, 3, 8, 8), torch.ones(5, 1, 1, 1), event_dims=3).entropy() / (3 * 8 * 8)
    tensor([1.4189, 1.4189, 1.4189, 1.4189, 1.4189])
    """

    mean: Tensor
    scale: Tensor
    event_dims: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.event_dims <= max(self.mean.ndim, self.scale.ndim):
            raise InputError(
                f"Gaussian got event_dims = {self.event_dims} for a mean of shape {tuple(self.mean.shape)}: "
                "give an event_dims between 0 and the number of dimensions."
            )
        if self.mean.shape != self.scale.shape:
            _check_broadcast("Gaussian", "mean", self.mean.shape, "scale", self.scale.shape)

    @classmethod
    def standard(
        cls,
        shape: Sequence[int],
        event_dims: int = 1,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> "Gaussian":
        """N(0, I) (4.1) of the given shape; mean and scale are expanded single numbers, which take no memory.

        >>> Gaussian.standard((7, 2)).log_prob(torch.zeros(2)).shape
        torch.Size([7])
        """
        zero = torch.zeros((), dtype=dtype, device=device)
        return cls(zero.expand(torch.Size(shape)), (zero + 1).expand(torch.Size(shape)), event_dims)

    @property
    def shape(self) -> torch.Size:
        """The shape of one draw: batch dimensions, then event dimensions."""
        mean, scale = self.mean.shape, self.scale.shape
        return mean if mean == scale else _broadcast(mean, scale)

    @property
    def batch_shape(self) -> torch.Size:
        return self.shape[: len(self.shape) - self.event_dims]

    @property
    def event_shape(self) -> torch.Size:
        return self.shape[len(self.shape) - self.event_dims :]

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    def __getitem__(self, rows: slice) -> "Gaussian":
        """The distributions in these rows of the first batch dimension."""
        return Gaussian(self.mean[rows], self.scale.expand_as(self.mean)[rows], self.event_dims)

    def detach(self) -> "Gaussian":
        """The same distribution, without gradients to its parameters."""
        return Gaussian(self.mean.detach(), self.scale.detach(), self.event_dims)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x | mean, diag(scale²)) (1.7) in nats, of the batch shape; x broadcasts against (*batch, *event)."""
        standardised = (x - self.mean) / self.scale
        event = standardised.shape[standardised.ndim - self.event_dims :]
        squares, log_scale = _sum_event(standardised.square(), event), _sum_event(self.scale.log(), event)
        return -0.5 * squares - (log_scale + math.prod(event) * LOG_SQRT_TWO_PI)  # Σ of (1.5)

    def log_prob_by_dimension(self, x: Tensor) -> Tensor:
        """log N(x_d | mean_d, scale_d²) (1.5) in nats, elementwise; the sum over an event is `log_prob`."""
        return normal_log_density(x, self.mean, self.scale)

    def rsample(self, generator: torch.Generator | None = None, sample_shape: Sequence[int] = ()) -> Tensor:
        """mean + scale ⊙ eps, eps ~ N(0, I) (1.8), (4.7): differentiable, of shape (*sample_shape, *batch, *event).

        `generator` must be on the device of the mean; None means torch's global generator.
        """
        shape = (*sample_shape, *self.shape)
        return self.moved(torch.randn(shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device))

    def moved(self, eps: Tensor) -> Tensor:
        """mean + scale ⊙ eps (1.8), (4.7): a draw if eps ~ N(0, I); eps broadcasts against the mean."""
        return torch.addcmul(self.mean, self.scale, eps)

    def quantile(self, u: Tensor) -> Tensor:
        """mean + scale ⊙ Phi^{-1}(u), each dimension's inverse distribution function: a draw if u ~ U(0, 1)."""
        return self.mean + self.scale * torch.special.ndtri(u).to(self.mean.dtype)

    def entropy(self) -> Tensor:
        """Σ log scale + ½ D log(2 pi e) in nats, of the batch shape; D counts the dimensions of the broadcast event."""
        log_scale = _sum_event(self.scale.log(), self.event_shape)
        return (log_scale + math.prod(self.event_shape) * (0.5 + LOG_SQRT_TWO_PI)).expand(self.batch_shape)

    def kl(self, other: "Gaussian") -> Tensor:
        """KL(self || other) in nats, exact.

        The result has the batch shape; the two distributions broadcast. Raises `InputError` if the `event_dims` of the
        two distributions differ.
        """
        if self.event_dims != other.event_dims:
            raise InputError(
                f"Gaussian.kl got event_dims {self.event_dims} and {other.event_dims}: "
                "give both distributions the same event_dims."
            )
        shape = _broadcast(self.shape, other.shape)
        event = shape[len(shape) - self.event_dims :]
        squares = _sum_event(((self.mean - other.mean) / other.scale).square(), event)
        return 0.5 * squares + _sum_event(_scale_kl(self.scale / other.scale), event)  # Σ of `normal_kl`

    def kl_to_standard(self) -> Tensor:
        """KL(self || N(0, I)) = ½ Σ (mean² + scale² - 1 - log scale²) (4.6) in nats, of the batch shape."""
        event = self.event_shape
        return 0.5 * _sum_event(self.mean.square(), event) + _sum_event(_scale_kl(self.scale), event)  # (4.6)


@dataclass(frozen=True, eq=False)
class MultivariateGaussian:
    """N(x | mean, L L^T) (1.6), given by the Cholesky factor L, without an explicit inverse or determinant.

    `mean` is (..., d). `cholesky`, which is L, is (..., d, d) and lower triangular, with a positive diagonal. Values
    are not checked. The batch dimensions broadcast, so many means may share one factor. `from_covariance` starts from a
    covariance matrix. Raises `InputError` if the shapes do not fit.
    """

    mean: Tensor
    cholesky: Tensor

    def __post_init__(self) -> None:
        mean, cholesky = tuple(self.mean.shape), tuple(self.cholesky.shape)
        if not mean or cholesky[-2:] != (mean[-1], mean[-1]):
            raise InputError(
                f"MultivariateGaussian got a mean of shape {mean} and a matrix of shape {cholesky}: "
                "give a mean (..., d) and a matrix (..., d, d)."
            )
        _check_broadcast("MultivariateGaussian", "mean batch", mean[:-1], "matrix batch", cholesky[:-2])

    @classmethod
    def from_covariance(cls, mean: Tensor, covariance: Tensor) -> "MultivariateGaussian":
        """N(mean, covariance) for mean (..., d) and covariance (..., d, d), symmetric positive definite.

        Raises `InputError` if the covariance is not finite, not symmetric or not positive definite; the message says
        which.

        >>> MultivariateGaussian.from_covariance(torch.zeros(2), torch.tensor([[4.0, 2.0], [2.0, 2.0]])).cholesky
        tensor([[2., 0.],
                [1., 1.]])
        """
        cls(mean, covariance)  # the shapes
        if not bool(covariance.isfinite().all()):
            raise InputError("The covariance has entries that are not finite: give finite numbers.")
        values = covariance.detach()
        asymmetry = float((values - values.mT).abs().max())
        if asymmetry > 8 * torch.finfo(values.dtype).eps * float(values.abs().max()):
            raise InputError(
                f"The covariance is not symmetric, mirrored entries differ by up to {asymmetry:.3g}: "
                "give (C + C^T) / 2 if this is rounding error."
            )
        cholesky, failed_at = torch.linalg.cholesky_ex(covariance)
        if bool(failed_at.any()):
            raise InputError(
                f"The covariance is not positive definite, nor is the block of its first {int(failed_at.max())} rows "
                "and columns: drop linearly dependent dimensions or add a small multiple of the identity."
            )
        return cls(mean, cholesky)

    @property
    def shape(self) -> torch.Size:
        """The shape of one draw: batch dimensions, then d."""
        return _broadcast(self.mean.shape, self.cholesky.shape[:-1])

    @property
    def batch_shape(self) -> torch.Size:
        return self.shape[:-1]

    @property
    def covariance(self) -> Tensor:
        """Sigma = L L^T (1.8), (..., d, d)."""
        return self.cholesky @ self.cholesky.mT

    def detach(self) -> "MultivariateGaussian":
        """The same distribution, without gradients to its parameters."""
        return MultivariateGaussian(self.mean.detach(), self.cholesky.detach())

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x | mean, L L^T) (1.6) in nats, of the batch shape; x (..., d) broadcasts against the batch."""
        squares = _solve_factor(self.cholesky, x - self.mean).square().sum(-1)
        return -0.5 * squares - (self._half_log_determinant() + self.mean.shape[-1] * LOG_SQRT_TWO_PI)  # (1.6)

    def rsample(self, generator: torch.Generator | None = None, sample_shape: Sequence[int] = ()) -> Tensor:
        """mean + L z, z ~ N(0, I) (1.8): differentiable, of shape (*sample_shape, *batch, d).

        `generator` must be on the device of the mean; None means torch's global generator.
        """
        shape = (*sample_shape, *self.shape)
        z = torch.randn(shape, generator=generator, dtype=self.mean.dtype, device=self.mean.device)
        rows = _as_rows(z, self.cholesky) @ self.cholesky.mT
        return self.mean + _from_rows(rows, z.shape)  # (1.8)

    def entropy(self) -> Tensor:
        """½ log det(2 pi e Sigma) = Σ log L_ii + ½ d log(2 pi e) in nats, of the batch shape."""
        entropy = self._half_log_determinant() + self.mean.shape[-1] * (0.5 + LOG_SQRT_TWO_PI)
        return entropy.expand(self.batch_shape)

    def kl(self, other: "MultivariateGaussian") -> Tensor:
        """KL(self || other) in nats, exact.

        The result has the batch shape; batch dimensions broadcast. The KL is Σ_i KL(N(m_i, M_ii²) || N(0, 1)) + ½
        Σ_{i>j} M_ij², where m and M are the mean and the factor after standardising by `other`.
        """
        mean = _solve_factor(other.cholesky, self.mean - other.mean)
        factor = torch.linalg.solve_triangular(other.cholesky, self.cholesky, upper=False)
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        return standard_normal_kl(mean, diagonal).sum(-1) + 0.5 * factor.tril(-1).square().sum((-2, -1))

    def marginal(self, indices: Sequence[int]) -> "MultivariateGaussian":
        """The distribution of x[indices] (1.3), in the given order; `InputError` for repeated or wrong indices."""
        chosen, rest = self._split(indices)
        return MultivariateGaussian(
            self.mean[..., chosen], self._reordered_factor(chosen + rest)[..., : len(chosen), : len(chosen)]
        )

    def condition(self, indices: Sequence[int], values: Tensor) -> "MultivariateGaussian":
        """The distribution of the other coordinates, in their order, given x[indices] = values (1.2).

        `values` (..., len(indices)) may have batch dimensions; all results share one factor. Let b be the known
        coordinates and a the other coordinates. With b in front, the factor of the joint distribution is [[L_bb, 0],
        [L_ab, L_aa]]. So the conditional mean is mean_a + L_ab L_bb^{-1} (values - mean_b) and the conditional factor
        is L_aa. No matrices are subtracted, so the result stays positive definite. Raises `InputError` for repeated or
        wrong indices, and if the last dimension of `values` is not len(indices).
        """
        known, rest = self._split(indices)
        if values.ndim == 0 or values.shape[-1] != len(known):
            raise InputError(
                f"condition got {len(known)} indices and values of shape {tuple(values.shape)}: "
                "give values (..., number of indices)."
            )
        factor, k = self._reordered_factor(known + rest), len(known)
        standardised = _solve_factor(factor[..., :k, :k], values - self.mean[..., known])
        across = factor[..., k:, :k]
        shift = _from_rows(_as_rows(standardised, across) @ across.mT, (*standardised.shape[:-1], len(rest)))
        return MultivariateGaussian(self.mean[..., rest] + shift, factor[..., k:, k:])

    def _half_log_determinant(self) -> Tensor:
        return self.cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def _split(self, indices: Sequence[int]) -> tuple[list[int], list[int]]:
        dimensions = self.mean.shape[-1]
        chosen = [int(index) for index in indices]
        if len(set(chosen)) != len(chosen) or not all(0 <= index < dimensions for index in chosen):
            raise InputError(
                f"Got the coordinates {chosen} of {dimensions} dimensions: "
                f"give different integers from 0 to {dimensions - 1}."
            )
        return chosen, [index for index in range(dimensions) if index not in set(chosen)]

    def _reordered_factor(self, order: list[int]) -> Tensor:
        """The factor of the reordered coordinates, without squaring: L[order] = R^T Q^T gives Sigma_order = R^T R."""
        upper = torch.linalg.qr(self.cholesky[..., order, :].mT).R
        # QR leaves the signs of R's rows open; a Cholesky factor has a positive diagonal
        signs = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(upper.dtype)
        return (signs.unsqueeze(-1) * upper).mT


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The linear Gaussian model (5.5): x ~ N(mu, Sigma), y = A x + e, e ~ N(b, Gamma) independent of x.

    `prior` is N(mu, Sigma), `matrix` is A (m, d), and `noise` is N(b, Gamma). The mean of the prior may have batch
    dimensions; matrices may not. Raises `InputError` if the shapes do not fit.

    >>> two = MultivariateGaussian(torch.zeros(1), torch.eye(1))
    >>> LinearGaussian(two, torch.ones(1, 1), two).posterior(torch.tensor([3.0])).mean
    tensor([1.5000])
    """

    prior: MultivariateGaussian
    matrix: Tensor
    noise: MultivariateGaussian

    def __post_init__(self) -> None:
        expected = (self.noise.mean.shape[-1], self.prior.mean.shape[-1])
        if tuple(self.matrix.shape) != expected or self.prior.cholesky.ndim != 2 or self.noise.cholesky.ndim != 2:
            raise InputError(
                f"LinearGaussian got a matrix of shape {tuple(self.matrix.shape)}: give a matrix {expected} (noise "
                "dimensions, prior dimensions) and covariances without batch dimensions."
            )

    def joint(self) -> MultivariateGaussian:
        """The distribution (5.5) of (x, y), x first, with mean (mu, A mu + b) and factor [[L, 0], [A L, L_Gamma]]."""
        mu, L = self.prior.mean, self.prior.cholesky
        mean_y = mu @ self.matrix.mT + self.noise.mean
        top = torch.nn.functional.pad(L, (0, self.matrix.shape[0]))
        bottom = torch.cat([self.matrix @ L, self.noise.cholesky], dim=-1)
        return MultivariateGaussian(
            torch.cat([mu.expand(*mean_y.shape[:-1], -1), mean_y], dim=-1), torch.cat([top, bottom], dim=-2)
        )

    def marginal(self) -> MultivariateGaussian:
        """The distribution of y: N(A mu + b, Gamma + A Sigma A^T) (5.5)."""
        return self.joint().marginal(self._indices_of_y())

    def posterior(self, y: Tensor) -> MultivariateGaussian:
        """The exact distribution (5.5) of x given y (..., m); all examples of a batch of y share one factor."""
        return self.joint().condition(self._indices_of_y(), y)

    def _indices_of_y(self) -> range:
        outputs, inputs = self.matrix.shape
        return range(inputs, inputs + outputs)


def _broadcast(*shapes: torch.Size | Sequence[int]) -> torch.Size:
    """The result of torch.broadcast_shapes, which is slower and imports hundreds of modules at its first call.

    Raises ValueError for shapes that do not fit. Python's own loop keeps a length symbolic where a program is exported.
    """
    found: list[int] = []
    for lengths in zip_longest(*map(reversed, shapes), fillvalue=1):
        longer = [length for length in lengths if length != 1]
        if any(length != longer[0] for length in longer):
            raise ValueError(f"shapes {shapes}")
        found.insert(0, longer[0] if longer else 1)
    return torch.Size(found)


def _check_broadcast(
    owner: str, name: str, shape: torch.Size | Sequence[int], other_name: str, other: torch.Size | Sequence[int]
) -> None:
    try:
        _broadcast(shape, other)
    except ValueError:
        raise InputError(
            f"{owner} got a {name} of shape {tuple(shape)} and a {other_name} of shape {tuple(other)}: "
            "give shapes that broadcast against each other."
        ) from None


def _as_rows(vectors: Tensor, matrices: Tensor) -> Tensor:
    """Vectors (*sample, *batch, d) as rows (*batch, samples, d), so that a product needs no copies of its matrix."""
    shape = _broadcast(vectors.shape[:-1], matrices.shape[:-2])
    sample, batch = shape[: len(shape) - matrices.ndim + 2], shape[len(shape) - matrices.ndim + 2 :]
    rows = vectors.expand(*shape, vectors.shape[-1]).reshape(math.prod(sample), *batch, vectors.shape[-1])
    return rows.movedim(0, -2)


def _from_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    return rows.movedim(-2, 0).reshape(*shape)


def _solve_factor(cholesky: Tensor, vectors: Tensor) -> Tensor:
    """L^{-1} v for vectors (..., d) by triangular solves; the batch dimensions broadcast."""
    batch = _broadcast(vectors.shape[:-1], cholesky.shape[:-2])
    rows = torch.linalg.solve_triangular(cholesky.mT, _as_rows(vectors, cholesky), upper=True, left=False)
    return _from_rows(rows, (*batch, vectors.shape[-1]))
