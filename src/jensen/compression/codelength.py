"""How long a file came out, and what that is compared with: values that go into a JSON file, and a table."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from rich.table import Table


COLUMNS = ("bytes", "bits per example", "bits/dim", "× the file")


class Codelength(BaseModel):
    """The size of a compressed file compared with the model's bound and with other formats."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings")

    source: str
    """Name of the compressed examples."""
    weights: int
    """Training step of the model's weights."""
    examples: int
    dimensions: int
    """Numbers in one example."""
    steps: int | None
    """Steps of the diffusion model's chain; None for other models."""
    file_bytes: int
    stack_bits: int
    """Bits of the file without header and checksum."""
    initial_bits: int
    """Bits in the stack at the start: the source of the first draws; they carry no data."""
    bound_bits: float
    """Minus the bound of all examples together, for the draws with which they were coded."""
    overhead_error: float
    """Standard error of `overhead` over the random draws, as a share of the bound; NaN for a single batch."""
    batches: int
    """Number of batches."""
    seconds: float
    """Time for compression."""
    seconds_back: float | None
    """Time for the check that decompression restores the data; None if the check was left out."""
    others: dict[str, int]
    """Size of the same examples in other formats, in bytes."""

    @property
    def overhead(self) -> float:
        """The bits of the stack beyond the bound and the initial bits, as a share of the bound."""
        return (self.stack_bits - self.initial_bits) / self.bound_bits - 1

    def per_dimension(self, bits: float) -> float:
        """Convert bits of all examples to bits per dimension."""
        return bits / (self.examples * self.dimensions)


def codelength_table(found: Codelength) -> "Table":
    """A row for the file, for what it is made of, and for every other format."""
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
    """What was compressed, and by how long a chain."""
    chain = "" if found.steps is None else f", chain of {found.steps} steps"
    return f"{found.examples:,} examples of {found.source}{chain}"


def codelength_rows(found: Codelength) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """A row of `COLUMNS` for the file and each of its parts, and one for every other format."""
    excess = found.stack_bits - found.initial_bits - found.bound_bits
    parts = {
        "the file": 8.0 * found.file_bytes,
        "  bound": found.bound_bits,
        f"  overhead, {100 * found.overhead:z.2f} ± {100 * found.overhead_error:.2f} %": excess,
        "  initial bits": found.initial_bits,
        "  header and checksum": 8.0 * found.file_bytes - found.stack_bits,
    }
    made_of = {name: _cells(found, bits) for name, bits in parts.items()}
    return made_of, {name: _cells(found, 8.0 * size) for name, size in found.others.items()}


def _cells(found: Codelength, bits: float) -> list[str]:
    per_dimension = f"{found.per_dimension(bits):z.4f}"
    return [f"{bits / 8:z,.0f}", f"{bits / found.examples:z,.1f}", per_dimension, f"{bits / 8 / found.file_bytes:z.2f}"]
