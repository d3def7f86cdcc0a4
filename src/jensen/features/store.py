"""A classifier's folder: weights as safetensors, everything else as JSON; nothing is unpickled.

RUN/features/weights.safetensors    the weights
             features.json          settings, seed, accuracy, the data's fingerprint, SHA-256 of the weights
"""

import hashlib
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save

from jensen.bound import Estimate
from jensen.data.examples import Dataset
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.features.classifier import Classifier
from jensen.features.fit import accuracy
from jensen.features.settings import ClassifierSettings
from jensen.provenance import Provenance, provenance
from jensen.records import Value, write_file

FOLDER, WEIGHTS, RECORD = "features", "weights.safetensors", "features.json"
FORMAT = 1


class ClassifierRecord(Value):
    """The settings, accuracy and provenance of a classifier; JSON both ways."""

    format: int = FORMAT
    settings: ClassifierSettings
    seed: int
    validation: Estimate | None
    """The accuracy on the validation split; None for an empty split."""
    test: Estimate | None
    """The accuracy on the test split."""
    fingerprint: str
    """The fingerprint of the data, as in data.json."""
    preparation: str
    """The preparation whose round trip the raw examples went through before training; binarisation changes them."""
    provenance: Provenance
    """The classifier's weights, and the software and command that trained them."""
    sha256: str = ""
    """SHA-256 of the weights' file."""


def describe(
    classifier: Classifier, dataset: Dataset, settings: ClassifierSettings, seed: int, began: float
) -> ClassifierRecord:
    """The record of a classifier just trained, including its accuracy on the validation and test splits.

    `began` is `time.perf_counter()` at the start of the training.
    """
    spec = dataset.spec
    return ClassifierRecord(
        settings=settings,
        seed=seed,
        validation=accuracy(classifier, dataset.validation, spec.preparation, seed),
        test=accuracy(classifier, dataset.test, spec.preparation, seed),
        fingerprint=spec.fingerprint,
        preparation=spec.preparation.kind,
        provenance=provenance(classifier, None, began),
    )


def save_classifier(run: Path, classifier: Classifier, record: ClassifierRecord) -> Path:
    """Write the classifier into the folder of the run, replacing an earlier one. Returns the classifier's folder."""
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    content = save({name: tensor.contiguous() for name, tensor in classifier.state_dict().items()})
    record = record.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    write_file(folder / WEIGHTS, content)
    write_file(folder / RECORD, record.model_dump_json(indent=1).encode())
    return folder


def load_classifier(run: Path, spec: DataSpec) -> tuple[Classifier, ClassifierRecord]:
    """The classifier in the folder of the run, and its record.

    Raises `InputError` if the run has no classifier, for a damaged file, and for a classifier of data other than
    `spec`.
    """
    folder, advice = run / FOLDER, f"train one with: jensen features train {run}"
    record = _read_record(folder / RECORD, advice)
    compared = (
        ("data", record.fingerprint, spec.fingerprint),
        ("preparation", record.preparation, spec.preparation.kind),
    )
    for what, given, expected in compared:
        if given != expected:
            raise InputError(
                f"{folder} is a classifier for other data ({what} {given}, the run's {expected}); {advice}"
            )
    try:
        content = (folder / WEIGHTS).read_bytes()
        if hashlib.sha256(content).hexdigest() != record.sha256:
            raise InputError(
                f"{folder / WEIGHTS} is truncated or altered: its SHA-256 is not the one recorded; {advice}"
            )
        classifier = Classifier(spec.shape, spec.classes or 0, *(torch.zeros(1),) * 2)
        weights = load(content)
        classifier.shift, classifier.scale = weights["shift"], weights["scale"]
        classifier.load_state_dict(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder / WEIGHTS} cannot be used ({reason}); {advice}") from error
    return classifier.eval(), record


def _read_record(path: Path, advice: str) -> ClassifierRecord:
    if not path.exists():
        raise InputError(f"{path.parent.parent} has no classifier yet, expected {path}; {advice}")
    try:
        record = ClassifierRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} is damaged or of another format; {advice}") from error
    if record.format > FORMAT:
        raise InputError(f"{path} has format {record.format}, this jensen reads up to {FORMAT}; install a newer jensen")
    return record
