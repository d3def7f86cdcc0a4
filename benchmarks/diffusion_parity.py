"""jensen against diffusers, in one process: the same noise and the same fake network, number by number.

    pip install "jensen[benchmarks]" && python benchmarks/diffusion_parity.py

The first table must agree to 1e-5, or the exit status is 1: there the conventions coincide, once diffusers' tables are
computed by its own formulas in float64. The second has what differs, as the error of either side against the truth.
docs/diffusion.md says why, and who is right.
"""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import diffusers
import torch
from torch import Tensor, nn

from jensen.diffusion import (
    DDIM,
    AbstractSampler,
    Ancestral,
    BetaVariance,
    Cosine,
    Denoiser,
    DPMSolver2M,
    Epsilon,
    Heun,
    LearnedVariance,
    LinearBeta,
    PosteriorVariance,
    UniformRoot,
    UniformTime,
    UniPC,
    alpha_bar,
    trajectory,
)
from jensen.diffusion.process import beta
from jensen.diffusion.schedule import noise_scale, signal_scale

AGREE = 1e-5
CHAIN = UniformTime()(LinearBeta(), 1000)  # log snr at points 0..1000; diffusers' timestep t is point t + 1
LINEAR: dict[str, Any] = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
TRAILING = {**LINEAR, "timestep_spacing": "trailing"}
VARIANCES = {"fixed_large": BetaVariance(), "fixed_small": PosteriorVariance(), "learned_range": LearnedVariance()}
SHAPE = (8, 3, 4, 4)
POINT = 0.5

Step = Callable[..., Tensor]  # (scheduler, output, timestep, x, position) -> the next x

# ---------------------------------------------------------------------------------------------- the same on both sides


