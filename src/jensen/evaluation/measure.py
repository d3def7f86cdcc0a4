"""A mean with a standard error, in nats and in bits, and as text."""

import math
from collections.abc import Mapping

from jensen.bound import Estimate
from jensen.records import Value

Groups = Mapping[str, Mapping[str, "Measure"]]  # the rows of a table under their headings


class Measure(Value):
    """A mean over examples with its standard error, in nats and in bits per dimension."""

    nats: Estimate
    """Nats per example of the raw data."""
    bits_per_dimension: Estimate
    """Bits per observed value of the raw data: the cost of a bound or term, or the absolute value of a difference."""


def doubts(estimates: Mapping[str, Estimate | Measure]) -> list[str]:
    """A sentence for each reason not to trust a standard error, with the names of its estimates; see `Estimate.doubt`.

    The bits of a `Measure` are named only if their doubt differs from that of the nats, as examples with missing values
    may make it.

    >>> doubts({"loss": Estimate(2.0, float("nan"), 1), "share": Estimate(0.5, 0.1, 25)})
    ['loss: one value: its error is unknown']
    """
    names: dict[str, list[str]] = {}
    for name, found in estimates.items():
        nats, bits = (found.nats, found.bits_per_dimension) if isinstance(found, Measure) else (found, found)
        if nats.doubt:
            names.setdefault(nats.doubt, []).append(name)
        if bits.doubt and bits.doubt != nats.doubt:
            names.setdefault(bits.doubt, []).append(f"{name}, in bits")
    return [f"{', '.join(those)}: {doubt}" for doubt, those in names.items()]


def aligned(estimates: list[Estimate]) -> list[str]:
    """Estimates as text, to two digits of the standard error, padded so that the ± signs are aligned.

    >>> aligned([Estimate(-123.456, 0.234, 10), Estimate(7.0, 1.5, 10)])
    ['-123.46 ± 0.23', '   7.0  ± 1.5']
    """
    texts = [written(estimate) for estimate in estimates]
    before = [text.split(" ± ")[0].partition(".") for text in texts]
    whole = max(len(left) for left, _, _ in before)
    rest = max(len(point + right) for _, point, right in before)
    return [
        f"{left:>{whole}}{point + right:<{rest}} ± {text.split(' ± ')[1]}"
        for text, (left, point, right) in zip(texts, before, strict=True)
    ]


def written(estimate: Estimate) -> str:
    """An estimate as text: the standard error to two significant digits, and the mean to the same place.

    With one example the standard error is NaN.

    >>> written(Estimate(-123.456, 0.0234, 10))
    '-123.456 ± 0.023'
    """
    error = estimate.standard_error
    if not (math.isfinite(error) and math.isfinite(estimate.mean)):
        return f"{estimate.mean:.4f} ± {error:.2g}"
    digits = max(1 - math.floor(math.log10(error)), 0) if error > 0 else 4
    if digits > 5:
        return f"{estimate.mean:.2e} ± {error:.1e}"
    return f"{estimate.mean:z.{digits}f} ± {error:.{digits}f}"


def typeset(estimate: Estimate) -> str:
    """The text of `written` with a proper minus sign, for a page."""
    return written(estimate).replace("-", "−")
