"""Memory that runs out: the batch in parts, for real on a CPU; activations computed again give the same gradient."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from jensen.errors import InputError, out_of_memory
from jensen.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder, Levels, PatchTransformer, ResidualMLP, UNet
from jensen.randomness import Noise, generator
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.gradient import drop_gradients, gradient
from jensen.training.loop import Batches
from jensen.training.memory import in_fitting_parts, piecewise, recompute_activations
from jensen.training.precision import Precision
from jensen.training.state import TrainingState

# ---------------------------------------------------------------------------------------------- out of memory

LIMITED = """
import json, os, resource, sys, warnings
from pathlib import Path
import torch, torch.utils.tensorboard, accelerate, PIL.Image
from jensen.cli.main import main
from jensen.training import fit

torch.set_num_threads(1)
watch, more = fit._Watch, int(sys.argv[1]) << 20

def limited(*arguments):
    "From here on the process may have so many MiB more."
    if more:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more, resource.RLIM_INFINITY))
    return watch(*arguments)

fit._Watch = limited
sys.exit(main(sys.argv[2:]))
"""


def _train(out: Path, mebibytes: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Two steps on 8,192 examples at once, in a process that may have so many MiB (0: all) more than at the start."""
    words = ["train", "vae", "--steps", "2", "--hidden", "1024", "--batch-size", "8192", "--out", str(out), *more]
    command = [sys.executable, "-c", LIMITED, str(mebibytes), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def _lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_where_memory_runs_out_the_micro_batch_is_halved_and_the_rest_is_the_same(tmp_path: Path) -> None:
    told = _train(tmp_path / "limited", 120)
    assert told.returncode == 0, told.stderr
    lines = [line for line in _lines(tmp_path / "limited") if "micro_batch_size" in line]
    assert lines[0]["step"] == 1
    for line in lines:
        assert line["micro_batch_size"] in (4096, 2048, 1024, 512, 256)
        said = (
            f"step {line['step']}: memory ran out; batches of 8192 go through the network {line['micro_batch_size']} "
        )
        assert said in told.stderr
    state = json.loads((tmp_path / "limited" / "checkpoints" / "step-00000002" / "state.json").read_text())
    assert state["micro_batch_size"] == lines[-1]["micro_batch_size"]
    recipe = json.loads((tmp_path / "limited" / "recipe.json").read_text())
    assert recipe["training"]["batch_size"] == 8192
    assert recipe["training"]["micro_batch_size"] is None
    free = _train(tmp_path / "free", 0, "--micro-batch-size", str(lines[0]["micro_batch_size"]))
    assert free.returncode == 0, free.stderr
    runs = [tmp_path / name for name in ("limited", "free")]
    losses = [[line["loss"] for line in _lines(run) if "loss" in line] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # where memory is short, matrices are multiplied otherwise
    moments = [load_file(run / "checkpoints" / "step-00000002" / "optimiser.safetensors") for run in runs]
    for name in (name for name in moments[0] if name.endswith("exp_avg")):
        largest = float(moments[1][name].abs().max())
        torch.testing.assert_close(moments[0][name], moments[1][name], rtol=1e-3, atol=1e-3 * largest)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.parametrize(
    ("mebibytes", "more", "said"),
    [(2, (), "not enough memory"), (120, ("--free-bits", "0.1"), "free_bits is about the mean of a whole batch")],
)
def test_what_cannot_go_through_in_parts_is_said_in_a_line(
    tmp_path: Path, mebibytes: int, more: tuple[str, ...], said: str
) -> None:
    told = _train(tmp_path / "run", mebibytes, *more)
    assert told.returncode == 2
    assert said in told.stderr.splitlines()[-1]
    assert "Traceback" not in told.stderr


def _needing(rows: int, parameter: nn.Parameter, error: Exception, seen: list[int | None]) -> Callable[..., str]:
    """Runs out of memory, half-way through the gradient, with more than so many rows of 100."""

    def compute(at_once: int | None) -> str:
        seen.append(at_once)
        assert parameter.grad is None
        parameter.grad = torch.ones(2)
        if (at_once or 100) > rows:
            raise error
        return "done"

    return compute


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        MemoryError(),
        RuntimeError("could not create a primitive"),  # of oneDNN, for a convolution
    ],
    ids=["cuda", "cpu", "python", "onednn"],
)
def test_the_size_is_halved_until_it_fits_and_no_gradient_is_left_over(error: Exception) -> None:
    parameter, seen = nn.Parameter(torch.zeros(2)), list[int | None]()
    forget = partial(drop_gradients, [parameter])
    assert in_fitting_parts(_needing(13, parameter, error, seen), forget, 100, None) == (
        "done",
        13,
    )
    assert seen == [None, 50, 25, 13]
    parameter.grad = None
    assert in_fitting_parts(_needing(13, parameter, error, seen), forget, 100, 13) == (
        "done",
        13,
    )
    parameter.grad = None
    with pytest.raises(InputError, match=r"single example; set training\.activation_checkpointing"):
        in_fitting_parts(_needing(0, parameter, error, seen), forget, 100, None)


