"""A table whose law is known: latent classes, columns that are independent given the class, cells missing at random.

log p(row) is exact, because the sum over the classes is finite. It is in the data's own units, on the product of
counting and Lebesgue measures.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from jensen.data.table.column import Column, Field, Table

MISSING = 0.2


@dataclass(frozen=True)
class LatentClasses:
    """Rows (colour, grade, visits, heavy, paid, height); `missing` is the probability of each cell to be missing.

    colour: 4 codes. grade: 0 to 9, binomial. visits: zero-inflated negative binomial. heavy: Student's t with 2 degrees
    of freedom. paid: 0 with some probability, else log-normal. height: normal at 1e6, deviation 1.
    """

    missing: float = MISSING
    weights: np.ndarray = field(default_factory=lambda: np.array([0.5, 0.3, 0.2]))
    colours: np.ndarray = field(
        default_factory=lambda: np.array([[0.7, 0.1, 0.1, 0.1], [0.05, 0.8, 0.1, 0.05], [0.1, 0.1, 0.2, 0.6]])
    )

    def _laws(self, k: int) -> tuple:
        """The laws of grade, visits, heavy, paid and height in class k; and the shares of additional zeros."""
        return (
            stats.binom(9, (0.2, 0.5, 0.85)[k]),
            stats.nbinom((1.5, 4.0, 20.0)[k], (0.3, 0.1, 0.5)[k]),
            stats.t(2, loc=(-3.0, 0.0, 5.0)[k], scale=(1.0, 0.5, 2.0)[k]),
            stats.lognorm((0.5, 1.0, 0.3)[k], scale=(1.0, 30.0, 1000.0)[k]),
            stats.norm(1e6 + (0.0, 4.0, -4.0)[k], 1.0),
        )

    @property
    def no_visit(self) -> tuple[float, ...]:
        """The probability of an additional zero of visits in each class."""
        return 0.3, 0.0, 0.1

    @property
    def unpaid(self) -> tuple[float, ...]:
        """The probability that paid is exactly 0 in each class."""
        return 0.6, 0.1, 0.0

    @property
    def table(self) -> Table:
        """The description of the table."""
        types = ("categorical", "ordinal", "count", "continuous", "continuous", "continuous")
        names = ("colour", "grade", "visits", "heavy", "paid", "height")
        stored = ("text", "text", "integer", "float", "float", "float")
        values = (("red", "green", "blue", "grey"), tuple(str(k) for k in range(10)), (), (), (), ())
        columns = [
            Column(name=n, type=t, why="known", stored=s, values=v, missing=self.missing > 0)
            for n, t, s, v in zip(names, types, stored, values, strict=True)
        ]
        laws = (("codes", 4), ("whole", 10), ("count", None), ("real", None), ("real", None), ("real", None))
        fields = [
            Field(name=names[at], column=at, law=law, levels=levels, missing=self.missing > 0)
            for at, (law, levels) in enumerate(laws)
        ]
        return Table(columns=tuple(columns), fields=tuple(fields))

    def sample(self, rows: int, seed: int) -> np.ndarray:
        """Rows of the matrix, (rows, 6), with NaN for missing cells."""
        return self.sample_with_classes(rows, seed)[0]

    def sample_with_classes(self, rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the matrix, and their classes."""
        random = np.random.default_rng(seed)
        classes = random.choice(len(self.weights), rows, p=self.weights)
        x = np.empty((rows, 6))
        for k in range(len(self.weights)):
            at = np.flatnonzero(classes == k)
            x[at, 0] = random.choice(4, len(at), p=self.colours[k])
            for column, law in enumerate(self._laws(k), 1):
                x[at, column] = law.rvs(len(at), random_state=random)
            x[at, 2] *= random.random(len(at)) >= self.no_visit[k]
            x[at, 4] *= random.random(len(at)) >= self.unpaid[k]
        x[random.random(x.shape) < self.missing] = np.nan
        return x, classes

    def log_prob(self, x: np.ndarray, *, generated: bool) -> np.ndarray:
        """log p(row) in nats, (rows): of which cells are missing, too, if `generated`, else of the observed cells."""
        absent = np.isnan(x)
        terms = []
        for k, weight in enumerate(self.weights):
            by_column = np.where(absent, 0, self._log_prob_by_column(np.where(absent, 1, x), k))
            terms.append(np.log(weight) + by_column.sum(1))
        total = np.logaddexp.reduce(terms)
        if generated and self.missing:
            total = total + np.where(absent, np.log(self.missing), np.log1p(-self.missing)).sum(1)
        return total

    def _log_prob_by_column(self, x: np.ndarray, k: int) -> np.ndarray:
        """log p of each cell given class k; the cells have no NaN."""
        grade, visits, heavy, paid, height = self._laws(k)
        mass = np.log1p(-self.no_visit[k]) + visits.logpmf(x[:, 2])
        with np.errstate(divide="ignore"):
            zero, nothing = np.log(self.no_visit[k]), np.log(self.unpaid[k])
        return np.stack(
            [
                np.log(self.colours[k])[x[:, 0].astype(int)],
                grade.logpmf(x[:, 1]),
                np.where(x[:, 2] == 0, np.logaddexp(zero, mass), mass),
                heavy.logpdf(x[:, 3]),
                np.where(x[:, 4] == 0, nothing, np.log1p(-self.unpaid[k]) + paid.logpdf(np.maximum(x[:, 4], 1e-300))),
                height.logpdf(x[:, 5]),
            ],
            1,
        )


def gap(bound: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """The mean of exact - bound over rows in nats per row, and its standard error. A bound has no negative mean."""
    difference = exact - bound
    return float(difference.mean()), float(difference.std() / len(difference) ** 0.5)
