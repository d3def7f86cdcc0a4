"""The model card of a run: what it is, how good it is with errors, on what data, and how to use it."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jensen.errors import InputError
from jensen.evaluation.evaluation import Evaluation
from jensen.evaluation.saved import MEANS, load_evaluation
from jensen.exchange.places import command_without_places, without_places
from jensen.provenance import jensen_version
from jensen.run import Run

USE = """```python
import jensen

run = jensen.from_pretrained("FOLDER or owner/name")
samples = jensen.sample(run, 8)
scores = jensen.score(run, data)  # nats of each example, with standard errors
```
"""


def model_card(run: Run, license: str | None, places: Sequence[str]) -> str:
    """README.md: metadata in YAML, which the Hub reads, and text in Markdown."""
    evaluation = _evaluation(run)
    metadata = "\n".join(f"{name}: {json.dumps(value)}" for name, value in _metadata(run, license, evaluation).items())
    text = "\n".join(_text(run, license, evaluation))
    return f"---\n{metadata}\n---\n\n{without_places(text, places)}\n"


def _evaluation(run: Run) -> Evaluation | None:
    """The run's own evaluation of the same weights, if there is one."""
    if not (run.folder / MEANS).exists():
        return None
    try:
        found = load_evaluation(run.folder)
    except InputError:
        return None
    return found if found.provenance.weights == run.weights else None


def _name_of_data(run: Run) -> str:
    return Path(run.spec.source).name


def _metadata(run: Run, license: str | None, evaluation: Evaluation | None) -> dict[str, Any]:
    """The metadata; JSON values are YAML, too."""
    found: dict[str, Any] = {
        "library_name": "jensen",
        "tags": ["jensen", run.recipe.family, "density-estimation", run.spec.layout],
    }
    if license is not None:
        found["license"] = license
    if run.spec.layout == "image":
        found["pipeline_tag"] = "unconditional-image-generation"
    if evaluation is not None:
        data = _name_of_data(run)
        nats, bits = evaluation.elbo.nats, evaluation.elbo.bits_per_dimension
        metrics = [{"type": "nats", "name": "ELBO, nats per example", "value": nats.mean}]
        if not evaluation.of_table:
            metrics.append({"type": "bits_per_dim", "name": "ELBO, bits per dimension", "value": bits.mean})
        result = {
            "task": {"type": "density-estimation"},
            "dataset": {"type": data, "name": data},
            "metrics": metrics,
        }
        found["model-index"] = [{"name": f"{run.recipe.family} of {data}", "results": [result]}]
    return found


def _text(run: Run, license: str | None, evaluation: Evaluation | None) -> Iterator[str]:
    spec, recipe = run.spec, run.recipe
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    made = "trained" if run.trained_steps else "written"
    yield f"# A {recipe.family} model of {_name_of_data(run)}\n"
    yield (
        f"A generative model with a bound on log p(x), {made} by jensen {jensen_version()}: {parameters:,} "
        f"parameters, weights of step {run.step} of {recipe.training.steps}, SHA-256 `{run.weights}`.\n"
    )
    if recipe.beginning and recipe.start_from is None:  # a path of this machine says nothing elsewhere
        yield f"The weights come {recipe.beginning}.\n"
    yield f"## Use\n\n{USE}"
    yield "## Data\n"
    counts = ", ".join(f"{count:,} {name}" for name, count in spec.counts.items())
    kind = f"examples of shape {tuple(spec.shape)}, {spec.dtype}"
    yield f"{_name_of_data(run)}: {counts} {kind}; splits: {spec.splits}.\n"
    if spec.table is not None:
        yield "Columns: " + ", ".join(f"{column.name} ({column.type})" for column in spec.table.columns) + ".\n"
    if spec.label_names:
        yield f"Labels: {', '.join(spec.label_names)}.\n"
    yield from (f"- {doubt}" for doubt in spec.doubts)
    yield "\n## How good it is\n"
    yield from _numbers(evaluation)
    yield "\n## Licence\n"
    yield f"{license}\n" if license else "None was stated.\n"


def _numbers(evaluation: Evaluation | None) -> Iterator[str]:
    if evaluation is None:
        yield "The run has not been evaluated with these weights."
        return
    count = evaluation.examples
    yield f"Lower bounds on log p(x) of {evaluation.source}, with standard errors over {count} examples:\n"
    yield "| bound | nats per example | bits per dimension |\n|---|---|---|"
    for bound in (evaluation.elbo, *(each for each in evaluation.bounds if each.name != "ELBO")):
        bits = "" if evaluation.of_table else str(bound.bits_per_dimension)
        few = "" if bound is evaluation.elbo else f" ({bound.nats.count} examples)"
        yield f"| {bound.name}{few} | {bound.nats} | {bits} |"
    made = evaluation.provenance
    command = command_without_places(made.command)
    yield f"\nBy `{command}` with jensen {made.jensen} and PyTorch {made.torch} on {made.date[:10]}."
    yield from (f"\n- Warning: {warning}" for warning in evaluation.warnings)
