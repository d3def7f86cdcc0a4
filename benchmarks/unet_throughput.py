"""Training and sampling steps of jensen's U-Net against diffusers' `UNet2DModel`: the same function, side by side.

    python benchmarks/unet_throughput.py                      # one CPU core, MNIST's shape
    python benchmarks/unet_throughput.py --device cuda --precision bfloat16 --size 3 32 32 --widths 128 256 256

Both get the same blocks, widths, attention and then the same weights, and must give the same output. A training step
is forward, squared error, backward and fused AdamW; a sampling step is a forward pass without gradients. Every round
times every contestant once, in an order that turns; ratios are taken within a round, so that what disturbs a whole
round cancels. On a CPU the clock counts this process's own processor time.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from jensen.exchange.names import DIFFUSERS, diffusers_layers, names_in, written_state
from jensen.exchange.own_unet import foreign
from jensen.nets import UNet
from jensen.nets.layers import GROUPS, HEAD_WIDTH
from jensen.recipe.diffusion.settings import DiffusionSettings


@dataclass
class Contestant:
    """A network with its own optimiser; `forward(x, level)` is its output."""

    name: str
    network: nn.Module
    forward: Callable[[Tensor, Tensor], Tensor]
    memory_format: torch.memory_format

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.AdamW(self.network.parameters(), 1e-5, fused=True)

    def train(self, x: Tensor, level: Tensor) -> None:
        (self.forward(x, level) - x).square().mean().backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    @torch.no_grad()
    def sample(self, x: Tensor, level: Tensor) -> None:
        self.forward(x, level)


# ---------------------------------------------------------------------------------------------- the same function


def peer_of(
    shape: tuple[int, int, int], widths: tuple[int, ...], blocks: int, attention: tuple[int, ...]
) -> UNet2DModel:
    """diffusers' network of the same layers as `UNet(shape, widths, blocks, attention)`."""
    kinds = ["Attn" if level in attention else "" for level in range(len(widths))]
    return UNet2DModel(
        sample_size=shape[1:],
        in_channels=shape[0],
        out_channels=shape[0],
        block_out_channels=widths,
        layers_per_block=blocks,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        add_attention=bool(kinds[-1]),
        attention_head_dim=HEAD_WIDTH,
        norm_num_groups=GROUPS,
        attn_norm_num_groups=GROUPS,
        resnet_time_scale_shift="scale_shift",
        freq_shift=1,
    )


@torch.no_grad()
def give_weights(ours: UNet, peer: UNet2DModel, settings: DiffusionSettings) -> None:
    """Random weights for ours, the same for the peer, and the peer's frequencies of the noise level for ours."""
    for parameter in ours.parameters():
        parameter += 0.03 * torch.randn_like(parameter)
    ours.condition.frequencies = torch.logspace(0, -4, len(ours.condition.frequencies))
    found = foreign(ours, settings, torch.zeros(2))
    names = names_in(DIFFUSERS, diffusers_layers(found.architecture))
    state = written_state(found.weights, names)
    del state["time_proj.weight"]  # the peer computes its sinusoids
    peer.load_state_dict(state)


# ---------------------------------------------------------------------------------------------- the race


def contestants(options: argparse.Namespace) -> list[Contestant]:
    """Ours, and the peer as it comes and in the layout that suits convolutions, all with the same weights."""
    shape, widths, attention = tuple(options.size), tuple(options.widths), tuple(options.attention)
    torch.manual_seed(0)
    ours, peer = UNet(shape, widths, options.blocks, attention), peer_of(shape, widths, options.blocks, attention)
    settings = DiffusionSettings(widths=widths, blocks=options.blocks, attention=attention, octaves=0, patch=1)
    give_weights(ours, peer, settings)
    last = UNet2DModel.from_config(peer.config)
    last.load_state_dict(peer.state_dict())
    last = last.to(memory_format=torch.channels_last)
    networks = [network.to(options.device) for network in (ours, peer, last)]
    for name, network in zip(("jensen", "diffusers"), networks, strict=False):
        print(f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters")
    calls = [torch.compile(network) if options.compile else network for network in networks]
    return [
        Contestant("jensen", networks[0], calls[0], torch.contiguous_format),
        Contestant("diffusers", networks[1], lambda x, t: calls[1](x, t).sample, torch.contiguous_format),
        Contestant("diffusers, channels last", networks[2], lambda x, t: calls[2](x, t).sample, torch.channels_last),
    ]


def clock(device: str) -> float:
    """Seconds: the processor's own on a CPU, the wall's after waiting for a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def race(entrants: list[Contestant], options: argparse.Namespace) -> dict[str, Tensor]:
    """Seconds of each kind of step, (rounds, contestants). The first round is not counted."""
    x = torch.randn(options.batch, *options.size, device=options.device)
    level = torch.rand(options.batch, device=options.device) * 1000
    inputs = [x.contiguous(memory_format=entrant.memory_format) for entrant in entrants]
    seconds = {kind: torch.zeros(options.rounds + 1, len(entrants)) for kind in ("training", "sampling")}
    for round_ in range(options.rounds + 1):
        for turn in range(len(entrants)):
            i = (turn + round_) % len(entrants)
            for kind, step in (("training", entrants[i].train), ("sampling", entrants[i].sample)):
                start = clock(options.device)
                for _ in range(options.repeats):
                    step(inputs[i], level)
                seconds[kind][round_, i] = (clock(options.device) - start) / options.repeats
    return {kind: values[1:] for kind, values in seconds.items()}


def report(names: list[str], seconds: dict[str, Tensor], batch: int) -> None:
    """Medians, and ratios to ours with their quartiles over rounds."""
    print(f"{'step':9} {'network':25} {'ms':>9} {'images/s':>9}   times ours (quartiles)")
    for kind, values in seconds.items():
        for i, name in enumerate(names):
            middle = values[:, i].median().item()
            low, half, high = (values[:, i] / values[:, 0]).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
            print(
                f"{kind:9} {name:25} {1000 * middle:9.1f} {batch / middle:9.1f}   {half:.2f} ({low:.2f} to {high:.2f})"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=3, default=(1, 28, 28), help="channels, height, width")
    parser.add_argument("--widths", type=int, nargs="+", default=(32, 64, 64))
    parser.add_argument("--attention", type=int, nargs="*", default=(1, 2), help="levels that attend")
    parser.add_argument("--blocks", type=int, default=2, help="residual blocks a level on the way down")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=1, help="steps a round; more for a fast device")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="bfloat16: by autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile all of them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options}")
    with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bfloat16"):
        entrants = contestants(options)
        x, level = torch.randn(2, *options.size).to(options.device), torch.tensor([1.0, 500.0], device=options.device)
        with torch.no_grad():
            ours, *theirs = (entrant.forward(x, level) for entrant in entrants)
        print(f"largest difference of outputs: {max((other - ours).abs().max().item() for other in theirs):.1e}")
        report([entrant.name for entrant in entrants], race(entrants, options), options.batch)


if __name__ == "__main__":
    main()
