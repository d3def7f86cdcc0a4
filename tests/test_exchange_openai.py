"""Weights of improved-diffusion, against its network restated here from its published description."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import jensen
from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.exchange.read import read_model

State = dict[str, Tensor]
SMALL: dict[str, Any] = {"image_size": 32, "num_channels": 32, "num_res_blocks": 1, "diffusion_steps": 40}
MULTIPLES = (1, 2, 2, 2)

# ---------------------------------------------------------------------------------------------- their network


def weights(flags: dict[str, Any]) -> State:
    """Random weights under their names, for images of 32 x 32 pixels with attention at 16 and 8."""
    generator, width, condition = torch.Generator().manual_seed(0), flags["num_channels"], 4 * flags["num_channels"]
    state: State = {}

    def layer(name: str, *shape: int) -> None:
        fan = math.prod(shape[1:]) or 1
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) / math.sqrt(fan)
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)

    def norm(name: str, channels: int) -> None:
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(channels, generator=generator)
        state[f"{name}.bias"] = 0.1 * torch.randn(channels, generator=generator)

    def block(name: str, inputs: int, outputs: int) -> None:
        norm(f"{name}.in_layers.0", inputs)
        layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
        layer(f"{name}.emb_layers.1", outputs * (2 if flags.get("use_scale_shift_norm", True) else 1), condition)
        norm(f"{name}.out_layers.0", outputs)
        layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            layer(f"{name}.skip_connection", outputs, inputs, 1, 1)

    def attention(name: str, channels: int) -> None:
        norm(f"{name}.norm", channels)
        layer(f"{name}.qkv", 3 * channels, channels, 1)
        layer(f"{name}.proj_out", channels, channels, 1)

    layer("time_embed.0", condition, width)
    layer("time_embed.2", condition, condition)
    layer("input_blocks.0.0", width, 3, 3, 3)
    number, channels, left = 1, width, [width]
    for level, multiple in enumerate(MULTIPLES):
        for _ in range(flags["num_res_blocks"]):
            block(f"input_blocks.{number}.0", channels, multiple * width)
            channels = multiple * width
            if level in (1, 2):
                attention(f"input_blocks.{number}.1", channels)
            left.append(channels)
            number += 1
        if level < 3:
            layer(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            left.append(channels)
            number += 1
    block("middle_block.0", channels, channels)
    attention("middle_block.1", channels)
    block("middle_block.2", channels, channels)
    number = 0
    for level, multiple in reversed(list(enumerate(MULTIPLES))):
        for i in range(flags["num_res_blocks"] + 1):
            block(f"output_blocks.{number}.0", channels + left.pop(), multiple * width)
            channels = multiple * width
            if level in (1, 2):
                attention(f"output_blocks.{number}.1", channels)
            if level and i == flags["num_res_blocks"]:
                layer(f"output_blocks.{number}.{2 if level in (1, 2) else 1}.conv", channels, channels, 3, 3)
            number += 1
    norm("out.0", channels)
    layer("out.2", 6 if flags.get("learn_sigma") else 3, width, 3, 3)
    return state


def network(state: State, flags: dict[str, Any], x: Tensor, t: Tensor) -> Tensor:
    """Their forward pass; every layer is known by the names of its weights."""
    half = flags["num_channels"] // 2
    scale = 1000 / flags["diffusion_steps"] if flags.get("rescale_timesteps", True) else 1
    angles = scale * t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)

    def linear(name: str, h: Tensor) -> Tensor:
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    def conv(name: str, h: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(h, weight, state[f"{name}.bias"], stride, weight.shape[-1] // 2)

    def norm(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, state[f"{name}.weight"], state[f"{name}.bias"])

    def block(name: str, h: Tensor) -> Tensor:
        r = conv(f"{name}.in_layers.2", F.silu(norm(f"{name}.in_layers.0", h)))
        told = linear(f"{name}.emb_layers.1", F.silu(condition))[:, :, None, None]
        if flags.get("use_scale_shift_norm", True):
            factor, shift = told.chunk(2, 1)
            r = norm(f"{name}.out_layers.0", r) * (1 + factor) + shift
        else:
            r = norm(f"{name}.out_layers.0", r + told)
        skip = conv(f"{name}.skip_connection", h) if f"{name}.skip_connection.weight" in state else h
        return skip + conv(f"{name}.out_layers.3", F.silu(r))

    def attention(name: str, h: Tensor, heads: int) -> Tensor:
        flat = norm(f"{name}.norm", h).flatten(2)
        qkv = F.conv1d(flat, state[f"{name}.qkv.weight"], state[f"{name}.qkv.bias"])
        q, k, v = qkv.reshape(len(h) * heads, -1, flat.shape[2]).chunk(3, 1)  # each head has its q, k, v together
        share = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(q.shape[1]), -1)
        mixed = torch.einsum("bts,bcs->bct", share, v).reshape(flat.shape)
        return h + F.conv1d(mixed, state[f"{name}.proj_out.weight"], state[f"{name}.proj_out.bias"]).reshape(h.shape)

    def group(name: str, h: Tensor, heads: int) -> Tensor:
        for i in range(3):
            at = f"{name}.{i}"
            if f"{at}.in_layers.0.weight" in state:
                h = block(at, h)
            elif f"{at}.qkv.weight" in state:
                h = attention(at, h, heads)
            elif f"{at}.op.weight" in state:
                h = conv(f"{at}.op", h, 2)
            elif f"{at}.conv.weight" in state:
                h = conv(f"{at}.conv", F.interpolate(h, scale_factor=2, mode="nearest"))
            elif f"{at}.weight" in state:
                h = conv(at, h)
        return h

    condition = linear("time_embed.0", torch.cat([angles.cos(), angles.sin()], 1))
    condition = linear("time_embed.2", F.silu(condition))
    down, up = flags.get("num_heads", 4), flags.get("num_heads_upsample", -1)
    skips, h = [], x
    for number in range(4 * (flags["num_res_blocks"] + 1)):
        h = group(f"input_blocks.{number}", h, down)
        skips.append(h)
    h = group("middle_block", h, down)
    for number in range(4 * (flags["num_res_blocks"] + 1)):
        h = group(f"output_blocks.{number}", torch.cat([h, skips.pop()], 1), down if up == -1 else up)
    return conv("out.2", F.silu(norm("out.0", h)))


def written(folder: Path, flags: dict[str, Any], ending: str = "pt") -> State:
    """A folder of their weights and flags; the weights."""
    folder.mkdir()
    state = weights({**SMALL, **flags})
    (folder / "improved_diffusion.json").write_text(json.dumps({**SMALL, **flags}))
    if ending == "pt":
        torch.save(state, folder / "ema_0.9999_000001.pt")
    else:
        save_file(state, folder / "model.safetensors")
    return state


# ---------------------------------------------------------------------------------------------- the tests

WAYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "learned variance, shifts, heads": {
        "learn_sigma": True,
        "noise_schedule": "cosine",
        "use_scale_shift_norm": False,
        "num_heads": 2,
        "num_heads_upsample": 8,
        "rescale_timesteps": False,
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_an_imported_network_computes_what_theirs_computes(way: str, tmp_path: Path) -> None:
    flags = {**SMALL, **WAYS[way]}
    state = written(tmp_path / "their", WAYS[way], "pt" if way == "defaults" else "safetensors")
    run = jensen.import_run(tmp_path / "their", data=pictures(), out=tmp_path / "run", read=ReadOptions(layout="hwc"))
    assert run.recipe.model.variance == ("learned" if flags.get("learn_sigma") else "beta")
    t, x = torch.tensor([0.0, 7.0, 39.0]), torch.randn(3, 3, 32, 32)
    level = -run.model.bound().log_snr[1 + t.long()].float() / 8
    with torch.no_grad():
        expected = network(state, flags, x, t)
        torch.testing.assert_close(run.model.denoiser.network(x, level), expected, rtol=1e-4, atol=1e-4)


def pictures() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)}


def test_their_chains_are_theirs(tmp_path: Path) -> None:
    """Nichol & Dhariwal 2021, section 3.2: the cosine's betas end at 0.999, the line's are scaled by 1000 / T."""
    written(tmp_path / "cosine", {"noise_schedule": "cosine"})
    written(tmp_path / "linear", {})
    cosine, linear = (read_model(tmp_path / name).settings.imported.betas for name in ("cosine", "linear"))
    alpha_bar = np.cumprod(1 - np.array(cosine))
    f = [math.cos((t / 40 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(40)]
    np.testing.assert_allclose(alpha_bar[:39], np.array(f[1:]) / f[0], rtol=1e-10)
    assert cosine[-1] == 0.999
    np.testing.assert_allclose([linear[0], linear[-1]], [1e-4 * 25, 0.02 * 25])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"class_cond": True}, "class_cond = True"),
        ({"timestep_respacing": "250"}, "timestep_respacing = '250'"),
        ({"image_size": 128}, "image_size = 128"),
        ({"num_channels": 48}, "num_channels = 48"),
        ({"num_heads": 5}, "num_heads 5 does not divide"),
        ({"large_size": 256}, "unknown field large_size"),
        ({"num_res_blocks": 2}, r"lacks the weight|is no weight|has shape"),
        ({"diffusion_steps": 20}, "each between 0 and 1"),
        ({"attention_resolutions": "9" * 5000}, "attention_resolutions"),
    ],
)
def test_flags_without_counterpart_are_refused_by_name(flags: dict[str, Any], message: str, tmp_path: Path) -> None:
    written(tmp_path / "their", {})
    (tmp_path / "their" / "improved_diffusion.json").write_text(json.dumps({**SMALL, **flags}))
    with pytest.raises(InputError, match=message) as raised:
        read_model(tmp_path / "their")
    assert "\n" not in str(raised.value)


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    state = written(tmp_path / "their", {})
    (path,) = (tmp_path / "their").glob("*.pt")
    torch.save(state | {"out.2.bias": state["out.2.bias"].long()}, path)
    with pytest.raises(InputError, match=r"out\.2\.bias is torch\.int64, expected floats"):
        read_model(tmp_path / "their")


class Planted:
    """What a pickle would execute."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_file_of_weights_is_not_executed(tmp_path: Path) -> None:
    state = written(tmp_path / "their", {})
    mark = tmp_path / "executed"
    torch.save({**state, "more": Planted(mark)}, tmp_path / "their" / "ema_0.9999_000001.pt")
    with pytest.raises(InputError, match="could execute code"):
        read_model(tmp_path / "their")
    torch.save([1, 2], tmp_path / "their" / "ema_0.9999_000001.pt")
    with pytest.raises(InputError, match="expected tensors by name"):
        read_model(tmp_path / "their")
    assert not mark.exists()


def test_a_pkl_of_edm_is_refused_unopened(tmp_path: Path) -> None:
    (tmp_path / "edm-cifar10-32x32-uncond-vp.pkl").write_bytes(b"\x80\x04.")
    for path in (tmp_path, tmp_path / "edm-cifar10-32x32-uncond-vp.pkl"):
        with pytest.raises(InputError, match=r"\.pkl.*not opened"):
            read_model(path)
