"""The results of a model as its pages show them."""

from pathlib import Path
from typing import Any

from jensen.data.examples import Examples
from jensen.data.spec import DataSpec
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.exhibits import make_exhibits
from jensen.model import AbstractLatentVariableModel
from jensen.recipe.diffusion.words import WORDS as DIFFUSION
from jensen.recipe.families import Recipe
from jensen.recipe.vae.words import WORDS as VAE
from jensen.report.results import Results

WORDS = {"vae": VAE, "diffusion": DIFFUSION}


def results_of(
    title: str,
    folder: Path,
    recipe: Recipe,
    spec: DataSpec,
    model: AbstractLatentVariableModel,
    examples: Examples,
    evaluation: Evaluation,
    **more: Any,
) -> Results:
    """What the pages about a model show of it; `more` are further fields of `Results`."""
    words, scores, seed = WORDS[recipe.family], evaluation.scores, evaluation.settings.seed
    assert scores is not None
    selection = words.selection(spec.layout == "image")
    labels = None if examples.labels is None else examples.labels[scores.index]
    fields: dict[str, Any] = {"metrics": [], "trained_steps": 200, "weights_step": 100, "labels": labels, **more}
    return Results(
        title=title,
        folder=folder,
        recipe=recipe.model_dump(mode="json"),
        words=words,
        spec=spec,
        evaluation=evaluation,
        exhibits=make_exhibits(model, examples, spec.preparation, scores, selection, seed),
        **fields,
    )
