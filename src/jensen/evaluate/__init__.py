"""Evaluation: bounds on a test set with their errors, and a report. Knows `model`, never a family of models.

Reading order: `settings`, `scores` (one row per example), `measure` (a mean in two units), `profile` (where the bits
go), `evaluation` (means, gaps, contradictions), `saved`; then the pages: `families`, `results` (what a page is about),
`pictures`, `page`, `album`, `samples`, `bits`, `again`, `report` (of one model), `comparison` (of several). Names are
imported when first used, so that `jensen.evaluate.settings` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.evaluate.comparison import comparison_table, difference, write_comparison
    from jensen.evaluate.evaluation import Evaluation, evaluate, table
    from jensen.evaluate.report import write_report
    from jensen.evaluate.results import Results
    from jensen.evaluate.saved import load_evaluation, save_evaluation
    from jensen.evaluate.scores import Scores, fingerprint, score
    from jensen.evaluate.settings import EvaluationSettings

__all__ = [
    "Evaluation",
    "EvaluationSettings",
    "Results",
    "Scores",
    "comparison_table",
    "difference",
    "evaluate",
    "fingerprint",
    "load_evaluation",
    "save_evaluation",
    "score",
    "table",
    "write_comparison",
    "write_report",
]

_HOMES = {
    "Evaluation": "evaluation",
    "EvaluationSettings": "settings",
    "Results": "results",
    "Scores": "scores",
    "comparison_table": "comparison",
    "difference": "comparison",
    "evaluate": "evaluation",
    "fingerprint": "scores",
    "load_evaluation": "saved",
    "save_evaluation": "saved",
    "score": "scores",
    "table": "evaluation",
    "write_comparison": "comparison",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"jensen.evaluate.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'jensen.evaluate' has no attribute {name!r}")
