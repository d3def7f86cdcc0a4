"""Errors for the user: each message says what was given, what was expected and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """The user's input cannot be used.

    The message is one line: what was given, what was expected, what to do. The error is raised where the input enters.
    The command line prints the message and exits with status 2, without a traceback.
    """


class AbsentColumnError(InputError):
    """Data lack the column, array or file that a data option names; `option` is the option's name."""

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message)
        self.option = option


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` reports that memory ran out: in Python, in a CPU allocator, in oneDNN or on a GPU."""
    # For the CPU, PyTorch raises a plain RuntimeError; only its text tells this error from others. "could not create a
    # primitive" is oneDNN's message.
    said = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "could not create a primitive")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


@contextmanager
def within_memory(advice: str, of: str = "") -> Iterator[None]:
    """Turn an out-of-memory error inside the block into an `InputError`: "not enough memory{of}; {advice}"."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise InputError(f"not enough memory{of}; {advice}") from error
