"""Examples in docstrings become blocks of code in the reference."""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.S | re.M)
SECTION = re.compile(r"\A(\d)\. ")  # "1. Probability": a section of the lecture, and no list


class Doctests(griffe.Extension):
    """Fence each example of a docstring: from `>>>` to the next empty line."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object, if it has any."""
        if obj.docstring:
            text = EXAMPLE.sub(lambda example: f"```pycon\n{example[0]}\n```", obj.docstring.value)
            obj.docstring.value = SECTION.sub(r"\1\\. ", text)
