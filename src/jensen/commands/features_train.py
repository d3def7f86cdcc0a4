"""`jensen features train`: train a classifier on the run's own data; its features compare samples with data."""

import time
from typing import TYPE_CHECKING

from pydantic import NonNegativeInt

from jensen.commands.common import Command, RunFolder
from jensen.features.settings import ClassifierSettings

if TYPE_CHECKING:
    from jensen.features.store import ClassifierRecord
    from jensen.run import Run


class FeaturesTrain(Command):
    """Train a small classifier, whose features measure distances."""

    run: RunFolder
    """The folder of the run. An earlier classifier in it is replaced."""
    seed: NonNegativeInt = 0
    """The seed of the classifier's training."""
    settings: ClassifierSettings = ClassifierSettings()

    def execute(self) -> None:
        """Train the classifier, save it in the run, print its accuracy."""
        from jensen.run import opened

        run = opened(self.run)
        show(run, features_train(run, self.settings, seed=self.seed))
        print(f"Next: jensen features distance {run.folder}")


def features_train(run: "Run", settings: ClassifierSettings | None = None, *, seed: int = 0) -> "ClassifierRecord":
    """Train a classifier on the run's training examples, save it in the run's folder, and return its record.

    Raises `InputError` for data without labels.
    """
    from jensen.features.fit import train_classifier
    from jensen.features.store import describe, save_classifier

    settings, dataset, began = settings or ClassifierSettings(), run.dataset, time.perf_counter()
    classifier = train_classifier(dataset, settings, seed)
    record = describe(classifier, dataset, settings, seed, began)
    save_classifier(run.folder, classifier, record)
    return record


def show(run: "Run", record: "ClassifierRecord") -> None:
    """Print the classifier's accuracy and its folder."""
    from jensen.data.examples import counted
    from jensen.features.store import FOLDER

    for name, share in (("validation", record.validation), ("test", record.test)):
        if share:
            error = 100 * share.standard_error
            print(f"{name} accuracy {100 * share.mean:.2f} ± {error:.2f} % of {counted(share.count)}")
    print(f"{run.folder / FOLDER} written after {record.provenance.seconds:.0f} s")
