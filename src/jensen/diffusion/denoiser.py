"""5. The denoiser turns the output of a network into x̂ and an estimate of eps, for every parameterisation.

The output is F = network(input, noise_level, labels), of the shape of x_t, or with twice the channels of x_t.
noise_level (batch) is -log_snr / 8 = ¼ log sigma², which is within ±3 for every usual schedule. A parameterisation is
the meaning of F. All parameterisations are linear in x_t and F, with a = sqrt(alpha_bar), s = sqrt(1 - alpha_bar), w² =
s² + sigma_data² a² (for other skips of `Preconditioned` see there):

| parameterisation | x̂                                          | epŝ                             |
|------------------|---------------------------------------------|---------------------------------|
| `Epsilon`        | (x_t - s F) / a                             | F                               |
| `Clean`          | F                                           | (x_t - a F) / s                 |
| `Velocity`       | a x_t - s F                                 | s x_t + a F                     |
| `Preconditioned` | (sigma_data² a x_t + s w sigma_data F) / w² | (s x_t - a w sigma_data F) / w² |

`Velocity` and `Preconditioned` never divide by a number near 0; with sigma_data = 1 they differ only in the sign of F.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from jensen.diffusion.process import per_example
from jensen.diffusion.schedule import alpha_bar, noise_scale, one_minus_alpha_bar, signal_scale
from jensen.errors import InputError

# ---------------------------------------------------------------------------------------------- predictions


@dataclass(frozen=True, eq=False)
class Denoised:
    """The expectations of x_0 and eps given x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps.

    The two expectations, x0 and eps, also satisfy this equation. `log_snr` has the shape () or (batch); x_t, x0 and eps
    have the shape (batch, *shape). `variance_mix` (batch, *shape) is the v of a network that also learns the reverse
    variance (Nichol & Dhariwal 2021, equation 15), else None. At alpha_bar = 0, x_0 does not follow from eps and is set
    to 0 instead of nan. At alpha_bar = 1, eps does not follow from x_0 and is set to 0.
    """

    x_t: Tensor
    log_snr: Tensor
    x0: Tensor
    eps: Tensor
    variance_mix: Tensor | None = None

    @classmethod
    def from_eps(cls, x_t: Tensor, log_snr: Tensor, eps: Tensor) -> "Denoised":
        """x_0 = (x_t - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar) (5.14)."""
        remainder = x_t - per_example(noise_scale(log_snr), x_t) * eps
        return cls(x_t, log_snr, remainder / _divisor(signal_scale(log_snr), x_t), eps)

    @classmethod
    def from_x0(cls, x_t: Tensor, log_snr: Tensor, x0: Tensor) -> "Denoised":
        """eps = (x_t - sqrt(alpha_bar) x_0) / sqrt(1 - alpha_bar), from (5.6)."""
        remainder = x_t - per_example(signal_scale(log_snr), x_t) * x0
        return cls(x_t, log_snr, x0, remainder / _divisor(noise_scale(log_snr), x_t))

    @classmethod
    def from_v(cls, x_t: Tensor, log_snr: Tensor, v: Tensor) -> "Denoised":
        """The rotation x_0 = a x_t - s v, eps = s x_t + a v, without a division (Salimans & Ho 2022, appendix D)."""
        a, s = per_example(signal_scale(log_snr), x_t), per_example(noise_scale(log_snr), x_t)
        return cls(x_t, log_snr, a * x_t - s * v, s * x_t + a * v)

    @property
    def v(self) -> Tensor:
        """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0."""
        a, s = per_example(signal_scale(self.log_snr), self.x_t), per_example(noise_scale(self.log_snr), self.x_t)
        return a * self.eps - s * self.x0

    @property
    def score(self) -> Tensor:
        """grad log q(x_t) = -eps / sqrt(1 - alpha_bar) (Vincent 2011), exact for eps = E[eps | x_t]."""
        return -self.eps / _divisor(noise_scale(self.log_snr), self.x_t)


def _divisor(scale: Tensor, x: Tensor) -> Tensor:
    """A scale to divide by: 0 becomes the smallest positive number, so that 0 / 0 = 0."""
    return per_example(scale.clamp(min=torch.finfo(x.dtype).tiny), x)


# ---------------------------------------------------------------------------------------------- parameterisations


class AbstractParameterisation(ABC):
    """The input of the network, and the meaning of its output."""

    def network_input(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        """The input of the network for x_t, by default x_t itself."""
        return x_t

    @abstractmethod
    def predict(self, x_t: Tensor, log_snr: Tensor, output: Tensor) -> Denoised:
        """x̂ and epŝ from the network's output F."""


@dataclass(frozen=True)
class Epsilon(AbstractParameterisation):
    """F = eps, the choice of DDPM (5.15). Near alpha_bar = 0, x̂ is rounding error over sqrt(alpha_bar)."""

    def predict(self, x_t: Tensor, log_snr: Tensor, output: Tensor) -> Denoised:
        return Denoised.from_eps(x_t, log_snr, output)