@pytest.mark.parametrize(
    "recipe", [VAERecipe(model=VAESettings(hidden=(16,))), DiffusionRecipe(model=DiffusionSettings(widths=(8,)))]
)
def test_a_step_begun_again_is_the_same_bit_for_bit(recipe: VAERecipe | DiffusionRecipe) -> None:
    """The failed attempts used no noise up and left no gradient; they fail after a part of the batch."""
    dataset = load_dataset(recipe)
    model = build_model(recipe, dataset.spec)
    batch = Batches(dataset.train, dataset.spec.preparation, 24, seed=1)(0)
    noise, calls = Noise(generator(4), slice(0, 24), 24), list[int]()

    class Short(Precision):
        def backward(self, loss: Tensor) -> None:
            calls.append(1)
            loss.backward()
            if len(calls) in (1, 3):  # of the whole batch, and the second half
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    found = []
    for precision, at_once in ((Short(), None), (Precision(), 6)):
        compute = partial(gradient, model, batch, 3, noise, precision)
        loss, size = in_fitting_parts(compute, model.zero_grad, 24, at_once)
        assert size == 6
        found.append([loss.value, *(p.grad for p in model.parameters() if p.grad is not None)])
        model.zero_grad()
    assert len(found[0]) == len(found[1]) > 2
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("most", [1, 3, 8])
def test_what_does_not_fit_is_computed_in_pieces(most: int) -> None:
    asked = list[int]()

    def double(rows: Tensor) -> Tensor:
        asked.append(len(rows))
        if len(rows) > most:
            raise MemoryError
        return 2 * rows

    assert piecewise(double, torch.arange(3, 10)).tolist() == [6, 8, 10, 12, 14, 16, 18]
    assert sum(size for size in asked if size <= most) == 7
    with pytest.raises(InputError, match="single example"):
        piecewise(lambda rows: double(rows[:1].expand(9)), torch.arange(2))


def test_other_errors_pass() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    with pytest.raises(RuntimeError, match="must match"):
        in_fitting_parts(
            _needing(1, parameter, RuntimeError("sizes must match"), []),
            partial(drop_gradients, [parameter]),
            100,
            None,
        )
    assert not out_of_memory(ValueError("out of memory"))


def test_free_bits_refuse_a_part_of_a_batch() -> None:
    recipe = VAERecipe(model=VAESettings(latent_dims=3, hidden=(16,), free_bits=0.1))
    dataset = load_dataset(recipe)
    state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
    batch = Batches(dataset.train, dataset.spec.preparation, 24, seed=1)(0)
    gradient(state.model, batch, 3, Noise(generator(4)), Precision(), None)
    with pytest.raises(InputError, match="24 examples, and only 12 fit into memory"):
        gradient(state.model, batch, 3, Noise(generator(4)), Precision(), 12)


# ---------------------------------------------------------------------------------------------- computed again

IMAGES = (3, 16, 16)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: UNet(IMAGES, (16, 32), blocks=2, attention=(1,), classes=3),
    "transformer": lambda: PatchTransformer(IMAGES, width=32, depth=4, patch=4, classes=3),
    "residual mlp": lambda: ResidualMLP(IMAGES, width=256, depth=4, classes=3),
    "mlp": lambda: MLP(IMAGES, (512, 512, 512), (2,), "gelu"),
    "encoder": lambda: ConvolutionalEncoder(Levels(IMAGES, (16, 32)), 4),
    "decoder": lambda: ConvolutionalDecoder(Levels(IMAGES, (16, 32)), 2, 2),
}


def _gradients(network: nn.Module) -> tuple[dict[str, Tensor], int]:
    """Of a loss at random weights, and how many bytes were kept for it."""
    draw = torch.Generator().manual_seed(0)
    for parameter in network.parameters():  # those that start at zero let no gradient through
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=draw)
    x = torch.randn(64, *((2,) if isinstance(network, ConvolutionalDecoder) else IMAGES), generator=draw)
    told = (torch.randn(64, generator=draw), torch.arange(64) % 3) if hasattr(network, "condition") else ()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss = network(x, *told).square().mean()
    loss.backward()
    kept = sum(event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]")
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}, kept


@pytest.mark.parametrize("name", list(NETWORKS))
@pytest.mark.parametrize("autocast", [False, True])
def test_activations_computed_again_give_the_same_gradient_for_less_memory(name: str, autocast: bool) -> None:
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        network = NETWORKS[name]()
        if again:
            recompute_activations(network)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found.append(_gradients(network))
    (kept, most), (again, less) = found
    assert kept.keys() == again.keys() == {name for name, _ in network.named_parameters()}
    for parameter, value in kept.items():
        assert value.any(), parameter
        assert torch.equal(value, again[parameter]), parameter
    assert 0 < less < (0.95 if autocast else 0.7) * most  # autocast keeps its copies of the weights as well


@pytest.mark.parametrize(
    "recipe",
    [
        VAERecipe(model=VAESettings(network="convolutional", channels=(4, 8), latent_dims=3)),
        DiffusionRecipe(model=DiffusionSettings(widths=(8,))),
    ],
    ids=["vae", "diffusion"],
)
def test_the_setting_reaches_the_networks(recipe: VAERecipe | DiffusionRecipe) -> None:
    dataset = load_dataset(recipe)
    for again in (False, True):
        settings = recipe.training.model_copy(update={"activation_checkpointing": again})
        model = TrainingState.start(build_model(recipe, dataset.spec), settings).model
        networks = [module for module in model.modules() if hasattr(module, "recompute")]
        assert networks
        assert all(network.recompute == again for network in networks)
