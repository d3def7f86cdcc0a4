"""Initial weights of layers, and the mark for layers that Muon does not train."""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def zeroed(layer: Layer) -> Layer:
    """Set all weights and biases of the layer to zero, so that a residual branch ending in the layer starts as zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def at_the_edge(layer: Layer) -> Layer:
    """The layer, marked as an input, output or conditioning layer: AdamW trains it in place of Muon."""
    layer.edge = True  # type: ignore[assignment]  # read by `jensen.training.state`
    return layer
