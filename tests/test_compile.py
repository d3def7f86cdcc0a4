"""Compiled training: the same steps, names of weights and exact resume; what cannot be compiled is refused."""

import inspect
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter

import jensen
from jensen.data.examples import Dataset
from jensen.errors import InputError
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training import compilation
from jensen.training.checkpoint import checkpoints, load_checkpoint
from jensen.training.fit import fit
from jensen.training.loop import accelerator_for, steps
from jensen.training.precision import arithmetic
from jensen.training.settings import TrainingSettings
from jensen.training.state import TrainingState

# Raised and handled inside torch.compile, or on a GPU; here all warnings are errors
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{start}")
    for start in (
        "The .grad attribute of a Tensor that is not a leaf",
        ".torch.jit.script_method. is deprecated",
        "(Memory Efficient|cuDNN) [aA]ttention defaults to a non-deterministic algorithm",
    )
]

TRAINING: dict[str, Any] = {
    "device": "cpu",
    "steps": 3,
    "batch_size": 32,
    "optimiser": "muon",
    "compile": "kernels",
    "ema_decay": 0.9,
}


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CompileCounter:
    """A compiler that counts graphs and computes them as PyTorch does, so that digits can be compared."""
    torch._dynamo.reset()
    counter = CompileCounter()
    monkeypatch.setattr(compilation, "BACKEND", counter)
    for module in [module for name, module in sys.modules.items() if name.startswith("jensen.nets")]:
        for home in (module, *filter(inspect.isclass, vars(module).values())):
            for name, value in list(vars(home).items()):  # the tests' checks of types cannot be compiled
                if inspect.isfunction(value) and hasattr(value, "__wrapped__"):
                    monkeypatch.setattr(home, name, inspect.unwrap(value))
    return counter


def _recipe(**training: object) -> VAERecipe:
    return VAERecipe(model=VAESettings(latent_dims=4, hidden=(16,)), training=TRAINING | training)


def _trained(recipe: VAERecipe | DiffusionRecipe, dataset: Dataset) -> TrainingState:
    state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
    for _ in steps(state, dataset.train, dataset.spec.preparation, recipe.training, seed=0):
        pass
    return state


@pytest.mark.parametrize("more", [{}, {"activation_checkpointing": True}, {"micro_batch_size": 12}])
def test_a_compiled_step_is_the_step(counter: CompileCounter, more: dict[str, Any]) -> None:
    """Encoder, decoder and Muon are compiled once, and once more for the smaller last part of a batch."""
    dataset = load_dataset(_recipe())
    plain = _trained(_recipe(compile="none", **more), dataset)
    assert counter.frame_count == 0
    whole = _trained(_recipe(**more), dataset)
    assert counter.frame_count == (5 if "micro_batch_size" in more else 3)
    torch.testing.assert_close(whole.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)
    graphs = counter.frame_count
    _trained(_recipe(**more), dataset)  # another model of the same sizes, as in the measurement before training
    assert counter.frame_count == graphs


def test_validation_and_samples_are_not_compiled(tmp_path: Path, counter: CompileCounter) -> None:
    run = jensen.train(_recipe(validate_every=1, sample_every=1, grid_samples=4), tmp_path / "run")
    assert counter.frame_count == 3
    assert run.metrics
    assert not any("forward" in vars(module) for module in run.model.modules())


def test_resume_of_a_compiled_training_is_exact(tmp_path: Path, counter: CompileCounter) -> None:
    recipe = _recipe(steps=6)
    dataset = load_dataset(recipe)
    for folder, stops in (("whole", (None,)), ("parts", (2, None))):
        (tmp_path / folder).mkdir()
        for stop in stops:
            state = TrainingState.start(build_model(recipe, dataset.spec), recipe.training)
            saved = checkpoints(tmp_path / folder / "checkpoints")
            if saved:
                load_checkpoint(saved[-1], state)
            interrupted = partial(_is_at, state, stop)
            fit(tmp_path / folder, state, dataset, recipe.training, 0, interrupted)
    for file in ("model.safetensors", "optimiser.safetensors", "state.json"):
        ends = [checkpoints(tmp_path / folder / "checkpoints")[-1] / file for folder in ("whole", "parts")]
        assert ends[0].read_bytes() == ends[1].read_bytes(), file
    assert counter.frame_count == 3


def _is_at(state: TrainingState, step: int | None) -> bool:
    return state.step == step


@pytest.mark.parametrize("network", ["unet", "transformer", "mlp"])
def test_the_networks_of_diffusion_are_one_graph_each(counter: CompileCounter, network: str) -> None:
    """A graph with breaks would launch its pieces one by one."""
    size: dict[str, Any] = {"widths": (8,), "attention": (0,)} if network == "unet" else {"width": 32, "depth": 1}
    recipe = DiffusionRecipe(model=DiffusionSettings(network=network, **size))
    spec = load_dataset(recipe).spec
    (found,) = compilation.networks_of(build_model(recipe, spec))
    x, level, labels = torch.randn(4, *spec.shape), torch.zeros(4), torch.zeros(4, dtype=torch.long)
    graph = torch.compile(found, backend=counter, fullgraph=True, dynamic=False)
    torch.testing.assert_close(graph(x, level, labels), found(x, level, labels))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"compile": "kernels", "sharding": "full"}, "sharding full"),
        ({"compile": "kernels", "precision": "float16"}, "float16"),
        ({"compile": "graphs"}, "choose kernels or none"),
        ({"precision": "tf32"}, "only CUDA devices have it"),
    ],
)
def test_what_does_not_work_together_is_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        accelerator_for(TrainingSettings(**{"device": "cpu"} | settings))


def test_a_machine_that_cannot_compile_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("no compiler")

    torch._dynamo.reset()
    monkeypatch.setattr(compilation, "BACKEND", failing)
    recipe = _recipe()
    with pytest.raises(InputError, match=r"torch.compile failed .*choose compile none"):
        _trained(recipe, load_dataset(recipe))


def test_outside_of_the_context_torch_computes_as_before() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with arithmetic(TrainingSettings(threads=before[0] + 1)):
        assert torch.get_num_threads() == before[0] + 1
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("how", ["none", "kernels", "graphs"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_a_gpu_training_twice_gives_the_same_bits_and_graphs_the_same_loss(how: str, precision: str) -> None:
    recipe = DiffusionRecipe(
        model=DiffusionSettings(widths=(16, 32), attention=(1,)),
        training=TRAINING | {"steps": 8, "compile": how, "precision": precision, "device": "cuda"},
    )
    dataset = load_dataset(recipe)
    device = accelerator_for(recipe.training).device
    ends = []
    with arithmetic(recipe.training):
        for _ in range(2):
            state = TrainingState.start(build_model(recipe, dataset.spec).to(device), recipe.training)
            records = steps(state, dataset.train, dataset.spec.preparation, recipe.training, seed=0)
            ends.append([float(record.loss) for record in records if record.loss is not None])
        plain = _recipe_without_compiling(recipe)
        state = TrainingState.start(build_model(plain, dataset.spec).to(device), plain.training)
        records = steps(state, dataset.train, dataset.spec.preparation, plain.training, seed=0)
        expected = [float(record.loss) for record in records if record.loss is not None]
    assert ends[0] == ends[1]
    assert ends[0] == pytest.approx(expected, rel=0.03)


def _recipe_without_compiling(recipe: DiffusionRecipe) -> DiffusionRecipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"compile": "none"})})
