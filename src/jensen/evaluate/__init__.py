"""Evaluation: bounds on a test set with their errors, and a report. Knows `model`, never a family of models.

Reading order: `settings`, `scores` (one row per example), `evaluation` (means, gaps, contradictions), `families`,
`pictures`, `page`, `report`. Names are imported when first used, so that `jensen.evaluate.settings` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.evaluate.evaluation import Evaluation, evaluate, table
    from jensen.evaluate.report import write_report
    from jensen.evaluate.scores import Scores, score
    from jensen.evaluate.settings import EvaluationSettings

__all__ = ["Evaluation", "EvaluationSettings", "Scores", "evaluate", "score", "table", "write_report"]

_HOMES = {
    "Evaluation": "evaluation",
    "EvaluationSettings": "settings",
    "Scores": "scores",
    "evaluate": "evaluation",
    "score": "scores",
    "table": "evaluation",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"jensen.evaluate.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jensen.evaluate' has no attribute {name!r}")
