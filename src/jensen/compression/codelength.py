"""The length of a compressed file compared with the bound and with other formats: values of a JSON file."""

from jensen.provenance import Provenance
from jensen.records import Value


class Codelength(Value):
    """The size of a compressed file compared with the model's bound and with other formats."""

    source: str
    """Name of the compressed examples."""
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
    provenance: Provenance
    """The weights, software and command that gave the file."""

    @property
    def overhead(self) -> float:
        """The bits of the stack beyond the bound and the initial bits, as a share of the bound."""
        return (self.stack_bits - self.initial_bits) / self.bound_bits - 1

    def per_dimension(self, bits: float) -> float:
        """Convert bits of all examples to bits per dimension."""
        return bits / (self.examples * self.dimensions)
