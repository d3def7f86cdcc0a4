"""Features: a small classifier of the run's own data, and what sets of features say of samples.

Reading order: `settings`, `classifier` (the network, its features, what it recognises), `fit` (how it is trained),
`store` (its folder), `jackknife` (intervals), `frechet_distance`, `distance` (samplers against steps), `show` (their
table and picture); `neighbours`, `two_sample`, `precision_recall`, `copies`, `sample_metrics` (all of them at once),
`show_samples`.
Names are imported when first used, so that `jensen.features.settings` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.features.classifier import Classifier, features, recognition
    from jensen.features.copies import Memorisation, Nearest, memorisation
    from jensen.features.fit import shown, train_classifier
    from jensen.features.frechet_distance import frechet
    from jensen.features.precision_recall import Fidelity, fidelity
    from jensen.features.sample_metrics import check_samples
    from jensen.features.settings import ClassifierSettings
    from jensen.features.store import load_classifier, save_classifier
    from jensen.features.two_sample import KernelTest, kernel_test, sliced_wasserstein

__all__ = [
    "Classifier",
    "ClassifierSettings",
    "Fidelity",
    "KernelTest",
    "Memorisation",
    "Nearest",
    "check_samples",
    "features",
    "fidelity",
    "frechet",
    "kernel_test",
    "load_classifier",
    "memorisation",
    "recognition",
    "save_classifier",
    "shown",
    "sliced_wasserstein",
    "train_classifier",
]

_HOMES = {
    "Classifier": "classifier",
    "ClassifierSettings": "settings",
    "Fidelity": "precision_recall",
    "KernelTest": "two_sample",
    "Memorisation": "copies",
    "Nearest": "copies",
    "check_samples": "sample_metrics",
    "features": "classifier",
    "fidelity": "precision_recall",
    "frechet": "frechet_distance",
    "kernel_test": "two_sample",
    "load_classifier": "store",
    "memorisation": "copies",
    "recognition": "classifier",
    "save_classifier": "store",
    "shown": "fit",
    "sliced_wasserstein": "two_sample",
    "train_classifier": "fit",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"jensen.features.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jensen.features' has no attribute {name!r}")
