"""The end of a report: what was read, where the numbers come from, and how to make the run again."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from jensen.data.spec import DataSpec
from jensen.evaluation.evaluation import Evaluation
from jensen.report.render import Section


def data_section(spec: DataSpec) -> Section:
    """What was read."""
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
        "numbers": f"{spec.dtype} from {spec.minimum:g} to {spec.maximum:g}, {levels}",
        "classes": classes,
        "preparation": f"{type(spec.preparation).__name__}. {preparation}",
        "left out": f"{spec.skipped} files that could not be read" if spec.skipped else "nothing",
        "fingerprint": spec.fingerprint,
    }
    return Section("What was read", "definitions", {"items": items})


def provenance_section(provenance: Mapping[str, str]) -> Section | None:
    """Where the numbers come from: weights, versions, command and date."""
    return Section("Where these numbers come from", "definitions", {"items": provenance}) if provenance else None


def recipe_section(recipe: Mapping[str, Any], evaluation: Evaluation) -> Section:
    """Everything the run depended on, and the commands that make it again."""
    flags = [
        f"--{name.replace('_', '-')} {value}"
        for name, value in evaluation.settings.model_dump().items()
        if value is not None and name != "batch_size"
    ]
    commands = [
        f"jensen train {shlex.quote(str(recipe['family']))} --config recipe.toml --out again",
        " \\\n    ".join(["jensen evaluate again", " ".join(flags)]),
    ]
    return Section("How to repeat it", "again", {"recipe": toml(recipe), "commands": "\n".join(commands)})


def toml(recipe: Mapping[str, Any]) -> str:
    """A recipe of plain values and one level of tables as TOML; what is None is left out.

    >>> print(toml({"data": "digits", "seed": 0, "model": {"hidden": [200, 200], "clip": None}}))
    data = "digits"
    seed = 0
    <BLANKLINE>
    [model]
    hidden = [200, 200]
    """
    top = [f"{name} = {_literal(value)}" for name, value in recipe.items() if not isinstance(value, Mapping | None)]
    tables = [
        "\n".join(["", f"[{name}]", *(f"{key} = {_literal(item)}" for key, item in value.items() if item is not None)])
        for name, value in recipe.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join([*top, *tables])


def _literal(value: Any) -> str:
    """JSON, whose scalars, strings and arrays are TOML as well."""
    return json.dumps(value, ensure_ascii=False)
