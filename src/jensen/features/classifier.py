"""A small classifier of raw examples: the last hidden layer gives features, the output gives the label."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from jensen.bound import Estimate
from jensen.errors import InputError
from jensen.evaluation.scores import at_once
from jensen.nets import MLP

FEATURES = 128
COARSEST = 4  # pixels; convolutions halve an image until both sides are at most this
WIDTHS = 16, 128  # channels of the first convolution, and the maximum number of channels
ROWS = 500  # maximum number of examples at a time; changes memory and speed only


class Classifier(nn.Module):
    """Maps raw values (batch, *shape) of any type to logits (batch, classes).

    Raw data or raw samples are first scaled to (raw - shift) / scale. Images (C, H, W) of any size go through
    convolutions, all other shapes through an MLP. Raises `InputError` for fewer than two classes.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shape: Sequence[int], classes: int, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        if classes < 2:
            raise InputError(f"a classifier of {classes} label: expected at least 2; give data with more labels")
        self.shape, self.classes = tuple(shape), classes
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)
        self.body = _Convolutions(shape) if len(shape) == 3 else MLP(shape, (2 * FEATURES,), (FEATURES,), "relu")
        self.head = nn.Linear(FEATURES, classes)

    def scaled(self, raw: Tensor) -> Tensor:
        """The input of the network, float32: (raw - shift) / scale."""
        wide = raw if raw.dtype == torch.float64 else raw.to(torch.float32)
        return ((wide - self.shift) / self.scale).to(torch.float32)

    def features(self, scaled: Tensor) -> Tensor:
        """The features (batch, 128) of scaled examples; no feature is negative."""
        return F.relu(self.body(scaled))

    def forward(self, raw: Tensor) -> Tensor:
        return self.head(self.features(self.scaled(raw)))


class _Convolutions(nn.Module):
    """(batch, C, H, W) -> (batch, 128): a 3x3 convolution of stride 1, then halvings, then a linear layer.

    A halving is a 3x3 convolution of stride 2, which rounds up; batch normalisation and ReLU follow each convolution.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        halvings = max(0, math.ceil(math.log2(max(shape[1:]) / COARSEST)))
        widths = [min(WIDTHS[0] * 2 ** max(0, depth - 1), WIDTHS[1]) for depth in range(halvings + 1)]
        channels = [shape[0], *widths]
        layers: list[nn.Module] = []
        for depth, width in enumerate(widths):
            stride = 1 if depth == 0 else 2
            layers.append(nn.Conv2d(channels[depth], width, 3, stride=stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        height, width = (-(-side // 2**halvings) for side in shape[1:])
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1] * height * width, FEATURES))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


# ---------------------------------------------------------------------------------------------- features and labels


@torch.no_grad()
def features(classifier: Classifier, raw: Tensor | np.ndarray) -> Tensor:
    """The features (count, 128) of raw examples or samples (count, *shape).

    Raises `InputError` for examples whose shape is not the classifier's, and for an empty set.
    """
    raw = torch.as_tensor(raw)
    if raw.shape[1:] != classifier.shape or not len(raw):
        raise InputError(
            f"examples of shape {tuple(raw.shape)} for a classifier of {classifier.shape}: expected (count, "
            f"{', '.join(map(str, classifier.shape))}), count at least 1; give raw examples of the classifier's data"
        )
    size = at_once(ROWS, WIDTHS[0] * math.prod(classifier.shape))
    return torch.cat([classifier.features(classifier.scaled(rows)) for rows in raw.split(size)])


@torch.no_grad()
def recognised(classifier: Classifier, features: Float[Tensor, " count features"]) -> Int[Tensor, " count"]:
    """The most probable label of each example, from the features of the example."""
    return classifier.head(features).argmax(1)


def recognition(classifier: Classifier, samples: Tensor | np.ndarray, labels: Tensor) -> Estimate:
    """The share of raw samples (count, *shape) whose requested label (count) the classifier recognises.

    The standard error is by `Estimate.share`. Mistakes of the classifier lower the share. Raises `InputError` for
    samples of another shape.
    """
    return agreement(recognised(classifier, features(classifier, samples)), labels)


def agreement(found: Int[Tensor, " count"], asked: Int[Tensor, " count"]) -> Estimate:
    """The share of labels in `found` that equal the labels in `asked`."""
    return Estimate.share(found == asked.to(found.device))
