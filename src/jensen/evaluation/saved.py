"""The files of an evaluation: evaluation.json with the means, scores.npz with a row for every example."""

import io
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from pydantic import ValidationError

from jensen.bound import Estimate
from jensen.errors import InputError
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.scores import Scores
from jensen.records import write_file

MEANS, SCORES, TERM = "evaluation.json", "scores.npz", "term "
COLUMNS = ("index", "bound", "standard_error", "bits_per_dimension", "observed")


def save_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Write evaluation.json and scores.npz into `folder`."""
    scores = evaluation.scores
    assert scores is not None
    columns = {name: getattr(scores, name).numpy() for name in COLUMNS}
    columns |= {TERM + name: values.numpy() for name, values in scores.terms.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    write_file(folder / SCORES, buffer.getvalue())
    write_file(folder / MEANS, evaluation.model_dump_json(indent=1).encode())


def load_evaluation(folder: Path) -> Evaluation:
    """The evaluation that `save_evaluation` wrote; raises `InputError` if there is none, or if it is damaged."""
    again = f"make it with: jensen evaluate {folder}"
    if not (folder / MEANS).exists():
        raise InputError(f"{folder} has not been evaluated: it has no {MEANS}; {again}")
    try:
        evaluation = Evaluation.model_validate_json((folder / MEANS).read_bytes())
        with np.load(folder / SCORES, allow_pickle=False) as file:
            columns = {name: torch.from_numpy(file[name]) for name in file.files}
        terms = {name.removeprefix(TERM): columns.pop(name) for name in list(columns) if name.startswith(TERM)}
        index, bound, error, in_bits, observed = (columns[name] for name in COLUMNS)
        scores = Scores(index, bound, error, in_bits, observed, terms)
    except (ValidationError, OSError, ValueError, TypeError, KeyError, BadZipFile, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the evaluation in {folder} is damaged or of another version ({reason}); {again}") from error
    found, stated = Estimate.of(scores.bound), evaluation.elbo.nats
    if not np.allclose([found.mean, found.count], [stated.mean, stated.count], equal_nan=True):
        raise InputError(f"{SCORES} and {MEANS} in {folder} belong to different evaluations; {again}")
    return evaluation.model_copy(update={"scores": scores})
