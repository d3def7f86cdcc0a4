"""Hidden cells of mixed tables, filled by jensen and by its peers: error, accuracy, CRPS, coverage, CPU seconds.

    PEER/bin/python benchmarks/table_imputation.py make --data FOLDER --work WORK --methods miceforest
    python benchmarks/table_imputation.py make --data FOLDER --work WORK --methods jensen mean kNN iterative ...
    python benchmarks/table_imputation.py table --work WORK

FOLDER holds CSV files. PEER is a virtual environment with miceforest, pandas and scikit-learn. Of each table 1,000
random rows are taken, and 30 % of their known cells are hidden. `random`: every cell with the same probability.
`by-column`: the first column of numbers without gaps stays known; cells of other columns are hidden with probability
0.5 in rows where it is above its median, 0.1 in the others, so that they are missing at random given what is known.
A method gets the table with gaps as a DataFrame, learns from it and fills it.

Errors of numbers are in standard deviations of their column: RMSE of the mean of the draws, MAE of the median, CRPS of
the draws (of one value it is the absolute error), each averaged over cells and then over columns. Categories are text
and columns of two values, accuracy that of the most frequent draw. Coverage is that of central intervals of the draws,
in columns of more than 100 different numbers.

All but `miceforest` and `jensen` see standardised numbers and an indicator of each value of a category but the last.
(The indicators of all values add up to 1, so a regression would find each from the guesses of the others, and learn
nothing else.) A category is filled by its largest indicator. WORK holds JSON lines, so the program may be interrupted.
"""

import argparse
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from tables import LEFT_OUT, Form, append, read

ROWS = 1000
SHARE = 0.3
MANY, FEW = 0.5, 0.1  # shares of hidden cells where the known column is above its median, and elsewhere
DRAWS = {"jensen": 100, "iterative, drawn": 20, "miceforest": 5}
LEVELS = (0.5, 0.8, 0.95)
DIFFERENT = 100  # numbers of a column in which intervals are judged
PATTERNS = ("random", "by-column")

Filled = np.ndarray  # (draws, rows, columns), in the form of `Form`
Method = Callable[[pd.DataFrame, Form, int], Filled]

# ---------------------------------------------------------------------------------------------- the gaps


def rows_of(path: Path, seed: int) -> pd.DataFrame:
    """The rows of a table."""
    rows = pd.read_csv(path).drop(columns=LEFT_OUT.get(path.stem, []))
    chosen = np.random.default_rng(seed).permutation(len(rows))[:ROWS]
    return rows.iloc[chosen].reset_index(drop=True)


def hidden(rows: pd.DataFrame, form: Form, pattern: str, seed: int) -> np.ndarray:
    """Which cells are hidden, (rows, columns)."""
    source, matrix = np.random.default_rng((seed, 1)), form(rows)
    if pattern == "random":
        share = np.full(matrix.shape, SHARE)
    else:
        whole = [
            k for k, values in enumerate(form.values.values()) if values is None and not np.isnan(matrix[:, k]).any()
        ]
        known = matrix[:, whole[0]]
        share = np.where(known > np.median(known), MANY, FEW)[:, None].repeat(matrix.shape[1], 1)
        share[:, whole[0]] = 0
    return (source.random(matrix.shape) < share) & ~np.isnan(matrix)


# ---------------------------------------------------------------------------------------------- methods


class Indicators:
    """Standardised numbers, and an indicator of each value of a category but the last."""

    def __init__(self, x: np.ndarray, form: Form) -> None:
        self.counts = [0 if values is None else len(values) for values in form.values.values()]
        self.mean, self.scale = np.nanmean(x, 0), np.nanstd(x, 0)
        self.scale[self.scale == 0] = 1

    def wide(self, x: np.ndarray) -> np.ndarray:
        """From cells to numbers and indicators."""
        found = []
        for k, count in enumerate(self.counts):
            value = x[:, k : k + 1]
            number = (value - self.mean[k]) / self.scale[k]
            indicators = np.where(np.isnan(value), np.nan, value == np.arange(max(1, count - 1)))
            found.append(indicators if count else number)
        return np.concatenate(found, 1)

    def narrow(self, wide: np.ndarray) -> np.ndarray:
        """From numbers and indicators to cells."""
        found, at = np.empty((len(wide), len(self.counts))), 0
        for k, count in enumerate(self.counts):
            own = wide[:, at : at + max(1, count - 1)]
            at += own.shape[1]
            each = np.concatenate([own, 1 - own.sum(1, keepdims=True)], 1)
            found[:, k] = each.argmax(1) if count else own[:, 0] * self.scale[k] + self.mean[k]
        return found