@dataclass(frozen=True)
class Clean(AbstractParameterisation):
    """F = x_0. Near alpha_bar = 1, epŝ is rounding error over sqrt(1 - alpha_bar)."""

    def predict(self, x_t: Tensor, log_snr: Tensor, output: Tensor) -> Denoised:
        return Denoised.from_x0(x_t, log_snr, output)


@dataclass(frozen=True)
class Velocity(AbstractParameterisation):
    """F = v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 (Salimans & Ho 2022): accurate at both ends."""

    def predict(self, x_t: Tensor, log_snr: Tensor, output: Tensor) -> Denoised:
        return Denoised.from_v(x_t, log_snr, output)


@dataclass(frozen=True)
class Preconditioned(AbstractParameterisation):
    """The preconditioning of Karras et al. 2022, table 1, with a second scale `skip`.

    In their symbols, x is x_t / sqrt(alpha_bar), and sigma² is 1 / snr. The denoiser is D(x; sigma) = c_skip x + c_out
    F(c_in x), where F is the network, c_skip = skip² / (sigma² + skip²) and c_in = 1 / sqrt(sigma² + sigma_data²). The
    target of F has unit variance: c_out² = (1 - c_skip)² sigma_data² + c_skip² sigma². `sigma_data` is the standard
    deviation of one dimension of the data. With `skip` None or equal to sigma_data, this is EDM. With a smaller skip,
    the network predicts the data above the noise level sigma = skip, and the noise below. The data are easier to
    predict where a layer of the network has fewer channels than a patch has values (Li & He 2025). The code multiplies
    the fractions out, so that sigma = 0 and sigma = ∞ need no special case.
    """

    sigma_data: float = 0.5
    skip: float | None = None

    def network_input(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        """c_in x, x_t divided by its standard deviation: unit variance at every noise level."""
        variance = one_minus_alpha_bar(log_snr) + self.sigma_data**2 * alpha_bar(log_snr)
        return x_t / per_example(variance.sqrt(), x_t)

    def predict(self, x_t: Tensor, log_snr: Tensor, output: Tensor) -> Denoised:
        skip = self.sigma_data if self.skip is None else self.skip
        a, s = signal_scale(log_snr), noise_scale(log_snr)
        v = one_minus_alpha_bar(log_snr) + skip**2 * alpha_bar(log_snr)
        deviation = (self.sigma_data**2 * one_minus_alpha_bar(log_snr) + skip**4 * alpha_bar(log_snr)).sqrt() / v
        x0 = per_example(skip**2 * a / v, x_t) * x_t + per_example(s * deviation, x_t) * output
        eps = per_example(s / v, x_t) * x_t - per_example(a * deviation, x_t) * output
        return Denoised(x_t, log_snr, x0, eps)


@dataclass(frozen=True)
class Clipped(AbstractParameterisation):
    """Another parameterisation whose x̂ is clipped to ±`limit`; epŝ follows from the clipped x̂.

    Clipping helps where a network for eps is inaccurate, near alpha_bar = 0. Source: Ho et al. 2020, their program.
    """

    inner: AbstractParameterisation
    limit: float = 1.0

    def network_input(self, x_t: Tensor, log_snr: Tensor) -> Tensor:
        return self.inner.network_input(x_t, log_snr)

    def predict(self, x_t: Tensor, log_snr: Tensor, output: Tensor) -> Denoised:
        free = self.inner.predict(x_t, log_snr, output)
        clipped = Denoised.from_x0(x_t, log_snr, free.x0.clamp(-self.limit, self.limit))
        return replace(clipped, eps=torch.where(clipped.x0 == free.x0, free.eps, clipped.eps))


# ---------------------------------------------------------------------------------------------- denoisers


class AbstractDenoiser(nn.Module, ABC):
    """The map from x_t and its noise level to `Denoised`. `classes` is the number of labels; None without labels."""

    classes: int | None = None

    @abstractmethod
    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        """x̂ and epŝ for x_t (batch, *shape), log_snr () or (batch), labels (batch); no labels: unconditional."""


class Denoiser(AbstractDenoiser):
    """A network with the parameterisation of its output.

    `network(input, noise_level, labels)` gets the noise levels -log_snr / 8, (batch), and labels. Labels are None
    without `classes`, else integers 0..classes, where the label `classes` means no label. A network with twice the
    output channels also learns the reverse variance. The second half of its output, mapped from [-1, 1] to [0, 1], is
    the `variance_mix` of the prediction. With augmentation, the network in training also gets the `augmentation`
    (batch, numbers) of each example. Without it, the prediction is for unchanged examples. Raises `InputError` for
    labels without classes, and for another output shape.
    """

    def __init__(
        self, network: nn.Module, parameterisation: AbstractParameterisation, classes: int | None = None
    ) -> None:
        super().__init__()
        self.network, self.parameterisation, self.classes = network, parameterisation, classes

    def forward(
        self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None, augmentation: Tensor | None = None
    ) -> Denoised:
        if self.classes is None and labels is not None:
            raise InputError("got labels, but the denoiser was made without classes; leave the labels out")
        if self.classes is not None and labels is None:
            labels = torch.full((x_t.shape[0],), self.classes, device=x_t.device)
        noise_level = (-log_snr / 8).to(x_t).expand(x_t.shape[0])
        told = () if augmentation is None else (augmentation,)  # so that a network without augmentation has 3 inputs
        output = self.network(self.parameterisation.network_input(x_t, log_snr), noise_level, labels, *told)
        output = output.to(x_t.dtype)
        if output.shape == x_t.shape:
            return self.parameterisation.predict(x_t, log_snr, output)
        if output.shape != (x_t.shape[0], 2 * x_t.shape[1], *x_t.shape[2:]):
            raise InputError(
                f"network answered the shape {tuple(output.shape)} to {tuple(x_t.shape)}: "
                "expected the same, or twice the channels for a learned variance; change the network"
            )
        mean_output, mix = output.chunk(2, dim=1)
        return replace(self.parameterisation.predict(x_t, log_snr, mean_output), variance_mix=(mix + 1) / 2)


class Told(AbstractDenoiser):
    """A denoiser whose network gets the augmentation (batch, numbers) of the examples; only training uses it."""

    def __init__(self, denoiser: AbstractDenoiser, augmentation: Tensor) -> None:
        super().__init__()
        self.denoiser, self.augmentation, self.classes = denoiser, augmentation, denoiser.classes

    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        return self.denoiser(x_t, log_snr, labels, self.augmentation)


class Guided(AbstractDenoiser):
    """Classifier-free guidance: (1 + scale) D(label) - scale D(no label), where D is the denoiser's prediction.

    Scale 0 gives the denoiser itself. A prediction takes one network call with twice the batch. Raises `InputError` for
    a denoiser without classes, for a scale that is not finite, and for missing labels. Source: Ho & Salimans 2022,
    equation 6.
    """

    def __init__(self, denoiser: AbstractDenoiser, scale: float) -> None:
        super().__init__()
        if denoiser.classes is None:
            raise InputError(f"guidance scale {scale}: the model has no labels to guide by; leave the scale out")
        self.denoiser, self.scale, self.classes = denoiser, _finite(scale), denoiser.classes
        self.nothing = denoiser.classes  # the label that means no label

    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        if labels is None:
            raise InputError(f"guidance scale {self.scale} without labels: give each sample a label, or leave it out")
        if self.scale == 0:
            return self.denoiser(x_t, log_snr, labels)
        nothing = torch.full_like(labels, self.nothing)
        both = torch.cat([labels, nothing])
        levels = log_snr.repeat(2) if log_snr.ndim else log_snr
        prediction = self.denoiser(torch.cat([x_t, x_t]), levels, both)
        strong, weak = (
            Denoised(x_t, log_snr, x0, eps)
            for x0, eps in zip(prediction.x0.chunk(2), prediction.eps.chunk(2), strict=True)
        )
        mix = prediction.variance_mix
        return _extrapolated(strong, weak, self.scale, None if mix is None else mix[: x_t.shape[0]])


class AutoGuided(AbstractDenoiser):
    """Autoguidance: (1 + scale) times the prediction minus scale times the prediction of a worse denoiser.

    Autoguidance reduces errors that both denoisers make and that are larger in the worse denoiser. Autoguidance keeps
    the diversity of the samples and needs no labels. Both denoisers are trained on the same data. A prediction takes
    two network calls. Raises `InputError` for a scale that is not finite, and for denoisers with different classes.
    Source: Karras et al. 2024, "Guiding a diffusion model with a bad version of itself", where w is 1 + scale.
    """

    def __init__(self, denoiser: AbstractDenoiser, weak: AbstractDenoiser, scale: float) -> None:
        super().__init__()
        if denoiser.classes != weak.classes:
            raise InputError(
                f"a guide with {weak.classes or 'no'} labels for a model with {denoiser.classes or 'none'}: give a "
                "guide that was trained on the same data"
            )
        self.denoiser, self.weak, self.scale, self.classes = denoiser, weak, _finite(scale), denoiser.classes

    def forward(self, x_t: Tensor, log_snr: Tensor, labels: Tensor | None = None) -> Denoised:
        strong = self.denoiser(x_t, log_snr, labels)
        return _extrapolated(strong, self.weak(x_t, log_snr, labels), self.scale, strong.variance_mix)


def _extrapolated(strong: Denoised, weak: Denoised, scale: float, variance_mix: Tensor | None) -> Denoised:
    """The strong prediction plus `scale` times (strong prediction minus weak prediction)."""
    x0, eps = torch.lerp(weak.x0, strong.x0, 1 + scale), torch.lerp(weak.eps, strong.eps, 1 + scale)
    return Denoised(strong.x_t, strong.log_snr, x0, eps, variance_mix)


def _finite(scale: float) -> float:
    if not abs(scale) < float("inf"):
        raise InputError(f"guidance scale {scale}: expected a finite number, usually from 0 to 10")
    return scale
