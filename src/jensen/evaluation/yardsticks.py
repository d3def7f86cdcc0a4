"""Yardsticks for bits per dimension: what simple models and file formats need for the same test examples."""

from jensen.bound import Estimate
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.scores import Scores
from jensen.records import Value


class Yardsticks(Value):
    """Bits per dimension of the raw data by name, each None where it does not exist for such data."""

    uniform: float | None = None
    """log2 of the number of levels: every value equally likely."""
    independent: Estimate | None = None
    """A model in which all dimensions are independent, fitted on training examples."""
    png: float | None = None
    """One optimised PNG file for each image."""
    examples: int
    """Number of test examples that were measured, spread evenly."""
    fitted: int
    """Number of training examples that the independent dimensions were fitted on, spread evenly."""


def yardsticks(
    train: Examples | None, examples: Examples, preparation: Preparation, scores: Scores, seed: int
) -> Yardsticks:
    """The yardsticks for the test examples that `scores` has; without `train` there are no independent dimensions."""
    raise NotImplementedError
