"""The run-time type checker that `conftest` puts around the mathematics while it is under test."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int may stand where a float is asked for, as for mypy


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, its arguments and result checked against their annotations by beartype.

    jaxtyping hands methods over one at a time, outside their class, where beartype cannot know what `Self` is: a method
    that speaks of `Self` stays as it was.
    """
    try:
        return _check(function)
    except BeartypeDecorHintPep673Exception:
        return function