def of_sklearn(build: Callable[[int], object], draws: int = 1) -> Method:
    """An imputer of scikit-learn, fitted `draws` times with other seeds."""

    def fill(rows: pd.DataFrame, form: Form, seed: int) -> Filled:
        x = form(rows)
        indicators = Indicators(x, form)
        wide = indicators.wide(x)
        return np.stack([indicators.narrow(build(1000 * seed + k).fit_transform(wide)) for k in range(draws)])

    return fill


def _mean(seed: int) -> object:
    from sklearn.impute import SimpleImputer

    return SimpleImputer()


def _neighbours(seed: int) -> object:
    from sklearn.impute import KNNImputer

    return KNNImputer()


def _iterative(seed: int) -> object:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(random_state=seed)


def _drawn(seed: int) -> object:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    return IterativeImputer(sample_posterior=True, random_state=seed)


def _forest(seed: int) -> object:
    """As missForest: the trees of a random forest, each column given all others, in rounds."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401
    from sklearn.impute import IterativeImputer

    forest = RandomForestRegressor(n_estimators=20, max_features="sqrt", random_state=seed)
    return IterativeImputer(forest, max_iter=5, random_state=seed)


def miceforest(rows: pd.DataFrame, form: Form, seed: int) -> Filled:
    """MICE by gradient-boosted trees with mean matching: five data sets, five rounds, else its defaults."""
    import miceforest as mf

    frame = pd.DataFrame(form(rows), columns=[f"x{k}" for k in range(len(form.values))])
    for name, values in zip(frame.columns, form.values.values(), strict=True):
        if values is not None:
            frame[name] = frame[name].astype("category")
    kernel = mf.ImputationKernel(frame, num_datasets=DRAWS["miceforest"], random_state=seed)
    kernel.mice(5, num_threads=1)
    whole = [kernel.complete_data(k).astype(float).to_numpy() for k in range(DRAWS["miceforest"])]
    return np.stack(whole)


def jensen_vae(rows: pd.DataFrame, form: Form, seed: int) -> Filled:
    """`jensen train vae` and `jensen impute` with their default settings."""
    import torch

    import jensen

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        recipe = {"data": rows, "seed": seed, "read": {"test_fraction": 0.0}}
        run = jensen.train(jensen.VAERecipe.model_validate(recipe), Path(folder) / "run")
        found = jensen.impute(run, rows, draws=DRAWS["jensen"], fill="draw", seed=seed)
        return np.stack([form(frame) for frame in found.frames(like=rows)])


METHODS: dict[str, Method] = {
    "mean": of_sklearn(_mean),
    "kNN": of_sklearn(_neighbours),
    "iterative": of_sklearn(_iterative),
    "iterative, drawn": of_sklearn(_drawn, DRAWS["iterative, drawn"]),
    "forest": of_sklearn(_forest),
    "miceforest": miceforest,
    "jensen": jensen_vae,
}


def make(paths: list[Path], seeds: list[int], methods: list[str], patterns: list[str], work: Path) -> None:
    """Fill the tables that `work` lacks, and add a line of measures for each."""
    done = {tuple(line[key] for key in ("table", "pattern", "seed", "method")) for line in read(work / "imputed.jsonl")}
    tasks = [(s, m, p, path) for s in seeds for m in methods for p in patterns for path in paths]
    for seed, method, pattern, path in tasks:
        if (path.stem, pattern, seed, method) in done:
            continue
        rows = rows_of(path, seed)
        form = Form.of(path.stem, rows)
        gaps = hidden(rows, form, pattern, seed)
        began = time.process_time()
        filled = METHODS[method](rows.mask(gaps), form, seed)
        seconds = round(time.process_time() - began, 1)
        line = {"table": path.stem, "pattern": pattern, "seed": seed, "method": method, "cpu_seconds": seconds}
        append(work / "imputed.jsonl", line | measures(filled, form(rows), gaps, form))
        print(line, flush=True)


# ---------------------------------------------------------------------------------------------- measures


def measures(filled: Filled, truth: np.ndarray, gaps: np.ndarray, form: Form) -> dict[str, float | None]:
    """The errors of numbers, the accuracy of categories and the coverage of intervals."""
    found: dict[str, list[float]] = defaultdict(list)
    for k, values in enumerate(form.values.values()):
        own, draws = truth[gaps[:, k], k], filled[:, gaps[:, k], k]
        if not len(own):
            continue
        assert np.isfinite(draws).all()
        if values is not None:
            mode = np.stack([(draws == code).mean(0) for code in range(len(values))]).argmax(0)
            found["accuracy"].append((mode == own).mean())
            continue
        scale = np.nanstd(truth[:, k])
        found["rmse"].append(np.sqrt(((draws.mean(0) - own) ** 2).mean()) / scale)
        found["mae"].append(np.abs(np.median(draws, 0) - own).mean() / scale)
        found["crps"].append(crps(draws, own).mean() / scale)
        if len(draws) > 1 and len(np.unique(truth[:, k])) > DIFFERENT:
            for level in LEVELS:
                low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
                found[f"coverage_{100 * level:g}"].append(((low <= own) & (own <= high)).mean())
    keys = ("rmse", "mae", "crps", "accuracy", *(f"coverage_{100 * level:g}" for level in LEVELS))
    return {key: float(np.mean(found[key])) if found[key] else None for key in keys}


def crps(draws: np.ndarray, own: np.ndarray) -> np.ndarray:
    """E|X - y| - E|X - X'| / 2 of each cell, from draws (draws, cells), without the bias of few draws."""
    count = len(draws)
    near = np.abs(draws - own).mean(0)
    if count == 1:
        return near
    ranks = 2 * np.arange(1, count + 1) - count - 1
    return near - (np.sort(draws, 0) * ranks[:, None]).sum(0) / (count * (count - 1))


