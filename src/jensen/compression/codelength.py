"""How long a file came out, and what that is compared with: values that go into a JSON file, and a table."""

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from rich.table import Table


COLUMNS = ("bytes", "bits per example", "bits/dim", "× the file")


class Codelength(BaseModel):
    """The size of a compressed file against the model's bound and other formats."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings")

    source: str
    """Which examples."""
    weights: int
    """The training step that the model's weights are from."""
    examples: int
    dimensions: int
    """Numbers in one example."""
    steps: int | None
    """Of the chain; None where there is none."""
    file_bytes: int
    stack_bits: int
    """The file without header and checksum."""
    initial_bits: int
    """Of the stack: what the first draws were made from, and carries nothing."""
    bound_bits: float
    """Minus the bound of all examples, given the very draws that they were coded by."""
    overhead_error: float
    """The standard error of the overhead, as a share of the bound: the draws make it vary. NaN of one example."""
    batches: int
    """Of examples that went through the network together."""
    seconds: float
    """Of compressing."""
    seconds_back: float | None
    """Of decompressing to see that it gives the data back; None where that was left out."""
    others: dict[str, int]
    """Bytes of the same examples in other formats."""

    @property
    def overhead(self) -> float:
        """How much longer the stack is than the bound and the initial bits say, as a share of the bound."""
        return (self.stack_bits - self.initial_bits) / self.bound_bits - 1

    def per_dimension(self, bits: float) -> float:
        """Bits per dimension of bits of all examples."""
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
