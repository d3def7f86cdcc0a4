"""Synthetic rows of mixed tables: jensen beside SDV's TVAE, CTGAN and GaussianCopula.

    PEER/bin/python benchmarks/tables.py make --data FOLDER --work WORK --methods GaussianCopula TVAE CTGAN
    python benchmarks/tables.py make --data FOLDER --work WORK --methods jensen
    python benchmarks/tables.py look --work WORK
    python benchmarks/tables.py measure --work WORK
    python benchmarks/tables.py table --work WORK

FOLDER holds CSV files. PEER is a virtual environment of its own (`pip install sdv`), as SDV needs other versions of
what jensen needs. Each table and seed has its own random split: 70 % of the rows, at most 5,000, train; the others, at
most 5,000, are for the test. Columns that count rows are left out for all. A method gets the training rows as a CSV,
and writes as many synthetic rows as there are training rows. SDV's metadata are what it detects. Seconds are those of
the CPU, for training and drawing, with one thread.

`look` draws every column of every method beside the real one. `measure` takes the functions of `jensen features check`,
all columns in one form for every method: text and columns of two values are categories, all others are numbers. As a
floor, `real` has the training rows in place of synthetic ones. WORK holds JSON lines, `made.jsonl` and
`measured.jsonl`; what they hold is not done again, so the program may be interrupted.
"""

import argparse
import json
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from jensen.features.table_metrics import Columns

MOST_TRAIN = MOST_TEST = 5000
MOST_JUDGED = 2000  # synthetic rows, and as many test rows, for detection
LEFT_OUT = {"beijing": ["No"]}
TARGETS = {"beijing": "pm2.5"}  # elsewhere the last column

# ---------------------------------------------------------------------------------------------- splits


def split(path: Path, seed: int, folder: Path) -> None:
    """Write train.csv and test.csv, whose cells are those of the file, letter by letter."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=LEFT_OUT.get(path.stem, []))
    order = np.random.default_rng(seed).permutation(len(rows))
    known = round(0.7 * len(rows))
    folder.mkdir(parents=True, exist_ok=True)
    rows.iloc[order[:known][:MOST_TRAIN]].to_csv(folder / "train.csv", index=False)
    rows.iloc[order[known:][:MOST_TEST]].to_csv(folder / "test.csv", index=False)


# ---------------------------------------------------------------------------------------------- methods

Maker = Callable[[Path, int], pd.DataFrame]


def of_sdv(name: str, **settings: Any) -> Maker:
    """One of SDV's synthesizers with its default settings but for the given ones."""

    def make(train: Path, seed: int) -> pd.DataFrame:
        import sdv.single_table
        import torch
        from sdv.metadata import Metadata

        torch.set_num_threads(1)
        torch.manual_seed(seed)
        np.random.seed(seed)
        rows = pd.read_csv(train)
        metadata = Metadata.detect_from_dataframes({"table": rows})
        kind = getattr(sdv.single_table, f"{name}Synthesizer")
        synthesizer = kind(metadata, **settings, **({} if name == "GaussianCopula" else {"enable_gpu": False}))
        synthesizer.fit({"table": rows})
        drawn = synthesizer.sample(len(rows))
        return drawn["table"] if isinstance(drawn, dict) else drawn

    return make


def of_jensen(**wishes: Any) -> Maker:
    """`jensen train vae` and `jensen sample`, with the default settings but for the given ones."""

    def make(train: Path, seed: int) -> pd.DataFrame:
        import torch

        import jensen

        torch.set_num_threads(1)
        rows = pd.read_csv(train)
        recipe = {"data": str(train), "seed": seed, "read": {"test_fraction": 0.0}, **wishes}
        with tempfile.TemporaryDirectory() as folder:
            run = jensen.train(jensen.VAERecipe.model_validate(recipe), Path(folder) / "run")
            return jensen.sample(run, len(rows), seed=seed).frame(like=rows)

    return make


METHODS: dict[str, Maker] = {
    "GaussianCopula": of_sdv("GaussianCopula"),
    "TVAE": of_sdv("TVAE"),
    "TVAE, 1500 epochs": of_sdv("TVAE", epochs=1500),
    "CTGAN": of_sdv("CTGAN"),
    "CTGAN, 1500 epochs": of_sdv("CTGAN", epochs=1500),
    "jensen": of_jensen(),
    "jensen, 900 steps": of_jensen(training={"steps": 900}),
}
MODULES = {
    method: "jensen.commands.sample" if method.startswith("jensen") else "sdv.single_table" for method in METHODS
}