# ---------------------------------------------------------------------------------------------- the table


def table(lines: list[dict[str, object]]) -> None:
    """A table for each pattern: means over seeds."""
    keys = ("rmse", "mae", "crps", "accuracy", "coverage_50", "coverage_80", "coverage_95", "cpu_seconds")
    for pattern in PATTERNS:
        print(f"\n{pattern}\n\n| table | method | seeds | RMSE | MAE | CRPS | accuracy | 50 % | 80 % | 95 % | CPU s |")
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        own = [line for line in lines if line["pattern"] == pattern]
        for name in sorted({str(line["table"]) for line in own}):
            for method in METHODS:
                found = [line for line in own if (line["table"], line["method"]) == (name, method)]
                if not found:
                    continue
                values = [[float(str(line[key])) for line in found if line[key] is not None] for key in keys]
                cells = [
                    "" if not of else f"{np.mean(of):.0f}" if k == 7 else f"{np.mean(of):.3f}"
                    for k, of in enumerate(values)
                ]
                print(f"| {name} | {method} | {len(found)} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Hidden cells of mixed tables, filled by jensen and by its peers.")
    parser.add_argument("phase", choices=["make", "table"])
    parser.add_argument("--data", type=Path, help="folder of CSV files (make)")
    parser.add_argument("--work", type=Path, required=True, help="folder of the results")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD")
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS), choices=PATTERNS)
    parser.add_argument("--tables", nargs="+", help="names of files without .csv; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options = parser.parse_args()
    if options.phase == "make":
        options.work.mkdir(parents=True, exist_ok=True)
        paths = sorted(path for path in options.data.glob("*.csv") if not options.tables or path.stem in options.tables)
        make(paths, options.seeds, options.methods, options.patterns, options.work)
    else:
        table(read(options.work / "imputed.jsonl"))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
