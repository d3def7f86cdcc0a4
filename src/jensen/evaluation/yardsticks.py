"""Yardsticks for bits per dimension: the cost of the same test examples under simple models and in PNG."""

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from jensen.bound import Estimate
from jensen.compression.others import png_bytes, sheet
from jensen.data.examples import Examples
from jensen.data.preparation import Dequantise, Levels, Preparation, Standardise
from jensen.data.table_preparation import TablePreparation
from jensen.evaluation.columns import FITTED as FITTED_ROWS
from jensen.evaluation.columns import IndependentColumns
from jensen.evaluation.scores import Scores, at_once, prepare, spread
from jensen.records import Value

MEASURED, FITTED = 1000, 10_000  # maximum numbers of test and training examples
CELLS = 1 << 24  # maximum number of cells of all histograms together


class Yardsticks(Value):
    """Bits per dimension of the raw data, or nats per row of a table; None without such a yardstick for the data."""

    uniform: float | None = None
    """log2 of the number of levels: every value equally likely."""
    independent: Estimate | None = None
    """A model whose dimensions are independent, fitted on training examples."""
    independent_nats: Estimate | None = None
    """Tables: log p of a model whose columns are independent, in nats per row."""
    png: float | None = None
    """One optimised PNG of all the measured images side by side."""
    examples: int
    """Number of measured test examples, spread evenly."""
    fitted: int
    """Number of training examples to which `independent` was fitted, spread evenly."""


def yardsticks(
    train: Examples | None, examples: Examples, preparation: Preparation, scores: Scores, seed: int
) -> Yardsticks:
    """The yardsticks for the test examples in `scores`; without `train` there is no independent model.

    The independent model is a histogram per dimension for integers, and a normal distribution per dimension for floats.
    Floats have no levels and therefore no uniform model and no PNG; floats with missing values have no yardstick. The
    independent model of a table is `IndependentColumns`.
    """
    index = scores.index[spread(len(scores.index), MEASURED)]
    fitted = torch.arange(0) if train is None else spread(len(train), FITTED)
    counts = {"examples": len(index), "fitted": len(fitted)}
    if isinstance(preparation, TablePreparation):
        return _of_table(train, examples, preparation, index)
    if isinstance(preparation, Standardise):
        test = prepare(preparation, examples.x[index], index, seed)
        return Yardsticks(independent=_normal(train, fitted, test, preparation, seed), **counts)
    levels = _levels(preparation)
    symbols = _symbols(examples, index, preparation, seed)
    independent = None
    if train is not None and len(fitted) and preparation.dimensions * levels <= CELLS:
        histograms = torch.zeros(preparation.dimensions, levels, dtype=torch.float64)
        for rows in fitted.split(at_once(len(fitted), preparation.dimensions)):
            histograms += histogram(_symbols(train, rows, preparation, seed).flatten(1), levels)
        independent = Estimate.of(independent_bits(symbols.flatten(1), histograms))
    return Yardsticks(uniform=math.log2(levels), independent=independent, png=_png(symbols, levels), **counts)


def _of_table(train: Examples | None, examples: Examples, preparation: TablePreparation, index: Tensor) -> Yardsticks:
    if train is None:
        return Yardsticks(examples=len(index), fitted=0)
    alone = IndependentColumns.fit(train, preparation).log_prob(examples.x[index]).sum(1)
    return Yardsticks(independent_nats=Estimate.of(alone), examples=len(index), fitted=min(len(train), FITTED_ROWS))


def _levels(preparation: Preparation) -> int:
    """The number of levels that the model sees; two for binarised data."""
    return (preparation.levels or 2) if isinstance(preparation, Levels | Dequantise) else 2


def _symbols(examples: Examples, index: Tensor, preparation: Preparation, seed: int) -> Int[Tensor, " count *shape"]:
    """The levels of the examples whose indices are in `index`."""
    raw = examples.x[index]
    return (raw if isinstance(preparation, Levels | Dequantise) else prepare(preparation, raw, index, seed)).long()


def histogram(symbols: Int[Tensor, " count dims"], levels: int) -> Float[Tensor, " dims levels"]:
    """The count of each level in each dimension, float64."""
    dims = symbols.shape[1]
    cells = symbols + levels * torch.arange(dims)
    return torch.bincount(cells.flatten(), minlength=dims * levels).view(dims, levels).double()


def independent_bits(
    symbols: Int[Tensor, " count dims"], histograms: Float[Tensor, " dims levels"]
) -> Float[Tensor, " count"]:
    """Bits per dimension of each example under p(x) = prod_d p_d(x_d), where p_d smooths the histogram of dimension d.

    p_d(v) = (n_d(v) + p(v)) / (n + 1) with p(v) = (Σ_d n_d(v) + 1) / (n D + L), where n_d(v) counts level v in
    dimension d of n training examples with D dimensions and L levels. So p(v), from all dimensions together, has the
    weight of one example, and no level has probability zero. Every p_d sums to one.
    """
    examples = histograms.sum(1, keepdim=True)
    shared = (histograms.sum(0) + 1) / (histograms.sum() + histograms.shape[1])
    bits = -((histograms + shared) / (examples + 1)).log2()
    return bits.gather(1, symbols.T).mean(0)


def _normal(
    train: Examples | None, fitted: Tensor, test: Tensor, preparation: Preparation, seed: int
) -> Estimate | None:
    """Independent normal distributions; a dimension that is constant in training keeps the preparation's scale."""
    if train is None or len(fitted) < 2:
        return None
    x = prepare(preparation, train.x[fitted], fitted, seed).flatten(1).double()
    if not (x.isfinite().all() and test.isfinite().all()):
        return None
    scale = x.std(0)
    scale = torch.where(scale > 0, scale, 1.0)
    nats = torch.distributions.Normal(x.mean(0), scale).log_prob(test.flatten(1).double()).sum(1)
    return Estimate.of(-(nats + preparation.log_volume) / (preparation.dimensions * math.log(2)))


def _png(symbols: Int[Tensor, " count *shape"], levels: int) -> float | None:
    """Bits per dimension of one PNG; None unless the data are 8-bit images with one or three channels."""
    if symbols.ndim != 4 or symbols.shape[1] not in (1, 3) or levels > 256 or not len(symbols):
        return None
    images = np.moveaxis(symbols.numpy().astype(np.uint8), 1, -1)
    return 8 * png_bytes(sheet(images), levels) / symbols.numel()
