"""The length of a compressed file, and what it is compared with: values that go into a JSON file."""

from pydantic import BaseModel, ConfigDict


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
