"""A mean with its standard error, in nats and in bits, and its text."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jensen.bound import Estimate
from jensen.records import Value

if TYPE_CHECKING:
    from rich.table import Table

Groups = Mapping[str, Mapping[str, "Measure"]]  # the rows of a table under their headings


class Measure(Value):
    """A mean over examples with its standard error, twice."""

    nats: Estimate
    """Per example of the raw data."""
    bits_per_dimension: Estimate
    """Per observed number of the raw data: the cost of a bound or of a term, the size of a difference."""


def aligned(estimates: list[Estimate]) -> list[str]:
    """Estimates as text, to two digits of the standard error, padded so that every ± stands below the other.

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
    """An estimate to two digits of its standard error, which is NaN for a single example.

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
    """The same with a proper minus sign, for a page."""
    return written(estimate).replace("-", "−")


def measures_table(title: str, groups: Groups, remarks: Sequence[str]) -> "Table":
    """Measures for a terminal: nats per example and bits per dimension, each ± its standard error."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, title=Text(title), title_justify="left", caption_justify="left")
    shown.add_column("", max_width=34, overflow="fold")  # names fold where the terminal is narrow, numbers never
    for header in ("nats per example", "bits per dimension"):
        shown.add_column(header, no_wrap=True, min_width=max(len(header), 16))
    for heading, rows in groups.items():
        nats = aligned([measure.nats for measure in rows.values()])
        in_bits = aligned([measure.bits_per_dimension for measure in rows.values()])
        shown.add_row(Text(heading, style="bold"))
        for name, *cells in zip(rows, nats, in_bits, strict=True):
            shown.add_row(Text(f"  {name}"), *cells)
        shown.add_section()
    shown.caption = Text("\n".join(remarks), style="not dim not italic")
    return shown
