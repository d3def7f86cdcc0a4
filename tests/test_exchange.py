"""Models that leave for diffusers and come from there, against diffusers itself in the same process."""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

import jensen
from jensen.cli import main
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.data.spec import DataSpec
from jensen.diffusion import DDIM, AbstractSampler, UniformTime, trajectory
from jensen.evaluation.settings import EvaluationSettings
from jensen.exchange.read import read_model
from jensen.recipe.build import build_model, load_dataset
from jensen.recipe.diffusion.build import build_diffusion
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.families import read_recipe
from jensen.report.again import provenance_section, recipe_section, toml
from jensen.run import Run, establish_untrained

BLOCKS = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
SMALL: dict[str, Any] = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 8,
    **BLOCKS,
}


def unet(**changed: Any) -> UNet2DModel:
    """A small network of diffusers with random weights everywhere, also where a new one has zeros."""
    network = UNet2DModel(**{**SMALL, **changed})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 colour pictures of 8 x 8 pixels with three labels."""
    path = tmp_path_factory.mktemp("pictures") / "pictures.npz"
    drawn = np.random.default_rng(0)
    x = drawn.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    np.savez(path, x=x, y=np.arange(60) % 3)
    return path


CONFIGS: dict[str, dict[str, Any]] = {
    "as google/ddpm-cifar10-32": {
        "attention_head_dim": None,
        "downsample_padding": 0,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "norm_eps": 1e-6,
    },
    "defaults": {},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 2},
    "no norm in the middle": {"resnet_time_scale_shift": "scale_shift"},
    "learned times, no attention in the middle": {
        "time_embedding_type": "learned",
        "num_train_timesteps": 50,
        "add_attention": False,
    },
    "attention on one way": {"up_block_types": ("UpBlock2D", "UpBlock2D"), "layers_per_block": 2},
    "grey, three levels": {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 8, 16),
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D"),
        "time_embedding_dim": 24,
        "act_fn": "swish",
    },
    "labels and learned variance": {"num_class_embeds": 4, "out_channels": 6},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_an_imported_network_computes_what_diffusers_computes(name: str, tmp_path: Path) -> None:
    theirs, steps = unet(**CONFIGS[name]), 50
    learned = CONFIGS[name].get("out_channels") == 6
    variance = {"variance_type": "learned_range"} if learned else {}
    DDPMPipeline(theirs, DDPMScheduler(steps, **variance)).save_pretrained(tmp_path / name)
    found = read_model(tmp_path / name)
    x, t = torch.randn(4, theirs.config.in_channels, 8, 8), torch.tensor([0, 1, 25, 49])
    labels = torch.tensor([0, 1, 2, 3]) if found.rows else None
    model = build_diffusion(found.settings, data_spec(theirs.config.in_channels, 3 if found.rows else 0))
    model.denoiser.network.load_state_dict(found.weights)
    level = -model.bound().log_snr[1 + t].float() / 8  # as `Denoiser` rounds it
    with torch.no_grad():
        expected = theirs(x, t, labels).sample
        torch.testing.assert_close(model.denoiser.network(x, level, labels), expected, rtol=1e-5, atol=1e-5)


def data_spec(channels: int, classes: int = 0, side: int = 8) -> DataSpec:
    arrays = {"x": np.zeros((20, side, side, channels), dtype=np.uint8)}
    labels = {"y": np.arange(20) % classes} if classes else {}
    return load_data({**arrays, **labels}, ReadOptions(layout="hwc"), lambda _: "levels").spec


# ---------------------------------------------------------------------------------------------- from jensen

UNTRAINED = {"octaves": 0, "patch": 1, "widths": (16, 32), "attention": (1,), "chain_steps": 30, "objective": "simple"}
WAYS: dict[str, dict[str, Any]] = {
    "epsilon, linear, beta": {"parameterisation": "epsilon", "noise_schedule": "linear-beta", "variance": "beta"},
    "clean, cosine, posterior": {"parameterisation": "clean", "noise_schedule": "cosine", "variance": "posterior"},
    "velocity, log-SNR, beta": {"parameterisation": "velocity", "noise_schedule": "linear-log-snr", "variance": "beta"},
    "EDM of unit data": {"parameterisation": "edm", "sigma_data": 1.0, "skip": 1.0, "variance": "posterior"},
    "learned variance": {"parameterisation": "epsilon", "variance": "learned", "objective": "hybrid"},
    "learned schedule": {
        "parameterisation": "velocity",
        "noise_schedule": "learned",
        "objective": "bound",
        "variance": "beta",
    },
    "sigmoid, no attention": {
        "parameterisation": "velocity",
        "noise_schedule": "sigmoid",
        "attention": (),
        "variance": "posterior",
    },
}


def a_run(folder: Path, data: Any, **settings: Any) -> Run:
    """A run whose weights are random everywhere and whose predictions are about as large as the data."""
    model = DiffusionSettings(**{**UNTRAINED, "sampler": "ancestral", "sampling_steps": 30, **settings})
    training = DiffusionTraining(steps=1, ema_decay=None)
    recipe = DiffusionRecipe(data=data, read=ReadOptions(layout="hwc"), model=model, training=training)
    dataset = load_dataset(recipe)
    made = build_model(recipe, dataset.spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.denoiser.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return establish_untrained(folder, recipe, dataset.spec, made)


def ours(run: Run, sampler: AbstractSampler, steps: int, seed: int, labels: Tensor | None = None) -> Tensor:
    """Samples of jensen whose noise comes from one generator in the order in which it is used."""
    generator = torch.Generator().manual_seed(seed)
    grid = UniformTime()(run.model.schedule, steps)

    def noise(position: int) -> Tensor:
        return torch.randn((3, *run.spec.shape), generator=generator)

    with torch.no_grad():
        return list(trajectory(sampler, run.model.denoiser, grid, noise, labels=labels))[-1].x


def theirs(
    folder: Path, pipeline: Any, steps: int, seed: int, labels: Tensor | None = None, *, exact: bool = True
) -> Tensor:
    """Samples by the loop of diffusers' pipelines, with labels, and without the last cut to [0, 1].

    `exact`: with the scheduler's table in float64 instead of float32, see docs/diffusion.md.
    """
    loaded = pipeline.from_pretrained(folder)
    scheduler = loaded.scheduler
    if exact:
        table = scheduler.config.trained_betas
        linear = torch.linspace(scheduler.config.beta_start, scheduler.config.beta_end, 30, dtype=torch.float64)
        betas = linear if table is None else torch.tensor(table, dtype=torch.float64)
        scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((3, loaded.unet.config.in_channels, 8, 8), generator=generator)
    with torch.no_grad():
        for t in scheduler.timesteps:
            output = loaded.unet(x, t, class_labels=labels).sample
            x = scheduler.step(output, t, x, generator=generator).prev_sample.float()
    return x


@pytest.mark.parametrize("way", WAYS)
def test_the_same_noise_gives_the_same_samples_in_diffusers(way: str, pictures: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", pictures, **WAYS[way])
    jensen.export(run, to="diffusers", out=tmp_path / "out")
    labels = torch.tensor([0, 2, 3])  # 3: no label
    mine = ours(run, run.model.generation.sampler, 30, 1, labels)
    alike(theirs(tmp_path / "out", DDPMPipeline, 30, 1, labels), mine)
    alike(theirs(tmp_path / "out", DDPMPipeline, 30, 1, labels, exact=False), mine, 3e-3)  # diffusers' own rounding
    if WAYS[way]["variance"] != "learned":
        mine = ours(run, DDIM(), 10, 2, labels)
        alike(theirs(tmp_path / "out", DDIMPipeline, 10, 2, labels), mine)


def alike(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Equal to 1e-4 deviations: a network of random weights sends samples far out, and rounding with them."""
    scale = expected.std().clamp(min=1)
    torch.testing.assert_close(found / scale, expected / scale, rtol=0, atol=tolerance)