def make(paths: list[Path], seeds: list[int], methods: list[str], work: Path) -> None:
    """Write the synthetic rows that `work` lacks, and a line for each file."""
    done = {(line["table"], line["seed"], line["method"]) for line in read(work / "made.jsonl")}
    for module in {MODULES[method] for method in methods}:
        import_module(module)  # before the clock starts
    for seed in seeds:
        for path in sorted(paths, key=lambda path: path.stat().st_size):
            folder = work / f"{path.stem}-{seed}"
            if not (folder / "test.csv").exists():
                split(path, seed, folder)
            for method in methods:
                if (path.stem, seed, method) in done:
                    continue
                began = time.process_time()
                rows = METHODS[method](folder / "train.csv", seed)
                seconds = round(time.process_time() - began, 1)
                rows.to_csv(folder / f"{method}.csv", index=False)
                line = {"table": path.stem, "seed": seed, "method": method, "rows": len(rows), "cpu_seconds": seconds}
                append(work / "made.jsonl", line)
                print(line, flush=True)


# ---------------------------------------------------------------------------------------------- one form for all


@dataclass(frozen=True, eq=False)
class Form:
    """How the cells of a table become numbers: the values of each category, None for a column of numbers."""

    values: dict[str, list[str] | None]
    target: int

    @classmethod
    def of(cls, table: str, rows: pd.DataFrame) -> "Form":
        """The form of a table, from all its real rows."""
        values: dict[str, list[str] | None] = {}
        for name in rows.columns:
            words = not pd.api.types.is_numeric_dtype(rows[name]) or pd.api.types.is_bool_dtype(rows[name])
            few = words or rows[name].nunique() <= 2
            values[name] = sorted(set(_words(rows[name]).dropna())) if few else None
        return cls(values, list(rows.columns).index(TARGETS.get(table, rows.columns[-1])))

    def __call__(self, rows: pd.DataFrame) -> np.ndarray:
        """The matrix of the cells: numbers, codes of categories, NaN for missing cells."""
        found = np.empty((len(rows), len(self.values)))
        for place, (name, values) in enumerate(self.values.items()):
            if values is None:
                found[:, place] = rows[name].astype(float)
                continue
            words = _words(rows[name])
            strange = set(words.dropna()) - set(values)
            assert not strange, f"{name}: {strange}"
            found[:, place] = words.map({value: code for code, value in enumerate(values)}).astype(float)
        return found

    def columns(self) -> "Columns":
        """The columns as the metrics of `jensen features check` know them."""
        from jensen.features.table_metrics import Columns

        most = np.array([0 if values is None else len(values) for values in self.values.values()])
        return Columns(tuple(self.values), tuple(bool(count == 0) for count in most), most)


def _words(column: pd.Series) -> pd.Series:
    """Cells of a category as words; 1 and 1.0 are the same."""
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    return (column.astype(float) if numbers else column).map(str, na_action="ignore")


def opened(work: Path, table: str, seed: int) -> tuple[Form, dict[str, pd.DataFrame]]:
    """The form of a table, and its rows: train, test, and those of each method."""
    folder = work / f"{table}-{seed}"
    rows = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    return Form.of(table, pd.concat([rows["train"], rows["test"]])), rows


# ---------------------------------------------------------------------------------------------- measures


def measure(work: Path) -> None:
    """Add a line of measures for each file of synthetic rows, and one for the training rows."""
    made = {(line["table"], line["seed"], line["method"]) for line in read(work / "made.jsonl")}
    made |= {(table, seed, "real") for table, seed, _ in made}
    done = {(line["table"], line["seed"], line["method"]) for line in read(work / "measured.jsonl")}
    for table, seed, method in sorted(made - done):
        form, rows = opened(work, table, seed)
        columns = form.columns()
        train, test = form(rows["train"]), form(rows["test"])
        found = measures(train if method == "real" else form(rows[method]), train, test, columns, form.target)
        append(work / "measured.jsonl", {"table": table, "seed": seed, "method": method, **found})
        print(table, seed, method, found, flush=True)


def measures(rows: np.ndarray, train: np.ndarray, test: np.ndarray, columns: "Columns", target: int) -> dict[str, Any]:
    """All measures of some rows."""
    import torch

    from jensen.features.copies import Nearest, memorisation
    from jensen.features.table_metrics import detection, distance_features, pair_trends, shapes, usefulness

    seen = distance_features(train, columns)
    near = memorisation(Nearest.of(*(torch.as_tensor(seen(of)) for of in (rows, train, test))))
    numbers = np.flatnonzero(columns.ordered)
    low, high = np.nanmin(train[:, numbers], 0), np.nanmax(train[:, numbers], 0)
    beyond = (rows[:, numbers] < low) | (rows[:, numbers] > high)
    boosted = detection(rows[:MOST_JUDGED], test[:MOST_JUDGED], columns)
    return {
        "shapes": shapes(rows, test, columns).mean(),
        "pairs": pair_trends(rows, test, columns).mean(),
        "detection": boosted.value,
        "detection_interval": [boosted.low, boosted.high],
        "forest": forest_detection(rows[:MOST_JUDGED], test[:MOST_JUDGED]),
        "usefulness": usefulness(rows, test, columns, target).value,
        "score": "R²" if columns.ordered[target] else "accuracy",
        "closer": near.closer.value,
        "near_copies": near.near_copies.value,
        "near_copies_expected": near.expected,
        "beyond_range": float(beyond.mean()) if len(numbers) else 0.0,
    }


