"""The law of one column of a table: the kind of distribution of its cells, and the number of outputs it takes."""

from dataclasses import dataclass

from jensen.monotone import Curve


@dataclass(frozen=True)
class Codes:
    """x is a code 0, ..., levels - 1; the codes have no order, and a softmax gives each its own probability (4.10).

    With `missing`, one more output is the logit of p(missing), and x = NaN is one more possible value (4.14).
    """

    levels: int
    missing: bool = False

    @property
    def outputs(self) -> int:
        """Decoder outputs, without that of `missing`: a logit for each code."""
        return self.levels


@dataclass(frozen=True)
class Whole:
    """x in 0, ..., levels - 1 with distances: a mixture of logistic laws of T(x), integrated over the bins (4.11).

    `curve` is T, fitted to the data: the bins of equal width in x have about equal probability in T where data are.
    """

    levels: int
    curve: Curve
    components: int = 5
    missing: bool = False

    @property
    def outputs(self) -> int:
        """Decoder outputs, without that of `missing`: weight, location and scale of each component."""
        return 3 * self.components


@dataclass(frozen=True)
class Count:
    """x in 0, 1, 2, ...: a negative binomial law with additional zeros (4.12). `mean` is about the mean of the data."""

    mean: float = 1.0
    missing: bool = False

    @property
    def outputs(self) -> int:
        """Decoder outputs, without that of `missing`: log mean, log of the number of failures, logit of a zero."""
        return 3


@dataclass(frozen=True)
class Real:
    """x in R: point masses at `atoms` beside a mixture of normal laws, whose scales are at least `floor` (4.13).

    `atoms` are values of x in ascending order, exactly representable in float32.
    """

    atoms: tuple[float, ...] = ()
    components: int = 5
    floor: float = 1e-3
    missing: bool = False

    @property
    def outputs(self) -> int:
        """Decoder outputs, without that of `missing`: a logit for each atom; weight, mean and scale of components."""
        return len(self.atoms) + 3 * self.components


Law = Codes | Whole | Count | Real
