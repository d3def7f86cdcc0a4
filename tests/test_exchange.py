"""Models that leave for diffusers and come from there, against diffusers itself in the same process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from jensen.data.options import ReadOptions
from jensen.diffusion import UniformTime
from jensen.exchange.read import read_model

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
    channels = theirs.config.in_channels
    x = torch.randn(4, channels, 8, 8)
    t = torch.tensor([0, 1, 25, 49])
    labels = torch.tensor([0, 1, 2, 3]) if found.rows else None
    spec = _spec(channels, None if found.rows is None else found.rows - 1)
    network = _network(found, spec)
    levels = -UniformTime()(network.chain, steps)[1:] / 8
    with torch.no_grad():
        expected = theirs(x, t, labels).sample
        torch.testing.assert_close(network(x, levels[t].float(), labels), expected, rtol=1e-5, atol=1e-5)


def _spec(channels: int, classes: int | None) -> Any:
    from jensen.data.load import load_data

    arrays = {"x": np.zeros((10, 8, 8, channels), dtype=np.uint8)}
    if classes:
        arrays["y"] = np.arange(10) % classes
    return load_data(arrays, ReadOptions(layout="hwc"), lambda _: "levels").spec


def _network(found: Any, spec: Any) -> Any:
    from jensen.recipe.diffusion.build import build_diffusion

    model = build_diffusion(found.settings, spec)
    network = model.denoiser.network
    network.load_state_dict(found.weights)
    network.chain = model.schedule
    return network.eval()
