"""Ways to make real columns about normal, compared by held-out nats per row of a small model in the data's units.

    python benchmarks/table_curves.py FOLDER

FOLDER has the tables of OpenML by name: phoneme.csv, electricity.csv, credit_g.csv, beijing.csv, default.csv. The small
model is scikit-learn's Gaussian mixture of 8 full components in y = T(v), 2 for 200 rows; its log-density plus the
log-slope of T is a density of v. Whole numbers get uniform noise, and rows with an atom are left out, so that a density
is right. T and model are fitted to 200 rows, and to half of at most 10,000 rows. Errors are standard errors of the mean
over held-out rows.
"""

import csv
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_ndtr, ndtri_exp
from sklearn.mixture import GaussianMixture

from jensen.data.atoms import find_atoms
from jensen.monotone import Curves, fit_curve

Pair = tuple[np.ndarray, np.ndarray]  # T(v) and its log-slope
COLUMNS = {
    "phoneme": "V1 V2 V3 V4 V5",
    "electricity": "nswprice nswdemand vicdemand transfer",
    "credit_g": "credit_amount age",
    "beijing": "DEWP PRES",
    "default": "BILL_AMT1 BILL_AMT2 BILL_AMT3 AGE",
}


def affine(train: np.ndarray, v: np.ndarray) -> Pair:
    """Mean 0 and standard deviation 1."""
    scale = train.std()
    return (v - train.mean()) / scale, np.full(len(v), -math.log(scale))


def inverse_sinh(train: np.ndarray, v: np.ndarray) -> Pair:
    """The inverse hyperbolic sine of the distance from the median in interquartile ranges, then affine."""
    low, middle, high = np.quantile(train, (0.25, 0.5, 0.75))
    unit = (high - low) / 1.35 or train.std()

    def curve(v: np.ndarray) -> Pair:
        t = (v - middle) / unit
        return np.arcsinh(t), -0.5 * np.log1p(t**2) - math.log(unit)

    y, slope = curve(v)
    again, further = affine(curve(train)[0], y)
    return again, slope + further


def mixture_cdf(train: np.ndarray, v: np.ndarray) -> Pair:
    """Normal quantiles of the distribution function of a mixture of up to 10 normal laws, chosen by BIC."""
    unit, middle = train.std(), train.mean()
    t = ((train - middle) / unit)[:, None]
    fits = [GaussianMixture(k, random_state=0, reg_covar=1e-8).fit(t) for k in (1, 2, 3, 5, 10) if k < len(t)]
    best = min(fits, key=lambda fit: fit.bic(t))
    means, scales, logs = best.means_[:, 0], np.sqrt(best.covariances_[:, 0, 0]), np.log(best.weights_)
    z = ((v - middle) / unit)[:, None]
    below = np.logaddexp.reduce(logs + log_ndtr((z - means) / scales), 1)
    above = np.logaddexp.reduce(logs + log_ndtr((means - z) / scales), 1)
    density = np.logaddexp.reduce(
        logs - ((z - means) / scales) ** 2 / 2 - np.log(scales) - math.log(2 * math.pi) / 2, 1
    )
    y = np.where(below < above, ndtri_exp(below), -ndtri_exp(above))
    return y, density + y**2 / 2 + math.log(2 * math.pi) / 2 - math.log(unit)


def spline(train: np.ndarray, v: np.ndarray) -> Pair:
    """`jensen.monotone`: a spline through quantiles, with the tails of generalised Pareto laws."""
    curves = Curves([fit_curve(train)])
    column = torch.from_numpy(v)[:, None]
    return curves(column)[:, 0].numpy(), curves.log_slope(column)[:, 0].numpy()


def straight(train: np.ndarray, v: np.ndarray) -> Pair:
    """The same spline with straight lines beyond the outermost training values."""
    inside = np.clip(v, train.min(), train.max())
    y, slope = spline(train, inside)
    return y + (v - inside) * np.exp(slope), slope


WAYS: dict[str, Callable[[np.ndarray, np.ndarray], Pair]] = {
    "affine": affine,
    "asinh": inverse_sinh,
    "mixture": mixture_cdf,
    "straight": straight,
    "spline": spline,
}


def tables(folder: Path) -> dict[str, np.ndarray]:
    """Columns of numbers by the name of their table; rows with missing cells are left out."""
    random = np.random.default_rng(0)
    found = {}
    for name, columns in COLUMNS.items():
        with (folder / f"{name}.csv").open(encoding="utf-8") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if all(row[column] not in ("", "NA", "?") for column in columns.split())
            ]
        values = np.array([[float(row[column]) for column in columns.split()] for row in rows])
        values = values[~np.logical_or.reduce([np.isin(column, find_atoms(column)[0]) for column in values.T])]
        whole = (values == values.round()).all(0)
        values = values + whole * random.uniform(-0.5, 0.5, values.shape)
        found[name] = values[random.permutation(len(values))[:10000]]
    n, z = 2000, random.normal(size=(2000, 3))
    u = z @ np.array([[1, 0.8, 0.3], [0, 0.6, 0.5], [0, 0, 0.8]])
    found["normal"] = u
    found["Cauchy"] = np.tan(np.pi * (0.5 * (1 + np.vectorize(math.erf)(u / math.sqrt(2) / u.std(0))) - 0.5))
    found["decades"] = 10 ** (2 * u)
    found["clusters"] = u + 1e3 * (random.random(n) < 0.5)[:, None] * np.array([1, 1e3, 1e6])
    found["spikes"] = np.where(random.random((n, 3)) < 0.5, 1e-4, 1.0) * u
    return found


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"| table | rows | {' | '.join(WAYS)} |\n|---|---|{'---|' * len(WAYS)}")
    for name, values in tables(Path(sys.argv[1])).items():
        for rows in (200, len(values) // 2):
            train, test = values[:rows], values[len(values) // 2 :]
            line = []
            for way in WAYS.values():
                pairs = [way(train[:, d], np.concatenate([train[:, d], test[:, d]])) for d in range(values.shape[1])]
                y, volume = np.stack([p[0] for p in pairs], 1), sum(p[1] for p in pairs)
                model = GaussianMixture(8 if rows > 200 else 2, random_state=0, reg_covar=1e-3, max_iter=60).fit(
                    y[:rows]
                )
                nats = model.score_samples(y[rows:]) + volume[rows:]
                line.append(f"{nats.mean():,.2f} ± {nats.std() / math.sqrt(len(nats)):,.2f}")
            print(f"| {name} | {rows} | {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
