"""Features: a small classifier of the run's own data, and the Fréchet distance between what it sees.

Reading order: `settings`, `classifier` (the network, its features, what it recognises), `fit` (how it is trained),
`store` (its folder), `frechet_distance`, `distance` (samplers against steps), `show` (their table and picture).
Names are imported when first used, so that `jensen.features.settings` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.features.classifier import Classifier, features, recognition
    from jensen.features.fit import shown, train_classifier
    from jensen.features.frechet_distance import frechet
    from jensen.features.settings import ClassifierSettings
    from jensen.features.store import load_classifier, save_classifier

__all__ = [
    "Classifier",
    "ClassifierSettings",
    "features",
    "frechet",
    "load_classifier",
    "recognition",
    "save_classifier",
    "shown",
    "train_classifier",
]

_HOMES = {
    "Classifier": "classifier",
    "ClassifierSettings": "settings",
    "features": "classifier",
    "frechet": "frechet_distance",
    "load_classifier": "store",
    "recognition": "classifier",
    "save_classifier": "store",
    "shown": "fit",
    "train_classifier": "fit",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"jensen.features.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jensen.features' has no attribute {name!r}")