def forest_detection(rows: np.ndarray, test: np.ndarray) -> float:
    """2 - 2 max(1/2, AUROC) of a forest of 100 trees that tells rows from test rows, by 5-fold cross-validation."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    count = min(len(rows), len(test))
    x, y = np.concatenate([rows[:count], test[:count]]), np.repeat([1, 0], count)
    x = np.nan_to_num(x, nan=np.nanmin(x) - 1)
    forest = RandomForestClassifier(min_samples_leaf=5, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    judged = cross_val_predict(forest, x, y, cv=folds, method="predict_proba")[:, 1]
    return float(2 - 2 * max(0.5, roc_auc_score(y, judged)))


# ---------------------------------------------------------------------------------------------- pictures, table


def look(work: Path) -> None:
    """A picture of each table: the histogram of every column, of test rows and of every method."""
    from matplotlib import pyplot

    for table, seed in sorted({(line["table"], line["seed"]) for line in read(work / "made.jsonl")}):
        form, rows = opened(work, table, seed)
        names = list(form.values)
        figure, axes = pyplot.subplots(-(-len(names) // 6), 6, figsize=(20, 2.6 * -(-len(names) // 6)))
        matrices = {name: form(of) for name, of in rows.items() if name != "train"}
        colours = {method: f"C{place}" for place, method in enumerate(METHODS)}
        for place, (name, axis) in enumerate(zip(names, axes.flat, strict=False)):
            low, high = np.nanquantile(matrices["test"][:, place], [0.002, 0.998])
            bins = np.arange(high + 2) - 0.5 if form.values[name] else np.linspace(low, high + 1e-9, 31)
            for method, matrix in matrices.items():
                cells = np.clip(matrix[:, place], bins[0], bins[-1])
                style = {"color": "black", "linewidth": 2} if method == "test" else {"color": colours[method]}
                weights = np.full(len(cells), 1 / len(cells))
                axis.hist(cells, bins, weights=weights, histtype="step", label=method, **style)
            axis.set_title(name)
            axis.set_yscale("log")
        axes.flat[0].legend(fontsize=6)
        figure.tight_layout()
        figure.savefig(work / f"{table}-{seed}.png", dpi=60)
        pyplot.close(figure)


COLUMNS = {
    "detection": "detection",
    "forest": "by a forest",
    "shapes": "shapes",
    "pairs": "pairs",
    "usefulness": "usefulness",
    "closer": "closer",
    "near_copies": "near copies",
}


def table(work: Path) -> None:
    """Means over seeds for each table and method, and over the tables that all of a set of methods have."""
    seconds = {(r["table"], r["seed"], r["method"]): r["cpu_seconds"] for r in read(work / "made.jsonl")}
    lines = read(work / "measured.jsonl")
    of: dict[tuple[str, str], list[list[float]]] = defaultdict(list)
    for line in lines:
        key = line["table"], line["seed"], line["method"]
        of[line["table"], line["method"]].append([*(line[name] for name in COLUMNS), seconds.get(key, 0)])
    print(f"| table | method | seeds | {' | '.join(COLUMNS.values())} | CPU s |\n|{'---|' * (len(COLUMNS) + 4)}")
    methods = [method for method in ("real", *METHODS) if any(known == method for _, known in of)]
    names = sorted({name for name, _ in of})
    for name, method in product(names, methods):
        if found := of.get((name, method)):
            print(f"| {name} | {method} | {len(found)} | {_cells(found, method)} |")
    for method in methods:
        found = [np.mean(of[name, method], 0).tolist() for name in names if (name, method) in of]
        print(f"| mean of {len(found)} tables | {method} | | {_cells(found, method)} |")


def _cells(found: list[list[float]], method: str) -> str:
    """The means of some lines; distances of training rows to themselves and their seconds say nothing."""
    *numbers, seconds = np.mean(found, 0)
    texts = [*(f"{number:.3f}" for number in numbers), f"{seconds:.0f}"]
    return " | ".join([*texts[:-3], "", "", ""] if method == "real" else texts)


# ---------------------------------------------------------------------------------------------- JSON lines


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line to a file."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Synthetic rows of mixed tables: jensen beside SDV.")
    parser.add_argument("phase", choices=["make", "look", "measure", "table"])
    parser.add_argument("--data", type=Path, help="folder of CSV files (make)")
    parser.add_argument("--work", type=Path, required=True, help="folder of splits, synthetic rows and results")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--tables", nargs="+", help="names of files without .csv; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    if options.phase == "make":
        paths = [path for path in options.data.glob("*.csv") if options.tables is None or path.stem in options.tables]
        make(paths, options.seeds, options.methods, options.work)
    else:
        {"look": look, "measure": measure, "table": table}[options.phase](options.work)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
