"""How layers start, and which of them are no hidden matrices."""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def zeroed(layer: Layer) -> Layer:
    """The layer with weights and biases of zero: what it feeds starts as if it were not there."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def at_the_edge(layer: Layer) -> Layer:
    """The layer, marked as one that reads the data, writes the output or conditions: Muon leaves it to AdamW."""
    layer.edge = True  # type: ignore[assignment]  # read by `jensen.training.loop`
    return layer
