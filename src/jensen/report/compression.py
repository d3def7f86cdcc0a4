"""The sizes of a compressed file as a terminal table, and as a section of a report."""

import math
from typing import TYPE_CHECKING

from jensen.compression.codelength import Codelength
from jensen.data.examples import counted
from jensen.report.render import Section

if TYPE_CHECKING:
    from rich.table import Table

RECORD = "compression.json"  # in the run's folder, for its report
COLUMNS = ("bytes", "bits per example", "bits/dim", "× the file")


def codelength_table(found: Codelength) -> "Table":
    """One row for the file, for each part of the file, and for every other format."""
    from rich import box
    from rich.table import Table

    shown = Table(box=box.SIMPLE, title=codelength_title(found), title_justify="left", padding=(0, 1, 0, 0))
    for header in ("", *COLUMNS):
        shown.add_column(header, justify="right" if header else "left", no_wrap=True)
    made_of, others = codelength_rows(found)
    for name, cells in made_of.items():
        shown.add_row(name, *cells)
    shown.add_section()
    for name, cells in others.items():
        shown.add_row(name, *cells)
    return shown


def codelength_title(found: Codelength) -> str:
    """The title of the table: the number and source of the examples, and the length of the chain."""
    chain = "" if found.steps is None else f", chain of {found.steps} steps"
    return f"{counted(found.examples)} of {found.source}{chain}"


def codelength_rows(found: Codelength) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """A row of `COLUMNS` for the file, for each part of the file, and for every other format."""
    excess = found.stack_bits - found.initial_bits - found.bound_bits
    spread = f" ± {100 * found.overhead_error:.2f}" if math.isfinite(found.overhead_error) else ""  # none of 1 batch
    parts = {
        "the file": 8.0 * found.file_bytes,
        "  bound": found.bound_bits,
        f"  overhead, {100 * found.overhead:z.2f}{spread} %": excess,
        "  initial bits": found.initial_bits,
        "  header and checksum": 8.0 * found.file_bytes - found.stack_bits,
    }
    made_of = {name: _cells(found, bits) for name, bits in parts.items()}
    return made_of, {name: _cells(found, 8.0 * size) for name, size in found.others.items()}


def _cells(found: Codelength, bits: float) -> list[str]:
    per_dimension = f"{found.per_dimension(bits):z.4f}"
    return [f"{bits / 8:z,.0f}", f"{bits / found.examples:z,.1f}", per_dimension, f"{bits / 8 / found.file_bytes:z.2f}"]


def compression_section(found: Codelength) -> Section:
    """The sizes of a compressed file as a section of a report."""
    made_of, others = codelength_rows(found)
    return Section(
        "Compression",
        "compression",
        {"title": codelength_title(found), "heads": COLUMNS, "rows": {**made_of, **others}},
    )
