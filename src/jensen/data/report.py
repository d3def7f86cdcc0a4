"""`jensen data check`: what DATA holds and everything that would be refused, not only the first."""

import numpy as np
from pydantic import BaseModel, ConfigDict

from jensen.data.load import specify
from jensen.data.options import DEFAULTS, PreparationName, ReadOptions
from jensen.data.read import check_options, read
from jensen.data.reading import Reading
from jensen.data.spec import DataSpec
from jensen.data.split import check_fractions, split_rows
from jensen.errors import InputError

SHOWN = 20


class Report(BaseModel):
    """What a check found."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    source: str

    spec: DataSpec | None
    """What a run would record; None where the data cannot be read so far."""

    label_counts: dict[str, int] | None
    """How many examples have each label, by name."""

    notes: tuple[str, ...]
    """Which rules were applied, and what is worth knowing."""

    problems: tuple[str, ...]
    """One line for everything that a run would refuse."""

    @property
    def good(self) -> bool:
        """Whether a run would accept the data."""
        return not self.problems

    def lines(self) -> list[str]:
        """The report to be printed, one line each, long lists cut."""
        shown = [*_described(self.spec)] if self.spec else [f"source       {self.source}"]
        if self.label_counts:
            shown.append(f"labels       {', '.join(_cut([f'{k}: {v}' for k, v in self.label_counts.items()]))}")
        shown += [f"note         {note}" for note in _cut(list(self.notes))]
        shown += [f"refused      {problem}" for problem in _cut(list(self.problems))]
        return [*shown, "result       " + ("good" if self.good else f"{len(self.problems)} to mend")]


def check(source: str, options: ReadOptions = DEFAULTS, preparation: PreparationName | str | None = None) -> Report:
    """Reads `source` to its end and reports what it holds, by which rules, and all that `load_data` would refuse."""
    problems: list[str] = []
    reading, spec = None, None
    try:
        check_fractions(options)
    except InputError as error:
        problems.append(str(error))
    try:
        reading = read(source, options, problems.append)
        check_options(reading, options, problems.append)
        if not problems:
            spec = specify(source, options, reading, split_rows(reading, options), preparation)
    except InputError as error:
        problems.append(str(error))
    notes = () if reading is None else (*reading.notes, *_remarks(reading, spec))
    return Report(
        source=source,
        spec=spec,
        label_counts=None if reading is None else _label_counts(reading),
        notes=notes,
        problems=tuple(problems),
    )


def _remarks(reading: Reading, spec: DataSpec | None) -> list[str]:
    if spec is None:
        return [f"{len(reading.values)} examples of shape {reading.values.shape[1:]}, {reading.values.dtype}"]
    remarks = []
    if spec.preparation.kind == "standardise" and spec.preparation.constant:
        features = ", ".join(_cut([str(feature) for feature in spec.preparation.constant]))
        remarks.append(f"constant in the training examples, so not scaled: features {features}")
    return remarks


def _label_counts(reading: Reading) -> dict[str, int] | None:
    if reading.labels is None:
        return None
    values, counts = np.unique(reading.labels, return_counts=True)
    names = reading.label_names
    return {names[value] if names else str(value): int(count) for value, count in zip(values, counts, strict=True)}


def _described(spec: DataSpec) -> list[str]:
    counts = ", ".join(f"{count} {split}" for split, count in spec.counts.items())
    levels = f", {spec.levels} levels" if spec.levels else ""
    return [
        f"source       {spec.source}",
        f"kind         {spec.kind}, read as {spec.layout}",
        f"examples     {sum(spec.counts.values())}: {counts}",
        f"splits       {spec.splits}",
        f"shape        {spec.shape}",
        f"numbers      {spec.dtype}, {spec.minimum:g} to {spec.maximum:g}{levels}",
        f"preparation  {spec.preparation.kind}, resolution {spec.preparation.resolution:.3g}",
        f"left out     {spec.skipped}",
        f"fingerprint  {spec.fingerprint}",
    ]


def _cut(items: list[str]) -> list[str]:
    return items if len(items) <= SHOWN else [*items[:SHOWN], f"and {len(items) - SHOWN} more"]
