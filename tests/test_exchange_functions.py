"""The functions of a model that files hold: each equals what jensen itself computes, and so do replaced operators."""

import numpy as np
import pytest
import torch
from scipy import special

import jensen
from jensen.cli import main
from jensen.diffusion import LinearLogSnr
from jensen.diffusion.bound import Strata, estimate_bound
from jensen.diffusion.denoiser import Denoiser, Preconditioned
from jensen.diffusion.model import DiffusionModel, Generation, Scoring
from jensen.diffusion.sampler import SeededNoise, trajectory
from jensen.diffusion.weighting import BoundObjective, UniformTimes
from jensen.exchange import decompositions
from jensen.exchange.functions import functions_of
from jensen.exchange.functions.diffusion import Term
from jensen.exchange.functions.steps import STEPS, SamplerStep
from jensen.latent.prior import PURPOSE
from jensen.nets import ResidualMLP
from jensen.randomness import Stream, derived_seed, normal_per_example
from jensen.recipe.diffusion.build import build_generation
from jensen.recipe.diffusion.samplers import SAMPLERS
from jensen.recipe.diffusion.settings import DiffusionSettings

WIDE = torch.cat([-torch.logspace(2.8, -30, 300), torch.zeros(1), torch.logspace(-30, 2.8, 300)]).double()


