"""`jensen data check`: what DATA holds and everything that would be refused, not only the first."""

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from jensen.data.load import specify
from jensen.data.options import DEFAULTS, PreparationName, ReadOptions
from jensen.data.preparation import Standardise
from jensen.data.readers.read import check_options, read
from jensen.data.readers.reading import Reading
from jensen.data.spec import DataSpec
from jensen.data.splits import check_fractions, split_rows
from jensen.data.stored import AbstractRows
from jensen.data.target_scaling import TargetScaling
from jensen.errors import InputError

SHOWN = 20


class Report(BaseModel):
    """What a check found."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    source: str

    spec: DataSpec | None
    """What a run would record; None where the data cannot be read so far."""

    facts: dict[str, str]
    """Kind, count, shape, range and more, by name, as far as they could be found out."""

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
        """The report to be printed, one fact a line, long lists cut."""
        labels = self.label_counts and _cut([f"{name}: {count}" for name, count in self.label_counts.items()])
        return [
            f"source       {self.source}",
            *(f"{name:<12} {value}" for name, value in self.facts.items()),
            *([f"labels       {', '.join(labels)}"] if labels else []),
            *(f"note         {note}" for note in _cut(list(self.notes))),
            *(f"refused      {problem}" for problem in _cut(list(self.problems))),
            "result       " + ("good" if self.good else f"{len(self.problems)} to mend"),
        ]


def check(
    source: str | Path, options: ReadOptions = DEFAULTS, preparation: PreparationName | str | None = None
) -> Report:
    """Reads `source` to its end and reports what it holds, by which rules, and all that `load_data` would refuse."""
    problems: list[str] = []
    reading, spec = None, None
    try:
        reading = read(source, options, problems.append)
        check_options(reading, options, problems.append)
        unread = bool(problems)
        check_fractions(options)
        rows = split_rows(reading, options)
        spec = None if unread else specify(source, options, reading, rows, preparation)
    except InputError as error:
        problems.append(str(error))
    if reading is None:
        return Report(source=str(source), spec=None, facts={}, label_counts=None, notes=(), problems=tuple(problems))
    return Report(
        source=str(source),
        spec=spec,
        facts=_facts_of_reading(reading) | (_facts_of_spec(spec) if spec else {}),
        label_counts=_label_counts(reading),
        notes=reading.notes + (spec.doubts + _remarks(spec) if spec else ()),
        problems=tuple(problems),
    )


def _facts_of_reading(reading: Reading) -> dict[str, str]:
    values, found = reading.values, reading.survey
    levels = f", {reading.levels} levels" if reading.levels else ""
    where = ", not in memory" if isinstance(values, AbstractRows) else ""
    return {
        "kind": f"{reading.kind}, read as {reading.layout}{where}",
        "examples": str(len(values)),
        "shape": str(values.shape[1:]),
        "numbers": f"{values.dtype}, {_range(found.minimum, found.maximum)}{levels}",
        **({"missing": f"{found.missing / values.size:.1%} of all values"} if found.missing else {}),
        "left out": str(reading.skipped),
    }


def _range(low: float, high: float) -> str:
    """Both numbers with as few digits as tell them apart, 6 at least.

    >>> _range(0.0, 255.0), _range(1699999855.0, 1700000130.0)
    ('0 to 255', '1.6999999e+09 to 1.7000001e+09')
    """
    digits = next((digits for digits in range(6, 17) if f"{low:.{digits}g}" != f"{high:.{digits}g}"), 6)
    return f"{low:.{digits}g} to {high:.{digits}g}"


def _facts_of_spec(spec: DataSpec) -> dict[str, str]:
    return {
        "splits": f"{', '.join(f'{count} {split}' for split, count in spec.counts.items())}; {spec.splits}",
        "preparation": f"{spec.preparation.kind} by default, resolution {spec.preparation.resolution:.3g}",
        **({"targets": describe_targets(spec.targets)} if spec.targets else {}),
        "fingerprint": spec.fingerprint,
    }


def describe_targets(targets: TargetScaling) -> str:
    """One line: how many numbers, with their means and standard deviations over the training examples."""
    each = _cut([f"{mean:.4g} ± {scale:.4g}" for mean, scale in zip(targets.shift, targets.deviation, strict=True)])
    numbers = "1 number" if targets.dimensions == 1 else f"{targets.dimensions} numbers"
    return f"{numbers}, mean ± standard deviation of the training examples {', '.join(each)}"


def _remarks(spec: DataSpec) -> tuple[str, ...]:
    if spec.levels is not None and 4 * (spec.maximum + 1) <= spec.levels and spec.maximum > 0:
        depth = int(spec.maximum).bit_length()
        return (
            f"the highest number is {spec.maximum:g} of {spec.levels} levels, so that bits are counted for nothing: "
            f"give --levels {1 << depth} for data of {depth} bit{'s' if depth > 1 else ''}, or the number of levels "
            "that there are",
        )
    if not isinstance(spec.preparation, Standardise) or not spec.preparation.constant:
        return ()
    features = ", ".join(_cut([str(feature) for feature in spec.preparation.constant]))
    return (f"constant in the training examples, so not scaled: features {features}",)


def _label_counts(reading: Reading) -> dict[str, int] | None:
    if reading.labels is None:
        return None
    values, counts = np.unique(reading.labels, return_counts=True)
    names = reading.label_names
    return {names[value] if names else str(value): int(count) for value, count in zip(values, counts, strict=True)}


def _cut(items: list[str]) -> list[str]:
    return items if len(items) <= SHOWN else [*items[:SHOWN], f"and {len(items) - SHOWN} more"]
