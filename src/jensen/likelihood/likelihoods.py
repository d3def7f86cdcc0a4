"""Likelihoods of x whose dimensions are alike: each dimension gets the same number of the decoder's outputs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from jensen.errors import InputError
from jensen.gaussian import Gaussian
from jensen.likelihood.distributions import (
    Bernoulli,
    Categorical,
    DiscretisedGaussian,
    DiscretisedLogistic,
    Observation,
)
from jensen.likelihood.scales import AbstractScale, FixedScale


class AbstractLikelihood(nn.Module, ABC):
    """Turns decoder output (*batch, outputs, *shape) into a distribution over x (*batch, *shape) (4.2)."""

    shape: tuple[int, ...]
    outputs: int  # decoder outputs per dimension of x

    @property
    def factorises(self) -> bool:
        """Whether the dimensions of x are independent given z."""
        return True

    @abstractmethod
    def forward(self, output: Tensor) -> Observation:
        """p(x|z), given the decoder's output for z."""

    def diagnostics(self, output: Tensor) -> dict[str, float]:
        """Numbers for the report by name, computed from the decoder's output for many z."""
        return {}


class _ScaledLikelihood(AbstractLikelihood):
    """Base of the likelihoods with a location and a scale; the decoder's first channel is the location."""

    def __init__(self, shape: Sequence[int], scale: AbstractScale) -> None:
        super().__init__()
        self.shape, self.scale, self.outputs = tuple(shape), scale, 1 + scale.outputs

    def _location_and_scale(self, output: Tensor) -> tuple[Tensor, Tensor]:
        location, *raw = output.unbind(-len(self.shape) - 1)
        return location, self.scale(raw[0] if raw else None)

    def diagnostics(self, output: Tensor) -> dict[str, float]:
        """The scale's mean and floor, and the share of scales within 1 % of the floor; nothing for a fixed scale."""
        if isinstance(self.scale, FixedScale):
            return {}
        scale, floor = self._location_and_scale(output)[1], self.scale.floor
        return {
            "decoder scale, mean": scale.mean().item(),
            "decoder scale, floor": floor,
            "share of scales at the floor": (scale < 1.01 * floor).float().mean().item(),
        }


class GaussianLikelihood(_ScaledLikelihood):
    """p(x|z) = N(x | mean(z), diag scale²) (4.2); the argument `scale` gives the standard deviation.

    The scale needs a floor, because constant pixels would drive the density to infinity. Derive the floor from the
    data's resolution: uniform noise in a bin of width w has standard deviation w / sqrt(12).
    """

    def forward(self, output: Tensor) -> Gaussian:
        return Gaussian(*self._location_and_scale(output), event_dims=len(self.shape))


class BernoulliLikelihood(AbstractLikelihood):
    """p(x|z) = prod_d Bernoulli(x_d | sigmoid(logit_d(z))), for binary data."""

    outputs = 1

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, output: Tensor) -> Bernoulli:
        return Bernoulli(output.squeeze(-len(self.shape) - 1), event_dims=len(self.shape))


class DiscretisedLikelihood(_ScaledLikelihood):
    """p(x|z) on L levels by `law`, a discretised Gaussian or logistic; bounds are on log-masses, in true bits/dim."""

    def __init__(
        self,
        shape: Sequence[int],
        scale: AbstractScale,
        levels: int,
        law: type[DiscretisedGaussian] | type[DiscretisedLogistic],
    ) -> None:
        super().__init__(shape, scale)
        if not 2 <= levels <= 2**16:
            raise InputError(
                f"discretised likelihood over {levels} levels: expected 2 to 65536; use a Gaussian likelihood"
            )
        self.levels, self.law = levels, law

    def forward(self, output: Tensor) -> DiscretisedGaussian | DiscretisedLogistic:
        return self.law(*self._location_and_scale(output), self.levels, event_dims=len(self.shape))


class CategoricalLikelihood(AbstractLikelihood):
    """A free probability for every level and dimension; the levels need no order."""

    def __init__(self, shape: Sequence[int], levels: int) -> None:
        super().__init__()
        if not 2 <= levels <= 256:
            raise InputError(f"categorical likelihood over {levels} levels: expected 2 to 256; use a discretised law")
        self.shape, self.outputs = tuple(shape), levels

    def forward(self, output: Tensor) -> Categorical:
        return Categorical(output, event_dims=len(self.shape))
