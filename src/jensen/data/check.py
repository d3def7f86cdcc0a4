"""`jensen data check`: the contents of DATA, and all problems for which a run would refuse DATA."""

import hashlib

import numpy as np
from pydantic import BaseModel, ConfigDict

from jensen.data.load import refuse_empty_examples, specify
from jensen.data.near import near_duplicates
from jensen.data.options import DEFAULTS, PreparationName, ReadOptions
from jensen.data.preparation import Standardise
from jensen.data.readers.memory import Source, source_name
from jensen.data.readers.read import check_options, read
from jensen.data.readers.reading import Reading
from jensen.data.spec import DataSpec
from jensen.data.splits import check_fractions, split_rows
from jensen.data.stored import AbstractRows, Values, blocks
from jensen.data.table.column import Table
from jensen.data.table.describe import described, summary
from jensen.data.target_scaling import TargetScaling
from jensen.errors import InputError

SHOWN = 20

FEW_FIELDS = 4
"""Tables of fewer fields, whose numbers are often rounded, have equal rows by chance."""

FEW_IMAGES = 5000
"""Below this number of training images, augmentation is suggested."""


class Report(BaseModel):
    """The result of a check."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    source: str

    spec: DataSpec | None
    """The specification that a run would record; None if a problem prevents it."""

    facts: dict[str, str]
    """Kind, count, shape, range and more, by name, as far as the problems allow."""

    label_counts: dict[str, int] | None
    """The number of examples of each label, by name."""

    table: Table | None = None
    """The columns, if the data are a table."""

    missing: tuple[float, ...] = ()
    """The share of missing cells of each column of `table`."""

    notes: tuple[str, ...]
    """The applied rules of reading, and doubts about the data, one line each."""

    problems: tuple[str, ...]
    """The problems for which a run would refuse the data, one line each."""

    @property
    def good(self) -> bool:
        """Whether a run would accept the data."""
        return not self.problems

    def lines(self) -> list[str]:
        """The report as lines to print, one fact per line; long lists are cut."""
        labels = self.label_counts and _cut([f"{name}: {count}" for name, count in self.label_counts.items()])
        return [
            f"source       {self.source}",
            *(f"{name:<12} {value}" for name, value in self.facts.items()),
            *([f"labels       {', '.join(labels)}"] if labels else []),
            *(f"{'' if line else 'columns':<12} {text}" for line, text in enumerate(self._columns())),
            *(f"note         {note}" for note in _cut(list(self.notes))),
            *(f"refused      {problem}" for problem in _cut(list(self.problems))),
            "result       " + ("good" if self.good else f"{len(self.problems)} to mend"),
        ]

    def _columns(self) -> list[str]:
        return [] if self.table is None else described(self.table, self.missing)


def check(source: Source, options: ReadOptions = DEFAULTS, preparation: PreparationName | str | None = None) -> Report:
    """Read all of `source` and report its contents, the applied rules, and all problems that `load_data` refuses."""
    problems: list[str] = []
    reading, spec = None, None
    doubts: tuple[str, ...] = ()
    try:
        reading = read(source, options, problems.append)
        check_options(reading, options, problems.append)
        refuse_empty_examples(source, reading, options, problems.append)
        unread = bool(problems)
        check_fractions(options)
        rows = split_rows(reading, options)
        spec = None if unread else specify(source, options, reading, rows, preparation)
        doubts = (*unseen_labels(reading, rows), *repeated_examples(reading, rows))
        if not unread and reading.table is None:
            doubts += near_duplicates(reading, rows, options)
    except InputError as error:
        problems.append(str(error))
    name = source_name(source)
    missing = () if reading is None or reading.table is None else _missing(reading.values[:], reading.table)
    if reading is None:
        return Report(source=name, spec=None, facts={}, label_counts=None, notes=(), problems=tuple(problems))
    return Report(
        source=name,
        spec=spec,
        facts=_facts_of_reading(reading, missing) | (_facts_of_spec(spec) if spec else {}),
        label_counts=_label_counts(reading),
        table=reading.table,
        missing=missing,
        notes=(*reading.notes, *(spec.doubts + _remarks(spec) if spec else reading.doubts), *doubts),
        problems=tuple(problems),
    )


def _facts_of_reading(reading: Reading, missing: tuple[float, ...]) -> dict[str, str]:
    values, found = reading.values, reading.survey
    if reading.table is not None:
        gaps = f"; {sum(missing) / len(missing):.1%} of all cells are missing" if any(missing) else ""
        return {"kind": "table", "rows": f"{len(values):,}", "types": f"{summary(reading.table)}{gaps}"}
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


def _missing(values: np.ndarray, table: Table) -> tuple[float, ...]:
    """The share of missing cells of each column."""
    return tuple(float(np.isnan(values[:, places[0]]).mean()) for places in table.places())


def _range(low: float, high: float) -> str:
    """Both numbers with at least 6 digits, and with enough digits to tell them apart.

    >>> _range(0.0, 255.0), _range(1699999855.0, 1700000130.0)
    ('0 to 255', '1.6999999e+09 to 1.7000001e+09')
    """
    digits = next((digits for digits in range(6, 17) if f"{low:.{digits}g}" != f"{high:.{digits}g}"), 6)
    return f"{low:.{digits}g} to {high:.{digits}g}"


def _facts_of_spec(spec: DataSpec) -> dict[str, str]:
    return {
        "splits": f"{', '.join(f'{count} {split}' for split, count in spec.counts.items())}; {spec.splits}",
        **(
            {}
            if spec.table
            else {"preparation": f"{spec.preparation.kind} by default, resolution {spec.preparation.resolution:.3g}"}
        ),
        **({"targets": describe_targets(spec.targets)} if spec.targets else {}),
        "fingerprint": spec.fingerprint,
    }


def describe_targets(targets: TargetScaling) -> str:
    """One line: the number of dimensions, with their means and standard deviations over the training examples."""
    each = _cut([f"{mean:.4g} ± {scale:.4g}" for mean, scale in zip(targets.shift, targets.deviation, strict=True)])
    numbers = "1 number" if targets.dimensions == 1 else f"{targets.dimensions} numbers"
    return f"{numbers}, mean ± standard deviation of the training examples {', '.join(each)}"


def _remarks(spec: DataSpec) -> tuple[str, ...]:
    return (*_unused_levels(spec), *_constant_features(spec), *_few_images(spec))


def _few_images(spec: DataSpec) -> tuple[str, ...]:
    count = spec.counts["train"]
    if spec.layout != "image" or count >= FEW_IMAGES:
        return ()
    return (
        f"only {count} training images: in training try --shift 0.125, and --flip horizontal if mirror images are as "
        "plausible",
    )


def _unused_levels(spec: DataSpec) -> tuple[str, ...]:
    if spec.levels is not None and 4 * (spec.maximum + 1) <= spec.levels and spec.maximum > 0:
        depth = int(spec.maximum).bit_length()
        return (
            f"the highest value is {spec.maximum:g} of {spec.levels} levels, so unused levels increase the bits: "
            f"give --levels {1 << depth} for data of {depth} bit{'s' if depth > 1 else ''}, or the true number of "
            "levels",
        )
    return ()


def _constant_features(spec: DataSpec) -> tuple[str, ...]:
    if not isinstance(spec.preparation, Standardise) or not spec.preparation.constant:
        return ()
    features = ", ".join(_cut([str(feature) for feature in spec.preparation.constant]))
    return (f"not scaled, because constant in the training examples: features {features}",)


def unseen_labels(reading: Reading, rows: dict[str, np.ndarray]) -> tuple[str, ...]:
    """One line about the labels that no training example has, if any; `rows` are the rows of each split."""
    if reading.labels is None:
        return ()
    unseen = np.setdiff1d(reading.labels, reading.labels[rows["train"]]).tolist()
    if not unseen:
        return ()
    names = ", ".join(_cut([reading.label_names[label] if reading.label_names else str(label) for label in unseen]))
    return (f"no training example has the label {names}, so a model cannot learn it; add examples, or leave it out",)


def repeated_examples(reading: Reading, rows: dict[str, np.ndarray]) -> tuple[str, ...]:
    """Report validation and test examples that also occur in training, with one line per split.

    `rows` are the rows of each split. Two examples are the same if their values are equal bit for bit; labels and
    targets may differ. The search needs memory for 8 bytes per example and one block of rows. Tables of
    fewer than `FEW_FIELDS` fields are not searched.
    """
    if reading.table is not None and len(reading.table.fields) < FEW_FIELDS:
        return ()
    digests = _digests(reading.values)
    train, first = np.unique(digests[rows["train"]], return_index=True)
    found = []
    for split in ("validation", "test"):
        place = np.searchsorted(train, digests[rows[split]]).clip(max=max(0, len(train) - 1))
        repeated = np.flatnonzero(train[place] == digests[rows[split]])
        if len(repeated):
            one, other = rows[split][repeated[0]], rows["train"][first[place[repeated[0]]]]
            found.append(
                f"{len(repeated)} of {len(rows[split])} {split} examples are also training examples, such as "
                f"{reading.names(int(one))}, which equals {reading.names(int(other))}: leave out repeated examples; "
                f"with them the {split} bound is too good"
            )
    return tuple(found)


def _digests(values: Values) -> np.ndarray:
    """BLAKE2b of each row (N, ...), 8 bytes as uint64. The probability of a collision among 10^6 rows is 3e-8."""
    found = []
    for block in blocks(values, "looking for repeated examples"):
        table = np.ascontiguousarray(block).reshape(len(block), -1).view(np.uint8)
        found.append(b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in table))
    return np.frombuffer(b"".join(found), np.uint64)


def _label_counts(reading: Reading) -> dict[str, int] | None:
    if reading.labels is None:
        return None
    values, counts = np.unique(reading.labels, return_counts=True)
    names = reading.label_names
    return {names[value] if names else str(value): int(count) for value, count in zip(values, counts, strict=True)}


def _cut(items: list[str]) -> list[str]:
    return items if len(items) <= SHOWN else [*items[:SHOWN], f"and {len(items) - SHOWN} more"]
