"""The end of a report: the data, the provenance of the results, and the commands that repeat the run."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from jensen.data.spec import DataSpec
from jensen.report.render import Section
from jensen.report.results import Results


def data_section(spec: DataSpec) -> Section:
    """The data of the run."""
    counts = ", ".join(f"{count:,} {split}" for split, count in spec.counts.items())
    classes = "none" if spec.classes is None else str(spec.classes)
    if spec.label_names:
        classes += f": {', '.join(spec.label_names[:20])}{', ...' if len(spec.label_names) > 20 else ''}"
    levels = "floats, no levels" if spec.levels is None else f"{spec.levels} levels"
    preparation = (type(spec.preparation).__doc__ or "").partition("\n")[0]
    items = {
        "source": spec.source,
        "examples": counts,
        "splits": spec.splits,
        "shape": f"{' x '.join(map(str, spec.shape))}, read as {spec.layout}",
        "numbers": f"{spec.dtype} from {spec.minimum:.9g} to {spec.maximum:.9g}, {levels}",
        "classes": classes,
        "preparation": f"{type(spec.preparation).__name__}. {preparation}",
        "left out": f"{spec.skipped} files that could not be read" if spec.skipped else "nothing",
        "fingerprint": spec.fingerprint,
    }
    return Section("What was read", "definitions", {"items": items})


def provenance_section(results: Results) -> Section:
    """The provenance of the evaluation: weights, versions, machine, command and date."""
    made = results.evaluation.provenance
    items = {
        "weights": f"of training step {results.weights_step:,}, SHA-256 {made.weights}",
        **_start(results.recipe),
        "training": "; ".join(results.history) or _one(results.recipe),
        "data": f"{results.evaluation.source}, digest of all examples {results.evaluation.examples_digest}",
        "command": made.command,
        "made": f"{made.date} in {made.seconds:.1f} s",
        "versions": f"jensen {made.jensen}, PyTorch {made.torch}, Python {made.python}",
        "machine": f"{made.device}, threads: {made.threads}, processes: {made.processes}",
    }
    return Section("Where these numbers come from", "definitions", {"items": items})


def _start(recipe: Mapping[str, Any]) -> dict[str, str]:
    if start := recipe.get("start_from"):
        return {"started from": f"{start['path']}, weights with SHA-256 {start['weights']}"}
    if made := _imported(recipe):
        sums = (f"{name} with SHA-256 {digest}" for name, digest in made["files"].items())
        return {"imported from": f"files of {made['program']}: {', '.join(sums)}"}
    return {}


def _one(recipe: Mapping[str, Any]) -> str:
    return "none by this program" if _imported(recipe) else "by one recipe from beginning to end"


def _imported(recipe: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The origin of weights of another program; None for weights that this program trained from the beginning."""
    model = recipe.get("model", {})
    return None if recipe.get("start_from") else model.get("imported")


def recipe_section(results: Results) -> Section:
    """The recipe as TOML, and the commands that repeat the run, part by part, and its evaluation."""
    recipe, evaluation = results.recipe, results.evaluation
    flags = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in evaluation.settings.model_dump().items()
        if value is not None and name != "batch_size"
    ]
    first = f"jensen train {shlex.quote(str(recipe['family']))} --config recipe.toml --out again{_flags(results.first)}"
    if _imported(recipe):
        first = f"jensen import FOLDER --data {shlex.quote(str(recipe['data']))} --out again  # FOLDER of its files"
    commands = [
        first,
        *(f"jensen resume again{_flags(change)}" for change in results.changes),
        " \\\n    ".join(["jensen evaluate again", " ".join(flags)]),
    ]
    values = {"recipe": toml(recipe), "commands": "\n".join(commands), "parts": 1 + len(results.changes)}
    return Section("How to repeat it", "again", values)


def _flags(settings: Mapping[str, float]) -> str:
    return "".join(f" --{name.replace('_', '-')} {value:g}" for name, value in settings.items())


def toml(recipe: Mapping[str, Any]) -> str:
    """A recipe of plain values and tables as TOML, without the fields that are None.

    >>> print(toml({"data": "digits", "seed": 0, "model": {"hidden": [200, 200], "clip": None}}))
    data = "digits"
    seed = 0
    <BLANKLINE>
    [model]
    hidden = [200, 200]
    """
    return "\n".join(_lines(recipe, ""))


def _lines(values: Mapping[str, Any], table: str) -> Iterator[str]:
    """The plain values, then the tables; `table` is the name of the table that holds the values."""
    yield from (f"{_key(name)} = {_literal(v)}" for name, v in values.items() if not isinstance(v, Mapping | None))
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from ("", f"[{table}{_key(name)}]", *_lines(value, f"{table}{_key(name)}."))


def _key(name: str) -> str:
    """The name as a key of TOML, in quotes if it needs them."""
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _literal(name)


def _literal(value: Any) -> str:
    """The value as JSON: JSON's scalars, strings and arrays are valid TOML."""
    return json.dumps(value, ensure_ascii=False)
