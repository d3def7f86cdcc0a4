"""The limits of a server. Imports no torch."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """The limits of a server; a request beyond one of them is refused before any work."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    queue: int = Field(256, ge=1)
    """The most requests that wait; a further request gets status 429."""
    deadline: float = Field(60.0, gt=0)
    """The seconds after which a request gets status 504."""
    max_bytes: int = Field(16 << 20, ge=1024)
    """The most bytes of the body of a request."""
    max_examples: int = Field(1024, ge=1)
    """The most examples of a request or of its answer."""
    max_numbers: int = Field(1 << 22, ge=1024)
    """The most numbers of a request or of its answer."""

    @property
    def numbers_held(self) -> int:
        """The most numbers that all requests and their answers hold together."""
        return 8 * self.max_numbers
