"""Anomaly scores of jensen, and of its peers, on the sets of ADBench: AUROC and AUPRC.

    python benchmarks/anomalies.py --data FOLDER --out anomalies.jsonl --processes 2
    python benchmarks/anomalies.py --out anomalies.jsonl --table

FOLDER holds ADBench's files `NUMBER_NAME.npz` with `X` (rows, columns) and `y` (1 = anomaly). The protocol is that of
DTE (Livernoche et al. 2024, "On diffusion modeling for anomaly detection", semi-supervised): a set of more than 50,000
rows is reduced to 50,000 random rows; half of the normal rows are for training, all other rows for the test; columns
are standardised by the training rows. Two things differ. The half is drawn at random for each seed, where DTE takes the
first half of the file; and no set of less than 1,000 rows is filled up to 1,000 by copies, which DTE draws before it
splits, so that copies of test rows get into the training.

Every method has one setting for all sets. The peers have their defaults: kNN (distance to the fifth neighbour, as
PyOD's) and DTE-NP (mean distance to five neighbours), which are one method, `neighbours`; IsolationForest and LOF of
scikit-learn; ECOD and the VAE of PyOD. The program appends one line per set, seed and score, and computes only what the
file lacks, so that it may be interrupted. The differences in the table are paired by set; their standard errors and
intervals are by the bootstrap over sets.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

Scorer = Callable[[np.ndarray, np.ndarray, int], np.ndarray | dict[str, np.ndarray]]

MOST_ROWS = 50_000
# The sets on which jensen's settings were chosen, default_rng(0).permutation(33)[:11] of the sorted names
CHOSEN = {"12_fault", "15_Hepatitis", "17_InternetAds", "22_magic.gamma", "24_mnist", "33_skin", "39_vertebral"}
CHOSEN |= {"42_WBC", "44_Wilt", "5_campaign", "8_celeba"}
RESAMPLES = 20_000

# ---------------------------------------------------------------------------------------------- the protocol


def split(path: Path, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training rows, test rows, and the test rows' y; standardised by the training rows."""
    with np.load(path) as held:
        x, y = held["X"].astype(float), held["y"].astype(int)
    source = np.random.default_rng(seed)
    if len(x) > MOST_ROWS:
        kept = source.choice(len(x), MOST_ROWS, replace=False)
        x, y = x[kept], y[kept]
    normal = source.permutation(np.flatnonzero(y == 0))
    half = round(len(normal) / 2)
    train, test = x[normal[:half]], np.concatenate([normal[half:], np.flatnonzero(y == 1)])
    mean, scale = train.mean(0), train.std(0)
    scale[scale == 0] = 1
    return (train - mean) / scale, (x[test] - mean) / scale, y[test]


# ---------------------------------------------------------------------------------------------- peers


