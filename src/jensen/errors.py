"""Errors that are for the reader: what was given, what was expected, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """What the user gave cannot be used.

    The message is one line that says what was given, what was expected and what to do. It is raised where the
    input enters; the command line prints it and exits with status 2, never with a traceback.
    """


def out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory ran out: Python's, a CPU allocator's, oneDNN's (in its way) or a GPU's."""
    said = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "could not create a primitive")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


@contextmanager
def within_memory(advice: str, of: str = "") -> Iterator[None]:
    """Within, memory that runs out is an `InputError`: not enough memory `of` what, and the `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"not enough memory{of}; {advice}") from error
