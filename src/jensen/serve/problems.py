"""Errors of a request: one JSON object says what was given, what was expected and what to do. Imports no torch."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jensen.errors import InputError

LONGEST = 400  # characters of a sentence in an answer; a client's own words are cut
NOWHERE: Mapping[str, str] = {}


@dataclass
class Problem(Exception):  # noqa: N818  # a problem of the request, not of the server
    """An error of a request with its HTTP status."""

    status: int
    given: str
    expected: str
    do: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """The answer: `{"error": {"given": ..., "expected": ..., "do": ...}}`."""
        return {"error": {"given": _cut(self.given), "expected": _cut(self.expected), "do": _cut(self.do)}}


def problem_of(error: InputError, secrets: Iterable[tuple[str, str]] = (), status: int = 422) -> Problem:
    """The problem of a user's mistake, whose message is "given: expected; what to do".

    `secrets` are paths of the machine, each with the word that stands for it in an answer.
    """
    message = " ".join(str(error).split())
    for path, word in secrets:
        message = message.replace(path, word)
    rest, _, advice = message.rpartition("; ")
    if not rest:
        rest, advice = message, "correct the request"
    given, sign, expected = rest.partition(", expected ")
    if not sign:
        given, sign, expected = rest.partition(": expected ")
    if not sign:
        given, _, expected = rest.partition(": ")
    return Problem(status, given, expected or "a request that this run can answer", _without_flags(advice))


def _without_flags(advice: str) -> str:
    """Advice for a client, who has fields where the command line has flags."""
    return re.sub(r"--([a-z][a-z-]*)", lambda flag: flag[1].replace("-", "_"), advice)


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]} ..."
