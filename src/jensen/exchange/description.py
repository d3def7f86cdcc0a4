"""model.json and README.md beside the files of an exported model: their inputs, outputs, units and origin."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jensen.data.spec import DataSpec
from jensen.exchange.functions import Function, Port
from jensen.provenance import jensen_version
from jensen.records import write_file
from jensen.run import Run

Ports = Mapping[str, tuple[Function, Sequence[Port]]]
"""The function in each file, and the inputs of the file, by the name of the file without its ending."""


@dataclass(frozen=True)
class Kind:
    """A kind of file: its name, its ending, Python code that runs one, and numbers about all files."""

    name: str
    ending: str
    code: str
    facts: Mapping[str, Any]


UNITS = """Examples go in as they are read: the files contain the preparation of the data. Log-probabilities are in nats
of these raw values, as `jensen score` gives them; divided by -ln 2 and by the number of values, they are bits/dim."""

CELLS = """A row of a table has a number for each of the `fields` in model.json, NaN for a missing cell. A code is the
place of the cell in the `values` of its column; a whole number or count is (cell - low) / step; a real number is the
cell itself; a datetime has several fields."""

BOUND = """To sum the bound, call `bound` with every t from 1 to T, each with new noise: log p(x) >= rest - the sum of
the terms. It is cheaper to call it with t = 1 and with some random steps, and to divide each term by the probability of
its step. `jensen score` divides steps 2 to T into strata, and draws one step from each: entry t - 2 of `stratum` is the
stratum of step t, and entry t - 2 of `probability` its probability within the stratum (`bound` in model.json)."""

SAMPLING = """To sample, start with standard normal x_t, and call `sampler_step` from each log-SNR of `sampling` in
model.json, last to first, to the one before; the last step goes to infinity, the data. Samples are prepared values."""


def describe(run: Run, folder: Path, kind: Kind, ports: Ports, facts: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Write model.json and README.md; `facts` are the numbers of the model beside the functions."""
    about = {
        "format": kind.name,
        **kind.facts,
        "files": {f"{name}.{kind.ending}": _as_json(*each) for name, each in ports.items()},
        "data": _data(run.spec),
        **facts,
        "jensen": jensen_version(),
        "family": run.recipe.family,
        "step": run.step,
        "weights": run.weights,
        "notes": list(notes),
    }
    write_file(folder / "model.json", json.dumps(about, indent=1).encode())
    write_file(folder / "README.md", "\n".join(_readme(run, kind, ports, notes)).encode())


def _as_json(function: Function, inputs: Sequence[Port]) -> dict[str, Any]:
    sides = {"inputs": inputs, "outputs": function.outputs}
    listed = {side: [port.model_dump(mode="json") for port in of_side] for side, of_side in sides.items()}
    return {"meaning": function.meaning, **listed}


def _data(spec: DataSpec) -> dict[str, Any]:
    """The data's type, shape, labels, and for a table its columns and fields; no path."""
    about = {
        "name": Path(spec.source).name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "levels": spec.levels,
        "labels": spec.label_names,
        "preparation": spec.preparation.kind,
    }
    if spec.table is not None:
        table = spec.table.model_dump(mode="json")
        about |= {"columns": table["columns"], "fields": table["fields"]}
    return about


def _readme(run: Run, kind: Kind, ports: Ports, notes: Sequence[str]) -> Iterator[str]:
    yield f"# A {run.recipe.family} of {Path(run.spec.source).name} as {kind.name} files\n"
    yield f"Made by jensen {jensen_version()} from the weights of step {run.step}, SHA-256 {run.weights}.\n"
    yield f"{UNITS}\n"
    if run.spec.table is not None:
        yield f"{CELLS}\n"
    for name, (function, inputs) in ports.items():
        yield f"## {name}.{kind.ending}\n\n{function.meaning}\n"
        yield "| | name | type | axes | meaning |\n|---|---|---|---|---|"
        for side, of_side in (("in", inputs), ("out", function.outputs)):
            for port in of_side:
                yield f"| {side} | {port.name} | {port.dtype} | ({', '.join(map(str, port.axes))}) | {port.meaning} |"
        yield ""
    if "bound" in ports:
        yield f"{BOUND}\n"
    if "sampler_step" in ports:
        yield f"{SAMPLING}\n"
    yield f"```python\n{_code(kind, ports)}```\n"
    yield from (f"- {note}" for note in notes)


def _code(kind: Kind, ports: Ports) -> str:
    """Code that runs the last file, whose inputs are variables of their names."""
    name, (function, inputs) = list(ports.items())[-1]
    values = {
        "NAME": name,
        "INPUTS": ", ".join(f'"{port.name}": {port.name}' for port in inputs),
        "ARGUMENTS": ", ".join(port.name for port in inputs),
        "OUTPUTS": ", ".join(port.name for port in function.outputs),
    }
    code = kind.code
    for word, value in values.items():
        code = code.replace(word, value)
    return code
