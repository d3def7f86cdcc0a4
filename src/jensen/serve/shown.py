"""Test examples that the server shows to visitors without data of their own, if it may."""

from contextlib import suppress
from functools import partial
from typing import Any

import torch

from jensen.data.examples import Examples, Names
from jensen.errors import InputError
from jensen.evaluation.scores import spread
from jensen.run import Run
from jensen.serve.answers import Answer, base64_pictures, brightness, of_values
from jensen.serve.asks import AskExample
from jensen.serve.problems import Problem
from jensen.serve.served import Served

MOST = 100  # test examples that are held for each run


def shown_examples(run: Run) -> Examples | None:
    """Up to `MOST` test examples of a run, evenly spread; None if its data are gone."""
    with suppress(InputError):
        examples = run.examples()
        rows = spread(len(examples), MOST)
        labels = None if examples.labels is None else examples.labels[rows]
        return Examples(examples.x[rows], labels, names=Names(examples.names.name, examples.names.rows[rows]))
    return None


def examples(served: Served, ask: AskExample) -> Answer:
    """The examples first..first+n-1 of those shown; after the last comes the first. Raises `Problem` if none are."""
    if served.shown is None:
        raise Problem(
            404, f"/examples of {served.name}", "a run with test examples, on a server that may show them",
            "send your own examples, or start the server with --examples",
        )  # fmt: skip
    count = len(served.shown)
    rows = (ask.first + torch.arange(ask.n)) % count
    raw, spec = served.shown.x[rows].numpy(), served.run.spec
    fields: dict[str, Any] = {"examples": [served.shown.names[row] for row in rows.tolist()], "of": count}
    if served.shown.labels is not None:
        fields["labels"] = [spec.label_name(label) for label in served.shown.labels[rows].tolist()]
    if served.table is not None:
        return of_values(raw, None, served, fields, png=False)
    pictures = partial(brightness, raw, served) if spec.pictured else None
    if ask.png and pictures is not None:
        fields["png"] = base64_pictures(pictures())
    return Answer({"x": raw, **fields}, array=raw, pictures=pictures)