def neighbours(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """PyOD's kNN with its defaults, and DTE's non-parametric estimate, which orders rows as the mean distance does."""
    from sklearn.neighbors import NearestNeighbors

    distances = NearestNeighbors(n_neighbors=min(5, len(train))).fit(train).kneighbors(test)[0]
    return {"kNN": distances[:, -1], "DTE-NP": distances.mean(1)}


def isolation_forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Scikit-learn's IsolationForest with its defaults."""
    from sklearn.ensemble import IsolationForest

    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


def lof(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Scikit-learn's local outlier factor with its defaults."""
    from sklearn.neighbors import LocalOutlierFactor

    return -LocalOutlierFactor(n_neighbors=min(20, len(train) - 1), novelty=True).fit(train).score_samples(test)


def ecod(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """PyOD's ECOD with its defaults."""
    from pyod.models.ecod import ECOD

    return ECOD().fit(train).decision_function(test)


def pyod_vae(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """PyOD's VAE with its defaults."""
    from pyod.models.vae import VAE

    return VAE(random_state=seed, verbose=0, device="cpu").fit(train).decision_function(test)


# ---------------------------------------------------------------------------------------------- jensen


def jensen_scores(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """`Novelty`, and each of its densities alone; in float32, which halves the time."""
    from jensen.mixture import Novelty

    novelty = Novelty.fit(torch.from_numpy(train).float(), seed=seed)
    views = novelty.by_view(torch.from_numpy(test).float())
    found = {
        "jensen": torch.stack(list(views.values())).mean(0),
        **{f"jensen, {', '.join(name)}": v for name, v in views.items()},
    }
    return {name: -score.double().numpy() for name, score in found.items()}


# ---------------------------------------------------------------------------------------------- the runs

METHODS: dict[str, Scorer] = {
    "jensen": jensen_scores,
    "neighbours": neighbours,
    "IsolationForest": isolation_forest,
    "LOF": lof,
    "ECOD": ecod,
    "PyOD's VAE": pyod_vae,
}


def work(path: Path, seed: int, method: str) -> list[dict[str, object]]:
    """The lines of one set, seed and method."""
    torch.set_num_threads(1)
    train, test, y = split(path, seed)
    began = time.process_time()
    found = METHODS[method](train, test, seed)
    sizes = {"train": len(train), "test": len(test), "columns": train.shape[1]}
    lines, seconds = [], round(time.process_time() - began, 2)
    for name, score in (found if isinstance(found, dict) else {method: found}).items():
        finite = np.nan_to_num(np.asarray(score, float), nan=np.finfo(float).max, posinf=np.finfo(float).max)
        quality = {"auroc": float(roc_auc_score(y, finite)), "auprc": float(average_precision_score(y, finite))}
        line = {"set": path.stem, "seed": seed, "method": method, "score": name}
        lines.append(line | quality | {"cpu_seconds": seconds} | sizes)
    return lines


def run(paths: list[Path], seeds: int, methods: list[str], out: Path, processes: int) -> None:
    """Compute what `out` lacks, and append it."""
    done = {(line["set"], line["seed"], line["method"]) for line in read(out)}
    tasks = [(p, seed, method) for p in paths for seed in range(seeds) for method in methods]
    tasks = [task for task in tasks if (task[0].stem, *task[1:]) not in done]
    tasks.sort(key=lambda task: task[0].stat().st_size * (task[1] + 1))  # cheap first, and all sets before all seeds
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(work, *task) for task in tasks]):
            with out.open("a") as file:
                file.writelines(json.dumps(line) + "\n" for line in future.result())


def read(out: Path) -> list[dict[str, object]]:
    """The lines of a file; none if there is no file."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


# ---------------------------------------------------------------------------------------------- the table


def table(lines: list[dict[str, object]], names: list[str], title: str) -> None:
    """Means over the sets of the means over seeds, and the gains of jensen, over the seeds that both have."""
    if not names:
        return
    values: dict[str, dict[tuple[str, int], np.ndarray]] = defaultdict(dict)
    for line in lines:
        numbers = np.array([float(str(line[key])) for key in ("auroc", "auprc", "cpu_seconds")])
        values[str(line["score"])][str(line["set"]), int(str(line["seed"]))] = numbers
    print(f"\n{title}: {len(names)} sets\n")
    print("| score | sets, seeds | AUROC | AUPRC | jensen's gain in AUROC | in AUPRC | CPU seconds |")
    print("|---|---|---|---|---|---|---|")
    for score, found in values.items():
        both = {name: [key for key in found if key[0] == name and key in values["jensen"]] for name in names}
        both = {name: keys for name, keys in both.items() if keys}
        if not both:
            continue
        own, best = (
            np.array([np.mean([v[k] for k in keys], 0) for keys in both.values()]) for v in (found, values["jensen"])
        )
        gains = ["", ""] if score == "jensen" else [gain(best[:, column] - own[:, column]) for column in (0, 1)]
        count, (auroc, auprc, _) = sum(map(len, both.values())), own.mean(0)
        seconds = sum(found[key][2] for keys in both.values() for key in keys)
        cells = [
            score,
            f"{len(both)}, {count / len(both):.3g}",
            f"{auroc:.4f}",
            f"{auprc:.4f}",
            *gains,
            f"{seconds:,.0f}",
        ]
        print(f"| {' | '.join(cells)} |")


def gain(differences: np.ndarray) -> str:
    """The mean difference, its bootstrap standard error over sets, and a 95 % interval."""
    drawn = np.random.default_rng(0).integers(len(differences), size=(RESAMPLES, len(differences)))
    means = differences[drawn].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{differences.mean():+.4f} ± {means.std():.4f} ({low:+.3f} to {high:+.3f})"


def each_set(lines: list[dict[str, object]], names: list[str]) -> None:
    """AUROC of each set and method, in hundredths."""
    methods = list(dict.fromkeys(str(line["score"]) for line in lines))
    print(f"\n| AUROC | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    for name in names:
        found = [[float(str(r["auroc"])) for r in lines if (r["set"], r["score"]) == (name, m)] for m in methods]
        print(f"| {name} | {' | '.join(f'{100 * np.mean(v):.1f}' if v else '' for v in found)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Anomaly scores of jensen and of its peers on ADBench.")
    parser.add_argument("--data", type=Path, help="folder of ADBench's .npz files")
    parser.add_argument("--out", type=Path, required=True, help="the .jsonl to append to")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--chosen", action="store_true", help="only the sets on which the settings were chosen")
    parser.add_argument("--table", action="store_true", help="only print the table of what there is")
    options = parser.parse_args()
    if options.data and not options.table:
        paths = list(options.data.glob("*.npz"))
        paths = [path for path in paths if not options.chosen or path.stem in CHOSEN]
        run(paths, options.seeds, options.methods, options.out, options.processes)
    lines = read(options.out)
    names = sorted({str(line["set"]) for line in lines if line["score"] == "jensen"})
    table(lines, names, "All")
    table(lines, [name for name in names if name in CHOSEN], "The settings were chosen on these")
    table(lines, [name for name in names if name not in CHOSEN], "The others")
    each_set(lines, names)


if __name__ == "__main__":
    main()