@pytest.mark.parametrize("name", ["log1p", "expm1", "softplus", "log_sigmoid"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_replaced_operator_is_that_of_torch_to_a_few_roundings(name, dtype):
    x = WIDE.to(dtype)
    x = x[x > -1] if name == "log1p" else x[x < 80] if name == "expm1" else x
    exact = {
        "log1p": torch.log1p,
        "expm1": torch.expm1,
        "softplus": lambda v: -torch.nn.functional.logsigmoid(-v),
        "log_sigmoid": torch.nn.functional.logsigmoid,
    }[name](x.double())
    found = getattr(decompositions, name)(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, rtol=8 * torch.finfo(dtype).eps, atol=1e-37)


def test_log_gamma_is_that_of_scipy():
    x = torch.logspace(-8, 9, 4001, dtype=torch.float64)
    exact = special.gammaln(x.numpy())
    # Near its roots 1 and 2 the error is absolute, of the rounding of its terms
    np.testing.assert_allclose(decompositions.lgamma(x).numpy(), exact, rtol=3e-15, atol=2e-14)


def test_erfcx_is_that_of_scipy():
    x = torch.cat([-torch.logspace(-8, 1, 200), torch.zeros(1), torch.logspace(-8, 30, 2001)]).double()
    np.testing.assert_allclose(decompositions.erfcx(x).numpy(), special.erfcx(x.numpy()), rtol=1e-12)


def test_nextafter_is_that_of_torch_bit_for_bit():
    powers = torch.tensor(2.0) ** torch.arange(-100, 100)
    x = torch.cat([torch.randn(2000) * 10.0 ** torch.randint(-20, 20, (2000,)), powers, -powers, torch.zeros(1)])
    for other in (torch.inf, -torch.inf):
        towards = torch.full_like(x, other)
        assert torch.equal(decompositions.nextafter(x, towards), x.nextafter(towards))
    assert torch.equal(decompositions.nextafter(x, x), x)


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted_is_that_of_torch(right):
    ordered = torch.randn(3, 9).sort(1).values
    values = torch.cat([torch.randn(3, 20), ordered], 1)
    found = decompositions.searchsorted(ordered, values, right=right)
    assert torch.equal(found, torch.searchsorted(ordered, values, right=right))


# ---------------------------------------------------------------------------------------------- diffusion


def small_model(generation: Generation | None = None, levels: int | None = None) -> DiffusionModel:
    """A class-conditional model of two numbers with random weights."""
    network = ResidualMLP((2,), 8, 1, 3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    denoiser = Denoiser(network, Preconditioned(1.0), 3)
    scoring = Scoring(12, levels=levels)
    return DiffusionModel((2,), denoiser, LinearLogSnr(), BoundObjective(UniformTimes()), scoring, generation).eval()


@pytest.mark.parametrize("guidance", [0.0, 1.5])
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "unipc"])
def test_steps_one_after_the_other_are_the_trajectory_of_the_sampler(name, guidance):
    settings = DiffusionSettings(sampler=name, sampling_steps=6, guidance=guidance)
    model = small_model(build_generation(settings, Scoring().variance))
    noise, labels = SeededNoise(3, range(5), (2,)), torch.tensor([0, 1, 2, 3, 0])
    grid, denoiser = model._sampling_grid(), model._sampling_denoiser()
    states = list(trajectory(model.generation.sampler, denoiser, grid, noise, labels=labels))
    step, x = SamplerStep(model.generation.sampler, denoiser), noise(0)
    past = torch.zeros_like(x), torch.tensor(-torch.inf).double()
    for place in range(len(grid) - 1, 0, -1):
        memory = past if step.remembers else ()
        x, x0 = step(x, grid[place], grid[place - 1], *memory, labels, *((noise(place),) * step.noisy))
        past = x0, grid[place]
        torch.testing.assert_close(x, states[len(grid) - place].x, rtol=1e-6, atol=1e-6)


def test_every_sampler_but_unipc_has_a_step():
    kinds = {build_generation(DiffusionSettings(sampler=name), Scoring().variance).sampler for name in SAMPLERS}
    assert {type(kind).__name__ for kind in kinds} - {kind.__name__ for kind in STEPS} == {"UniPC"}


@pytest.mark.parametrize("levels", [None, 256])
def test_the_terms_of_all_steps_are_the_bound(levels):
    model, x, labels = small_model(levels=levels), torch.rand(4, 2) * 2 - 1, torch.tensor([0, 1, 2, 3])
    bound = model.bound()
    exact = estimate_bound(bound, x, Strata.every_step(bound.steps), seed=5, labels=labels).elbo().value
    stream, term, total = derived_seed(5, Stream.EVALUATION), Term(model), torch.zeros(4).double()
    for t in range(1, bound.steps + 1):
        noise = normal_per_example(stream, range(4), (2,), 0, t - 1)
        nats, last = term(x, torch.full((4,), t), noise, labels)
        total -= nats
    torch.testing.assert_close(total - last, exact, rtol=1e-6, atol=1e-6)


def test_the_terms_of_a_latent_model_are_its_bound(tmp_path):
    words = "--vae.network mlp --vae.hidden 8 --vae.latent-dims 2 --prior.width 8 --prior.depth 1 --prior.chain-steps 6"
    more = "--prior.sampling-steps 3 --steps 4 --validation-examples 5"
    assert main(["train", "latent", *words.split(), *more.split(), "--out", str(tmp_path / "run")]) == 0
    run = jensen.load(tmp_path / "run")
    found = functions_of(run)
    assert [each.name for each in found.functions] == ["encoder", "decoder", "denoiser", "sampler_step", "bound"]
    x, bound = run.examples().x[:3], found.functions[-1]
    own = normal_per_example(derived_seed(0, Stream.EVALUATION), range(3), (1, 2))[:, 0]
    stream, total = derived_seed(derived_seed(0, PURPOSE, 0), Stream.EVALUATION), torch.zeros(3).double()
    labels = (torch.full((3,), 10),) * ("label" in [port.name for port in bound.inputs])
    for t in range(1, 7):
        noise = normal_per_example(stream, range(3), run.model.prior.model.shape, 0, t - 1)
        term, rest = bound(x, own, torch.full((3,), t), noise, *labels)
        total -= term
    exact = run.model.elbo(run.spec.preparation(x), draws=1).value
    torch.testing.assert_close(rest + total, run.spec.preparation.raw_nats(exact, x), rtol=1e-6, atol=1e-5)