def scales(noise_level: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar) from what the network is told, -log_snr / 8."""
    log_snr = (-8 * noise_level.double()).to(x.dtype).reshape(-1, 1, 1, 1)
    return signal_scale(log_snr), noise_scale(log_snr)


class FakeNetwork(nn.Module):
    """A smooth function of x_t and the noise level, such that x̂ = sqrt(alpha_bar) x_t - 0.1 s tanh(3 x_t)."""

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None) -> Tensor:
        a, s = scales(noise_level, x)
        return s * x + 0.1 * a * torch.tanh(3 * x)


class FakeNetworkWithVariance(FakeNetwork):
    """The same with a second half of channels, between -1 and 1."""

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None) -> Tensor:
        return torch.cat([super().forward(x, noise_level, labels), torch.sin(x)], 1)


class PointNetwork(nn.Module):
    """The exact network for data that are POINT everywhere: along its flow, a POINT + s eps, it answers one eps."""

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None) -> Tensor:
        a, s = scales(noise_level, x)
        return (x - a * POINT) / s


def noise(position: int) -> Tensor:
    """What both sides draw for the step that starts at this point of the grid; 0 is x_T."""
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(position), dtype=torch.float64)


def ours(sampler: AbstractSampler, grid: Tensor, network: nn.Module | None = None) -> list[Tensor]:
    """Every x that jensen visits."""
    return [state.x for state in trajectory(sampler, Denoiser(network or FakeNetwork(), Epsilon()), grid, noise)]


def theirs(scheduler: Any, steps: int, step: Step, network: nn.Module | None = None) -> list[Tensor]:
    """Every x that diffusers visits: one per denoiser call; where x is x_t / sqrt(alpha_bar), from that of x_T."""
    scheduler.set_timesteps(steps)
    scaled = scheduler.init_noise_sigma != 1
    states = [noise(0) * (torch.sqrt(1 + scheduler.sigmas[0].double() ** 2) if scaled else 1)]
    for i, timestep in enumerate(scheduler.timesteps):
        level = -CHAIN[round(float(timestep)) + 1].expand(1) / 8
        output = (network or FakeNetwork())(scheduler.scale_model_input(states[-1], timestep), level, None)
        states.append(step(scheduler, output, timestep, states[-1], steps - i))
    return states


def plain(scheduler: Any, output: Tensor, timestep: Tensor, x: Tensor, position: int) -> Tensor:
    return scheduler.step(output, timestep, x).prev_sample


def with_noise(scheduler: Any, output: Tensor, timestep: Tensor, x: Tensor, position: int) -> Tensor:
    return scheduler.step(output, timestep, x, variance_noise=noise(position)).prev_sample


def ddim(eta: float) -> Step:
    def step(scheduler: Any, output: Tensor, timestep: Tensor, x: Tensor, position: int) -> Tensor:
        return scheduler.step(output, timestep, x, eta=eta, variance_noise=noise(position)).prev_sample

    return step


def as_it_is(scheduler: Any) -> Any:
    return scheduler


def precise(scheduler: Any) -> Any:
    """The same scheduler, its linear table by its own formulas in float64 instead of float32."""
    config = scheduler.config
    betas = torch.linspace(config.beta_start, config.beta_end, config.num_train_timesteps, dtype=torch.float64)
    scheduler.betas, scheduler.alphas = betas, 1 - betas
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    return scheduler


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    """The largest difference anywhere along two trajectories of numbers of order one."""
    return max(float((x.double() - y.double()).abs().max()) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------------------------------- what must agree


def tables() -> Iterator[tuple[str, float]]:
    peer = diffusers.DDPMScheduler(**LINEAR)
    yield "betas, linear", distance([beta(CHAIN[:-1], CHAIN[1:])], [peer.betas])
    yield "alpha-bars, linear", distance([alpha_bar(CHAIN[1:])], [peer.alphas_cumprod])
    peer = diffusers.DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    yield "alpha-bars, cosine", distance([alpha_bar(UniformTime()(Cosine(), 1000)[1:])], [peer.alphas_cumprod])
    grid = UniformTime()(Cosine(floor=1e-12), 1000)
    yield "betas, cosine, floor 1e-12, but the last", distance([beta(grid[:-1], grid[1:])[:-1]], [peer.betas[:-1]])


def one_ddpm_step(kind: str, t: int, tables: Callable[[Any], Any]) -> tuple[Tensor, Tensor]:
    """x_{t-1} from the same x_t and noise by jensen and by diffusers."""
    network = FakeNetworkWithVariance() if kind == "learned_range" else FakeNetwork()
    peer = tables(diffusers.DDPMScheduler(**LINEAR, variance_type=kind, clip_sample=False))
    output = network(noise(0), -CHAIN[t + 1 : t + 2] / 8, None)
    expected = peer.step(output, t, noise(0), generator=torch.Generator().manual_seed(1)).prev_sample
    sampler = Ancestral(VARIANCES.get(kind, BetaVariance()))
    return ours(sampler, CHAIN[t : t + 2], network)[-1], expected


def ddpm_steps() -> Iterator[tuple[str, float]]:
    for kind in VARIANCES:
        found, expected = zip(*(one_ddpm_step(kind, t, precise) for t in (999, 500, 1, 0)), strict=True)
        yield f"one DDPM step, {kind}, t = 999, 500, 1, 0", distance(list(found), list(expected))


def trajectories() -> Iterator[tuple[str, float]]:
    for steps in (10, 50, 100):
        grid = UniformTime()(LinearBeta(), steps)
        for eta in (0.0, 1.0):
            peer = precise(diffusers.DDIMScheduler(**TRAILING, clip_sample=False))
            yield f"DDIM, eta {eta:g}, {steps} steps", distance(ours(DDIM(eta), grid), theirs(peer, steps, ddim(eta)))
            kind = "sde-dpmsolver++" if eta else "dpmsolver++"
            peer = precise(diffusers.DPMSolverMultistepScheduler(**TRAILING, algorithm_type=kind, solver_order=2))
            found = distance(ours(DPMSolver2M(eta), grid), theirs(peer, steps, with_noise))
            yield f"DPM-Solver++ 2M{', SDE' if eta else ''}, {steps} steps", found
        peer = precise(diffusers.UniPCMultistepScheduler(**TRAILING, solver_order=2))
        yield f"UniPC, order 2, {steps} steps", distance(ours(UniPC(), grid), theirs(peer, steps, plain))
    peer = precise(diffusers.HeunDiscreteScheduler(**TRAILING))
    end = theirs(peer, 50, plain)[-1]
    yield (
        "Heun, 50 steps, the end, from the same x_T",
        distance(ours(Heun(), UniformTime()(LinearBeta(), 50))[-1:], [end]),
    )
    peer = precise(diffusers.DDIMScheduler(**LINEAR, clip_sample=False))
    states = theirs(peer, 50, ddim(0.0))
    leading = torch.cat([CHAIN[:1], CHAIN[peer.timesteps.flip(0) + 1]])
    yield "DDIM, 50 steps, on the grid of `leading`", distance(ours(DDIM(), leading), states)


# ---------------------------------------------------------------------------------------------- what differs

Difference = tuple[str, float, float]  # what, and the errors of jensen and of diffusers


def of_precision() -> Iterator[Difference]:
    for t in (500, 1):
        (found, exact), (_, single) = (one_ddpm_step("fixed_large", t, table) for table in (precise, as_it_is))
        yield f"one DDPM step, t = {t}, tables as they come", distance([found], [exact]), distance([single], [exact])
    found, exact = one_ddpm_step("fixed_large", 500, precise)
    logarithm = one_ddpm_step("fixed_large_log", 500, precise)[1]
    yield "one DDPM step, `fixed_large_log`", distance([found], [exact]), distance([logarithm], [exact])


def of_spacing() -> Iterator[Difference]:
    network = PointNetwork()
    for steps in (50, 30, 7):
        grid = UniformTime()(LinearBeta(), steps)
        peer = precise(diffusers.DDIMScheduler(**TRAILING, clip_sample=False))
        states = theirs(peer, steps, ddim(0.0), network)
        eps = network(noise(0), -CHAIN[-1:] / 8, None)
        visited = torch.cat([CHAIN[:1], CHAIN[peer.timesteps.flip(0) + 1]]).flip(0)
        mine = [signal_scale(level) * POINT + noise_scale(level) * eps for level in grid.flip(0)]
        yours = [signal_scale(level) * POINT + noise_scale(level) * eps for level in visited]
        error = distance(ours(DDIM(), grid, network), mine)
        yield f"DDIM, {steps} steps, one point, trailing", error, distance(states, yours)
    for steps in (50, 10):
        peer = diffusers.DDIMScheduler(**LINEAR)
        peer.set_timesteps(steps)
        left = signal_scale(UniformTime()(LinearBeta(), steps)[-1]), signal_scale(CHAIN[peer.timesteps[0] + 1])
        yield f"{steps} steps, default spacing, signal in x_T", float(left[0]), float(left[1])


def of_noise_levels() -> Iterator[Difference]:
    sigma = torch.exp(-0.5 * CHAIN[-1])
    yield "Heun, relative error of the scale of x_T", 0.0, float(1 - sigma / torch.sqrt(1 + sigma**2))
    peer = precise(diffusers.DPMSolverMultistepScheduler(**LINEAR, use_karras_sigmas=True))
    peer.set_timesteps(20)
    levels, told = -2 * peer.sigmas[:-1].double().log(), CHAIN[peer.timesteps + 1]
    mine = distance([UniformRoot()(LinearBeta(), 20).flip(0)[:-1]], [levels])
    yield "EDM's grid, 20 steps, log-SNR the network is told", mine, distance([told], [levels])

    def end(steps: int) -> tuple[Tensor, Tensor]:
        table = diffusers.DDPMScheduler(num_train_timesteps=steps, beta_schedule="squaredcos_cap_v2").alphas_cumprod
        return UniformTime()(Cosine(), steps)[-1], torch.logit(table[-1].double())

    change = [float((few - many).abs()) for few, many in zip(end(50), end(1000), strict=True)]
    yield "cosine, log-SNR of x_T, T = 50 against 1000", change[0], change[1]


def main() -> int:
    print(f"jensen and diffusers {diffusers.__version__}, torch {torch.__version__}\n")
    print(f"{'conventions coincide':50} {'difference':>12}")
    failed = 0
    for part in (tables, ddpm_steps, trajectories):
        for name, value in part():
            agree = value <= AGREE
            failed += not agree
            print(f"{name:50} {value:12.1e}{'' if agree else '  MORE THAN 1e-5'}")
    print(f"\n{'conventions differ, or precision: error of':50} {'jensen':>12} {'diffusers':>12}")
    for differences in (of_precision, of_spacing, of_noise_levels):
        for name, mine, yours in differences():
            print(f"{name:50} {mine:12.1e} {yours:12.1e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