def test_the_pipeline_itself_draws_the_pictures(tmp_path: Path) -> None:
    """Grey pictures without labels, by `DDPMPipeline.__call__`, as users call it."""
    x = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    run = a_run(tmp_path / "run", {"x": x}, variance="beta", noise_schedule="linear-beta", parameterisation="velocity")
    found = jensen.export(run, to="diffusers", out=tmp_path / "out")
    assert [Path(name).name for name in found.files] == [
        "jensen.json",
        "model_index.json",
        "scheduler_config.json",
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(3, torch.Generator().manual_seed(1), num_inference_steps=30, output_type="pt").images
    mine = ours(run, run.model.generation.sampler, 30, 1)
    torch.testing.assert_close(drawn, (mine / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-4)
    assert pipeline(1, num_inference_steps=2).images[0].size == (8, 8)


@pytest.mark.parametrize("way", ["epsilon, linear, beta", "learned variance", "learned schedule"])
def test_out_and_back_in_keeps_every_bit(way: str, pictures: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", pictures, **WAYS[way])
    jensen.export(run, to="diffusers", out=tmp_path / "out")
    back = jensen.import_run(tmp_path / "out", data=pictures, out=tmp_path / "back", read=ReadOptions(layout="hwc"))
    before, after = (r.model.get_submodule("denoiser").state_dict() for r in (run, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert back.recipe.model.network == "unet"
    jensen.export(back, to="diffusers", out=tmp_path / "again")
    for name in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes(), name


@pytest.mark.parametrize("name", ["as google/ddpm-cifar10-32", "labels and learned variance", "scale and shift"])
def test_in_and_back_out_keeps_every_bit(name: str, pictures: Path, tmp_path: Path) -> None:
    learned = {"variance_type": "learned_range"} if "learned" in name else {}
    scheduler = DDPMScheduler(30, beta_schedule="squaredcos_cap_v2", clip_sample_range=1.5, **learned)
    DDPMPipeline(unet(**CONFIGS[name]), scheduler).save_pretrained(tmp_path / "their")
    run = jensen.import_run(tmp_path / "their", data=pictures, out=tmp_path / "run", read=ReadOptions(layout="hwc"))
    jensen.export(run, to="diffusers", out=tmp_path / "out")
    before, after = (load_file(tmp_path / at / "unet/diffusion_pytorch_model.safetensors") for at in ("their", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[weight], after[weight]) for weight in before)
    configs = [json.loads((tmp_path / at / "unet/config.json").read_text()) for at in ("their", "out")]
    for setting in ("attention_head_dim", "downsample_padding", "flip_sin_to_cos", "freq_shift", "norm_num_groups"):
        assert configs[0][setting] == configs[1][setting], setting
    labels = torch.tensor([0, 2, 3]) if run.model.classes else None
    mine, yours = (theirs(tmp_path / at, DDPMPipeline, 30, 4, labels, exact=False) for at in ("out", "their"))
    alike(mine, yours)


# ---------------------------------------------------------------------------------------------- the bound


def openai_bits(unet: UNet2DModel, scheduler: DDPMScheduler, x: Tensor, noise: Tensor) -> Tensor:
    """Bits per dimension of each x by `calc_bpd_loop` of improved-diffusion, from its published algorithm.

    The betas are the scheduler's, in float64; the network, the clipping and the variance are those of the pipeline.
    `noise` (T, *x.shape) holds what they draw at each t.
    """
    config = scheduler.config
    betas = torch.linspace(config.beta_start, config.beta_end, config.num_train_timesteps, dtype=torch.float64)
    now = torch.cumprod(1 - betas, 0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), now[:-1]])
    small = betas * (1 - before) / (1 - now)
    small[0] = small[1]  # their posterior_log_variance_clipped
    large = torch.cat([small[1:2], betas[1:]])  # their FIXED_LARGE
    log_variance = (large if config.variance_type == "fixed_large" else small).log()
    total = torch.zeros(len(x), dtype=torch.float64)
    for t in reversed(range(len(betas))):
        x_t = now[t].sqrt() * x + (1 - now[t]).sqrt() * noise[t]
        eps = unet(x_t.float(), t).sample.double()
        x0 = (x_t / now[t].sqrt() - (1 / now[t] - 1).sqrt() * eps).clamp(-1, 1)
        first, second = (
            betas[t] * before[t].sqrt() / (1 - now[t]),
            (1 - before[t]) * (1 - betas[t]).sqrt() / (1 - now[t]),
        )
        mean, truth = first * x0 + second * x_t, first * x + second * x_t
        if t:
            kl = log_variance[t] - small[t].log() - 1 + (small[t].log() - log_variance[t]).exp()
            total += (0.5 * (kl + (truth - mean) ** 2 * (-log_variance[t]).exp())).flatten(1).mean(1)
        else:
            total -= discretised(x, mean, 0.5 * log_variance[0]).flatten(1).mean(1)
    kl = -1 - (1 - now[-1]).log() + (1 - now[-1]) + now[-1] * x**2
    return (total + 0.5 * kl.flatten(1).mean(1)) / math.log(2)


def discretised(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Their log-likelihood of 256 levels, with the exact normal distribution function instead of an approximation."""
    up, down = ((x - mean + side / 255) / log_scale.exp() for side in (1, -1))
    inner = (torch.special.ndtr(up) - torch.special.ndtr(down)).clamp(min=1e-12).log()
    ends = torch.special.log_ndtr(up), torch.special.log_ndtr(-down)
    return torch.where(x < -0.999, ends[0], torch.where(x > 0.999, ends[1], inner))


@pytest.mark.parametrize("variance_type", ["fixed_large", "fixed_small"])
def test_the_bound_of_an_imported_model_is_openais(variance_type: str, pictures: Path, tmp_path: Path) -> None:
    steps = 20
    network, scheduler = unet(), DDPMScheduler(steps, beta_end=0.3, variance_type=variance_type)
    DDPMPipeline(network, scheduler).save_pretrained(tmp_path / "their")
    run = jensen.import_run(tmp_path / "their", data=pictures, out=tmp_path / "run", read=ReadOptions(layout="hwc"))
    x = run.spec.preparation(run.examples().x[:], None)
    noise = torch.randn(steps, *x.shape)
    with torch.no_grad():
        expected = openai_bits(network, scheduler, x.double(), noise.double())
        bound, nats = run.model.bound(), run.model.bound().prior(x).double()
        for t in range(steps):
            step = torch.full((len(x),), t + 1)
            nats = nats + bound.term(bound.predict(x, step, noise[t]), x, step).double()
    bits = nats / math.log(2) / x[0].numel()
    torch.testing.assert_close(bits, expected, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"octaves": 4}, "octaves 4 has no counterpart"),
        ({"patch": 2}, "patch 2 has no counterpart"),
        ({"parameterisation": "edm"}, "parameterisation edm with sigma_data 0.5"),
        ({"network": "transformer", "widths": None, "attention": (), "depth": 1}, "network transformer"),
        ({"variance": "analytic"}, "variance analytic with sampler ancestral"),
        ({"last_step": "draw"}, "last_step draw"),
        ({"widths": (8, 32)}, "widths 8 32 has no counterpart.*numbers of groups"),
        ({"widths": (16, 32), "attention": (0, 1)}, "attention 0 1 has no counterpart.*widths of its heads"),
        ({"widths": (16, 16, 32, 32, 32)}, "multiples of 16"),
    ],
)
def test_settings_without_counterpart_are_refused_by_name(
    settings: dict[str, Any], message: str, pictures: Path, tmp_path: Path
) -> None:
    run = a_run(tmp_path / "run", pictures, **{"parameterisation": "velocity", "variance": "beta", **settings})
    with pytest.raises(jensen.InputError, match=message) as raised:
        jensen.export(run, to="diffusers", out=tmp_path / "out")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_other_families_floats_and_taken_folders_are_refused(tmp_path: Path, pictures: Path) -> None:
    floats = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype(np.float32)
    run = a_run(tmp_path / "run", {"x": floats}, parameterisation="velocity", variance="beta")
    with pytest.raises(jensen.InputError, match="standardise of floats has no counterpart"):
        jensen.export(run, to="diffusers", out=tmp_path / "out")
    with pytest.raises(jensen.InputError, match="expected one of diffusers"):
        jensen.export(run, to="keras", out=tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    with pytest.raises(jensen.InputError, match="not an empty folder"):
        jensen.export(run, to="diffusers", out=tmp_path / "full")
    assert (tmp_path / "full" / "mine").read_text() == "kept"
    vae = jensen.VAERecipe(training={"steps": 1, "batch_size": 4}, data=str(pictures))
    with pytest.raises(jensen.InputError, match="family vae"):
        jensen.export(jensen.train(vae, tmp_path / "vae"), to="diffusers", out=tmp_path / "out")


def edited(folder: Path, name: str, changes: Mapping[str, Any]) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


UNET_CONFIG, SCHEDULER_CONFIG, INDEX = "unet/config.json", "scheduler/scheduler_config.json", "model_index.json"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            UNET_CONFIG,
            {"down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"]},
            "ResnetDownsampleBlock2D",
        ),
        (UNET_CONFIG, {"class_embed_type": "timestep"}, "class_embed_type timestep"),
        (UNET_CONFIG, {"time_embedding_type": "fourier"}, "time_embedding_type fourier"),
        (UNET_CONFIG, {"center_input_sample": True}, "center_input_sample True"),
        (UNET_CONFIG, {"act_fn": "gelu"}, "act_fn gelu"),
        (UNET_CONFIG, {"mid_block_type": None}, "mid_block_type None"),
        (UNET_CONFIG, {"mid_block_scale_factor": 1.4}, "mid_block_scale_factor 1.4"),
        (UNET_CONFIG, {"block_out_channels": [8, 18]}, "make no network"),
        (UNET_CONFIG, {"block_out_channels": "many"}, "make no network"),
        (UNET_CONFIG, {"block_out_channels": [8, 16, 16]}, "make no network"),
        (UNET_CONFIG, {"block_out_channels": [8, 24]}, "has shape"),
        (UNET_CONFIG, {"norm_num_groups": 0}, "make no network"),
        (UNET_CONFIG, {"layers_per_block": 2}, "lacks the weight"),
        (UNET_CONFIG, {"add_attention": False}, "is no weight of a network of its settings"),
        (SCHEDULER_CONFIG, {"thresholding": True}, "thresholding True"),
        (SCHEDULER_CONFIG, {"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr True"),
        (SCHEDULER_CONFIG, {"beta_schedule": "laplace"}, "beta_schedule laplace"),
        (SCHEDULER_CONFIG, {"variance_type": "learned"}, "variance_type learned has no"),
        (SCHEDULER_CONFIG, {"variance_type": "learned_range"}, "variance_type learned_range with out_channels 3"),
        (SCHEDULER_CONFIG, {"trained_betas": [0.1] * 19 + [1.0]}, "each between 0 and 1"),
        (SCHEDULER_CONFIG, {"trained_betas": [0.1, 0.2]}, "num_train_timesteps 20, but 2 trained_betas"),
        (SCHEDULER_CONFIG, {"trained_betas": "none"}, "make no chain"),
        (SCHEDULER_CONFIG, {"num_train_timesteps": 10**15}, "num_train_timesteps 1000000000000000"),
        (SCHEDULER_CONFIG, {"clip_sample_range": -1}, "clip_sample_range -1"),
        (UNET_CONFIG, {"sample_size": [8]}, "sample_size"),
        (INDEX, {"unet": ["diffusers", "UNet2DConditionModel"]}, "unet UNet2DConditionModel"),
        (INDEX, {"scheduler": ["diffusers", "EulerDiscreteScheduler"]}, "scheduler EulerDiscreteScheduler"),
    ],
)
def test_parts_without_counterpart_are_refused_by_name(
    name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    DDPMPipeline(unet(), DDPMScheduler(20)).save_pretrained(tmp_path)
    edited(tmp_path, name, changes)
    with pytest.raises(jensen.InputError, match=message) as raised:
        read_model(tmp_path)
    assert "\n" not in str(raised.value)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**40, 1e300, math.nan, "", "DownBlock2D"]),
    st.floats(),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    DDPMPipeline(unet(), DDPMScheduler(20)).save_pretrained(folder)
    return folder


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_the_settings_say_is_read_or_refused_in_one_line(whole: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([UNET_CONFIG, SCHEDULER_CONFIG, INDEX]))
    before = (whole / name).read_bytes()
    key = data.draw(st.sampled_from(sorted(json.loads(before))))
    value = data.draw(st.one_of(ODD, st.lists(ODD, max_size=3), st.dictionaries(st.text(max_size=3), ODD, max_size=2)))
    edited(whole, name, {key: value})
    said = ""
    try:
        read_model(whole)
    except jensen.InputError as error:
        said = str(error)
    finally:
        (whole / name).write_bytes(before)
    assert "\n" not in said


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((20, 8, 8, 1), None, "channels, height, width"),
        ((20, 16, 16, 3), None, r"\(3, 8, 8\)"),
        ((20, 8, 8, 3), 2, "has 2 labels, .* a table of 4; expected data with 3 labels"),
        ((20, 8, 8, 3), None, "has no labels, .* a table of 4"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    shape: tuple[int, ...], labels: int | None, message: str, tmp_path: Path
) -> None:
    DDPMPipeline(unet(num_class_embeds=4), DDPMScheduler(20)).save_pretrained(tmp_path / "their")
    data = {"x": np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)}
    data |= {"y": np.arange(20) % labels} if labels else {}
    with pytest.raises(jensen.InputError, match=message):
        jensen.import_run(tmp_path / "their", data=data, out=tmp_path / "run", read=ReadOptions(layout="hwc"))
    assert not (tmp_path / "run").exists()


def test_older_files_are_read(tmp_path: Path) -> None:
    """All files side by side, weights in a .bin, and the parts of an attention by their names of before 0.13."""
    DDIMPipeline(unet(), DDIMScheduler(20)).save_pretrained(tmp_path)
    new = read_model(tmp_path)
    old = tmp_path / "old"
    old.mkdir()
    state = load_file(tmp_path / "unet/diffusion_pytorch_model.safetensors")
    for ours, former in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        state = {name.replace(f".{ours}.", f".{former}."): value for name, value in state.items()}
    torch.save(state, old / "diffusion_pytorch_model.bin")
    for name in (UNET_CONFIG, SCHEDULER_CONFIG, INDEX):
        (old / Path(name).name).write_bytes((tmp_path / name).read_bytes())
    found = read_model(old)
    assert all(torch.equal(found.weights[name], new.weights[name]) for name in new.weights)
    assert found.settings.sampler == "ddim"


# ---------------------------------------------------------------------------------------------- an imported run


def test_an_imported_run_does_what_runs_do(pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = unet()
    torch.nn.init.zeros_(network.conv_out.weight)  # an easy flow for the ODE
    DDPMPipeline(network, DDPMScheduler(10, beta_end=0.4)).save_pretrained(tmp_path / "their")
    run = str(tmp_path / "run")

    def jensen_says(*words: str) -> str:
        assert main(list(words)) == 0, words
        return capsys.readouterr().out

    made = ["import", str(tmp_path / "their"), "--data", str(pictures), "--layout", "hwc", "--out", run]
    assert "from files of diffusers, not trained by jensen: unet/config.json with SHA-256" in jensen_says(*made)
    assert main(made) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert "training      none" in jensen_says("info", run)
    found = jensen.evaluate(jensen.load(run), settings=EvaluationSettings(draws=2, further_examples=2, samples=2))
    assert "jensen import FOLDER --data" in recipe_section(found.results).values["commands"]
    assert provenance_section(found.results).values["items"]["training"] == "none by this program"
    assert read_recipe(tomllib.loads(toml(found.results.recipe)), "the report").model == jensen.load(run).recipe.model
    jensen_says("score", run, "--draws", "2", "--out", str(tmp_path / "scores.csv"))
    jensen_says("sample", run, "--n", "2", "--out", str(tmp_path / "samples.npz"))
    masked = ["--mask", "half:left", "--examples", "2", "--draws", "1", "--steps", "4"]
    jensen_says("impute", run, *masked, "--out", str(tmp_path / "imputed"))
    jensen_says("compress", run, "--examples", "2", "--steps", "4", "--out", str(tmp_path / "two.jensen"))
    assert main(["train", "diffusion", "--config", f"{run}/recipe.json", "--out", str(tmp_path / "no")]) == 2
    assert "give the imported run to --from" in capsys.readouterr().err
    jensen_says("train", "diffusion", "--from", run, "--steps", "2", "--out", str(tmp_path / "tuned"))
    jensen_says("export", run, "--to", "diffusers", "--out", str(tmp_path / "out"))
    jensen_says("export", run, "--to", "pretrained", "--out", str(tmp_path / "card"))
    assert "The weights come from files of diffusers, not trained by" in (tmp_path / "card" / "README.md").read_text()


def test_what_an_imported_model_learned_of_its_errors_changes_no_weight(pictures: Path, tmp_path: Path) -> None:
    DDPMPipeline(unet(), DDPMScheduler(10, beta_end=0.4)).save_pretrained(tmp_path / "their")
    read, sums = ReadOptions(layout="hwc"), []
    for variance in ("as-is", "analytic"):
        run = jensen.import_run(
            tmp_path / "their", data=pictures, out=tmp_path / variance, variance=variance, read=read
        )
        found = read_model(tmp_path / "their")
        own = run.model.denoiser.network.state_dict()
        assert all(torch.equal(own[name], value) for name, value in found.weights.items())
        assert run.model.errors.weight.sum() > 80  # 80 bins of one observation, and 48 examples
        sums.append(float(run.model.elbo(run.spec.preparation(run.examples().x[:], None), draws=20).value.mean()))
    assert sums[1] > sums[0]  # the best variance for the errors gives the better bound


def test_an_export_leaves_the_folders_beside_it_alone(pictures: Path, tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", pictures, **WAYS["epsilon, linear, beta"])
    (tmp_path / ".out.tmp").mkdir()
    (tmp_path / ".out.tmp" / "mine").write_text("kept")
    jensen.export(run, to="diffusers", out=tmp_path / "out")
    assert (tmp_path / ".out.tmp" / "mine").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.tmp", "out", "run"]
