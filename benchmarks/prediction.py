"""What logistic regression makes of the examples that `jensen predict` wrote, beside the model's own rows.

    python benchmarks/prediction.py RUN predictions.csv
    python benchmarks/prediction.py                        # of a joint VAE of the digits that it trains first

The peer is scikit-learn's multinomial LogisticRegression on the run's training split, pixels in [0, 1], its C chosen by
the log-loss on the run's validation split. Accuracies and log-losses are means over the rows of the CSV, which must be
of the run's test split, ± one standard error; the last column is the model's minus the peer's, row by row.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import jensen
from jensen.bound import Estimate
from jensen.cli import main as command

CS = (0.01, 0.1, 1.0)


def flat(x: torch.Tensor, levels: int | None) -> np.ndarray:
    """Pixels in [0, 1], one row per example."""
    return x.flatten(1).double().numpy() / ((levels or 2) - 1)


def log_p(model: LogisticRegression, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """log p(y|x) of the true labels."""
    return model.predict_log_proba(x)[np.arange(len(x)), labels]


def fitted(run: jensen.Run, most: int) -> LogisticRegression:
    """By the C that does best on the validation split."""
    train, validation, levels = run.dataset.train, run.dataset.validation, run.spec.levels
    models = [LogisticRegression(C=c, max_iter=most).fit(flat(train.x, levels), train.labels.numpy()) for c in CS]
    x, labels = flat(validation.x, levels), validation.labels.numpy()
    best = max(range(len(CS)), key=lambda k: log_p(models[k], x, labels).mean())
    print(
        f"C = {CS[best]}, of {CS}; {len(train):,} training examples, iterations {models[best].n_iter_.max()} of {most}"
    )
    return models[best]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("csv", type=Path, nargs="?")
    parser.add_argument("--iterations", type=int, default=100, help="of L-BFGS, at most")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = (options.run, options.csv) if options.csv else digits(Path(folder))
        compare(*place, options.iterations)


def digits(folder: Path) -> tuple[Path, Path]:
    """A joint VAE of the digits by the default recipe, and what it predicts."""
    run, rows = folder / "digits", folder / "predictions.csv"
    for words in (["train", "vae", "--predict", "label", "--out", str(run)], ["predict", str(run), "--out", str(rows)]):
        if status := command(words):
            raise SystemExit(status)
    return run, rows


def compare(folder: Path, table: Path, iterations: int) -> None:
    """Print both columns and their difference."""
    run, rows = jensen.load(folder), list(csv.DictReader(table.open()))
    index = torch.tensor([int(row["example"]) for row in rows])
    test = run.dataset.test[index]
    x, labels = flat(test.x, run.spec.levels), test.labels.numpy()
    peer = fitted(run, iterations)
    by_peer = {"log-loss": -log_p(peer, x, labels), "accuracy": (peer.predict(x) == labels).astype(float)}
    ours = {
        "log-loss": np.array([-np.log(max(float(row[f"p({row['label']})"]), 1e-300)) for row in rows]),
        "accuracy": np.array([float(row["predicted"] == row["label"]) for row in rows]),
    }
    print(f"{len(rows):,} test examples of {run.spec.source}")
    for name in ("accuracy", "log-loss"):
        columns = ours[name], by_peer[name], ours[name] - by_peer[name]
        shown = [str(Estimate.of(torch.from_numpy(column))) for column in columns]
        print(
            f"{name:9} {run.folder.name} {shown[0]:>20}   logistic regression {shown[1]:>20}  difference {shown[2]:>20}"
        )


if __name__ == "__main__":
    main()
