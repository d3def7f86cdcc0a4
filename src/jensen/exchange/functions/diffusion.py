"""The functions of a diffusion model: its denoiser, one step of its sampler, and the terms of its bound (5.11)."""

from typing import Any

import torch
from torch import Tensor, nn

from jensen.diffusion.model import DiffusionModel
from jensen.exchange.functions.data import Data
from jensen.exchange.functions.function import BATCH, Function, Functions, Port, normal
from jensen.exchange.functions.steps import STEPS, SamplerStep


class Denoise(nn.Module):
    """x_t, its log-SNR (batch), and labels with classes -> x̂ and epŝ."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.denoiser = model.denoiser

    def forward(self, x_t: Tensor, log_snr: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = self.denoiser(x_t, log_snr, label)
        return found.x0, found.eps


class Term(nn.Module):
    """x_0, t (batch), noise, and labels with classes -> the term of step t in (5.11), float64, and L_T."""

    def __init__(self, model: DiffusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x0: Tensor, t: Tensor, noise: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        bound = self.model.bound()
        term = bound.term(bound.predict(x0, t, noise, label), x0, t)
        return term.double(), bound.prior(x0).double()


class Bound(nn.Module):
    """Raw examples, t (batch), noise, and labels with classes -> the term of step t, and all that depends on no t."""

    def __init__(self, data: Data, model: DiffusionModel) -> None:
        super().__init__()
        self.data, self.term = data, Term(model)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        raw, x, others = self.data.split(inputs)
        term, prior = self.term(x, *others)
        return term, self.data.raw_nats(-prior, raw)


class Ports:
    """The inputs and outputs of a diffusion model of `name`, and values for their probes."""

    def __init__(self, model: DiffusionModel, name: str) -> None:
        self.model, self.name = model, name
        classes = model.classes
        meaning = f"label, 0 to {(classes or 1) - 1}; {classes} is no label"
        self.label = () if classes is None else (Port(name="label", dtype="int64", axes=(BATCH,), meaning=meaning),)
        steps = model.bound().steps
        self.t = Port(name="t", dtype="int64", axes=(BATCH,), meaning=f"step of the chain, 1 to {steps}")
        self.noise = self.of("noise", "standard normal numbers")

    def of(self, name: str, meaning: str) -> Port:
        """A port of the shape of x."""
        return Port(name=name, dtype="float32", axes=(BATCH, *self.model.shape), meaning=meaning)

    def level(self, name: str, meaning: str, *axes: str) -> Port:
        """A port of log-SNRs."""
        return Port(name=name, dtype="float64", axes=axes, meaning=meaning)

    def labels(self, count: int) -> tuple[Tensor, ...]:
        """Labels in turn, the last of which is no label."""
        return () if self.model.classes is None else (torch.arange(count) % (self.model.classes + 1),)

    def levels(self, count: int) -> Tensor:
        """Log-SNRs of the chain."""
        return self.model.bound().log_snr.detach()[1:][self.steps(count) - 1].double()

    def steps(self, count: int) -> Tensor:
        """Steps of the chain, with the first and the last."""
        return torch.linspace(1, self.model.bound().steps, count).round().long()


def diffusion_functions(data: Data, model: DiffusionModel) -> Functions:
    """`denoiser`, `sampler_step` and `bound` of a diffusion model."""
    ports = Ports(model, "x")
    steps, notes = sampler_functions(ports)
    term = Port(name="term", dtype="float64", axes=(BATCH,), meaning="the term of step t in nats of the raw data")
    rest = Port(name="rest", dtype="float64", axes=(BATCH,), meaning="all other terms, which depend on no t")

    def probe(count: int) -> tuple[Tensor, ...]:
        noise = normal((count, *model.shape))
        return *data.probe(count), ports.steps(count), noise, *ports.labels(count)

    bound = Function(
        "bound",
        f"A term of the bound (5.11): log p(x) >= E[rest - term(1) - ... - term({model.bound().steps})] over noise.",
        Bound(data, model),
        (*data.ports, ports.t, ports.noise, *ports.label),
        (term, rest),
        probe,
    )
    return Functions((*steps, bound), {"bound": chain_facts(model), "sampling": sampling_facts(model)}, notes)


def sampler_functions(ports: Ports) -> tuple[tuple[Function, ...], tuple[str, ...]]:
    """`denoiser` and `sampler_step`, and a note on a sampler whose step is no formula."""
    model, name, others = ports.model, ports.name, ports.label
    x_t = ports.of("x_t", f"{name} with noise, sqrt(alpha_bar) {name} + sqrt(1 - alpha_bar) noise")
    x0 = ports.of("x0", f"the expectation of {name} given x_t")
    level = ports.level("log_snr", "log(alpha_bar / (1 - alpha_bar)) of x_t", BATCH)

    def probe(count: int) -> tuple[Tensor, ...]:
        return normal((count, *model.shape)), ports.levels(count), *ports.labels(count)

    eps = ports.of("eps", "the expectation of the noise given x_t")
    inputs, meaning = (x_t, level, *others), "The expectations of the example and of its noise."
    denoiser = Function("denoiser", meaning, Denoise(model), inputs, (x0, eps), probe)
    sampler = model.generation.sampler
    if type(sampler) not in STEPS:
        name = type(sampler).__name__
        return (denoiser,), (f"sampler {name}: its step solves equations, so sampler_step is left out",)
    return (denoiser, _step(ports, x_t, x0)), ()


def _step(ports: Ports, x_t: Port, x0: Port) -> Function:
    model, shape = ports.model, ports.model.shape
    step = SamplerStep(model.generation.sampler, model._sampling_denoiser())
    here = ports.level("log_snr_t", "log-SNR of x_t")
    end = ports.level("log_snr_s", "log-SNR at the end of the step; infinity for the data")
    memory = (
        ports.of("previous_x0", "x0 of the step before; zeros before the first step"),
        ports.level("previous_log_snr", "log_snr_t of the step before; minus infinity before the first step"),
    )
    inputs = (x_t, here, end, *(memory if step.remembers else ()), *ports.label, *((ports.noise,) * step.noisy))
    x_s = ports.of("x_s", f"{ports.name} at log_snr_s")
    grid = model._sampling_grid()
    previous, t, s = (
        (grid[place].double() for place in (-1, -2, -3)) if len(grid) > 3 else (grid[-1] - 1, *grid[[-1, 1]])
    )

    def probe(count: int) -> tuple[Tensor, ...]:
        past = (0.1 * normal((count, *shape), 2), previous) if step.remembers else ()
        noise = (normal((count, *shape), 1),) if step.noisy else ()
        return normal((count, *shape)), t, s, *past, *ports.labels(count), *noise

    meaning = f"One step of the sampler {type(model.generation.sampler).__name__}, from log_snr_t to log_snr_s."
    return Function("sampler_step", meaning, step, inputs, (x_s, x0), probe)


def chain_facts(model: DiffusionModel) -> dict[str, Any]:
    """The steps of the bound, and the strata and probabilities from which `jensen score` draws steps 2 to T."""
    bound = model.bound()
    strata = model._strata(bound)
    return {
        "steps": bound.steps,
        "stratum": strata.stratum.tolist(),
        "probability": strata.probability.tolist(),
        "log_snr": bound.log_snr.detach()[1:].tolist(),
    }


def sampling_facts(model: DiffusionModel) -> dict[str, Any]:
    """The sampler, its guidance, and the log-SNRs at its points 1 to T; point 0 is the data."""
    made = model.generation
    grid = model._sampling_grid()[1:].tolist()
    return {"sampler": type(made.sampler).__name__, "guidance": made.guidance, "log_snr": grid}
