"""What activation checkpointing saves and costs: memory kept for the gradient, and the time of a training step.

    python benchmarks/activation_checkpointing.py

Memory is what PyTorch's allocator gave out during the forward pass and had not got back at its end, by its profiler;
time is the best of several gradients. On a CPU, with one thread, images of 3 x 32 x 32.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from jensen.nets import MLP, ConvolutionalDecoder, ConvolutionalEncoder, Levels, PatchTransformer, ResidualMLP, UNet
from jensen.training.memory import recompute_activations

SHAPE, BATCH, REPETITIONS = (3, 32, 32), 32, 5
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "U-Net, 64-64": lambda: UNet(SHAPE, (64, 64), blocks=1, patch=2),
    "transformer, 4 x 128": lambda: PatchTransformer(SHAPE, width=128, depth=4, patch=4),
    "residual MLP, 4 x 512": lambda: ResidualMLP(SHAPE, width=512, depth=4),
    "MLP, 3 x 512, GELU": lambda: MLP(SHAPE, (512, 512, 512), (32,), "gelu"),
    "convolutional encoder": lambda: ConvolutionalEncoder(Levels(SHAPE, (32, 64), patch=2), 32),
    "convolutional decoder": lambda: ConvolutionalDecoder(Levels(SHAPE, (32, 64), patch=2), 16, 2),
}


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'network':<24}{'kept, MB':>12}{'again, MB':>12}{'time':>8}")
    for name, make in NETWORKS.items():
        network = make()
        inputs = _inputs(network)
        kept, seconds = _measured(network, inputs)
        recompute_activations(network)
        less, longer = _measured(network, inputs)
        print(f"{name:<24}{kept / 1e6:>12.2f}{less / 1e6:>12.2f}{longer / seconds:>7.2f}x", flush=True)


def _inputs(network: nn.Module) -> list[Tensor]:
    if isinstance(network, ConvolutionalDecoder):
        return [torch.randn(BATCH, 16)]
    told = [torch.randn(BATCH)] if isinstance(network, UNet | PatchTransformer | ResidualMLP) else []
    return [torch.randn(BATCH, *SHAPE), *told]


def _measured(network: nn.Module, inputs: list[Tensor]) -> tuple[int, float]:
    """Bytes kept after the forward pass, seconds of a gradient."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        output = network(*inputs)
    kept = sum(event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]")
    output.square().mean().backward()
    times = []
    for _ in range(REPETITIONS):
        began = time.process_time()
        network(*inputs).square().mean().backward()
        times.append(time.process_time() - began)
    return kept, min(times)


if __name__ == "__main__":
    main()
