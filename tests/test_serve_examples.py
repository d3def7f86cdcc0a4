"""Test examples for visitors: those of the test split, in the units of the data, and only where the server may."""

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from serving import runs

from jensen.evaluation.scores import spread
from jensen.serve.asks import AskExample
from jensen.serve.problems import Problem
from jensen.serve.served import Served
from jensen.serve.server import Address
from jensen.serve.shown import MOST, examples, shown_examples


@pytest.fixture(scope="module")
def pictures() -> Served:
    run = runs()[0]
    return Served("pictures", run, shown=shown_examples(run))


def test_pictures_are_those_of_the_test_split_one_after_the_other(pictures: Served) -> None:
    test = pictures.run.examples()
    rows = spread(len(test), MOST).tolist()
    answer = examples(pictures, AskExample(n=3, first=MOST - 1, png=True))
    expected = [rows[-1], rows[0], rows[1]]
    assert np.array_equal(answer.fields["x"], test.x[expected])
    assert answer.fields["examples"] == [test.names[row] for row in expected]
    assert answer.fields["labels"] == [str(label) for label in test.labels[expected].tolist()]
    assert answer.fields["of"] == MOST
    seen = [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in answer.fields["png"]]
    assert np.array_equal(seen, np.rint(test.x[expected, 0].numpy() / 16 * 255))


def test_rows_of_a_table_have_the_cells_of_its_file() -> None:
    run = runs()[1]
    answer = examples(Served("people", run, shown=shown_examples(run)), AskExample(n=5))
    lines = answer.content("text/csv", grid=True).decode().splitlines()
    with open(run.spec.source) as file:
        source = file.read().splitlines()
    assert lines[0] == source[0]
    assert set(lines[1:]) < set(source)
    assert len(lines) == 6


def test_without_test_examples_there_is_one_line(pictures: Served) -> None:
    gone = replace(pictures.run, spec=pictures.run.spec.model_copy(update={"source": "memory"}))
    for run in (pictures.run, gone):
        with pytest.raises(Problem, match=r"404") as problem:
            examples(Served("pictures", run, shown=shown_examples(gone)), AskExample())
        assert problem.value.do == "send your own examples, or start the server with --examples"


def test_examples_are_shown_beyond_this_machine_only_if_that_is_asked_for() -> None:
    there = Address("0.0.0.0", token=b"a-token-of-the-tests")
    assert Address().shows_examples(None)
    assert not Address().shows_examples(False)
    assert not there.shows_examples(None)
    assert there.shows_examples(True)
