"""Milliseconds of the likelihood of columns for 1,000 rows, beside a Gaussian likelihood of as many dimensions.

    python benchmarks/table_speed.py

Forward pass from the outputs of a decoder to the mean log p(x), and backward pass to the outputs; float32, CPU
time of one thread; the least of some runs. A mixed table has equal parts of codes (2 to 50 levels), whole numbers,
counts and real columns, half of them with atoms. Every column has missing cells. "x" is the preparation.
"""

import time
from collections.abc import Callable

import numpy as np
import torch

from jensen.data.table.column import Field
from jensen.data.table_preparation import TablePreparation, fit_table_preparation
from jensen.likelihood import Codes, ColumnsLikelihood, Count, GaussianLikelihood, Law, LearnedScale, Real, Whole

ROWS = 1000


def table(columns: int, laws: tuple[str, ...]) -> tuple[np.ndarray, list[Field]]:
    """A matrix, and its fields."""
    random = np.random.default_rng(0)
    matrix, fields = np.empty((ROWS, columns)), []
    for column in range(columns):
        law, levels = laws[column % len(laws)], None
        if law == "codes":
            levels = int(random.integers(2, 51))
            matrix[:, column] = random.integers(0, levels, ROWS)
        elif law in ("whole", "count"):
            matrix[:, column] = random.negative_binomial(2, 0.02, ROWS)
            levels = int(matrix[:, column].max()) + 1 if law == "whole" else None
        else:
            matrix[:, column] = random.standard_t(3, ROWS)
            if column % 8 >= 4:
                matrix[:, column] = np.maximum(matrix[:, column], -0.5)
        fields.append(Field(name=str(column), column=column, law=law, levels=levels, missing=True))
    matrix[random.random(matrix.shape) < 0.05] = np.nan
    return matrix, fields


def laws_of(preparation: TablePreparation) -> list[Law]:
    """The law of each field, with 5 components."""
    found: list[Law] = []
    for field in preparation.fields:
        if field.law == "codes":
            found.append(Codes(field.levels, missing=True))
        elif field.law == "whole":
            found.append(Whole(field.levels, field.curve, missing=True))
        elif field.law == "count":
            found.append(Count(field.mean, missing=True))
        else:
            found.append(Real(field.images, missing=True))
    return found


def least(action: Callable[[], object], runs: int) -> float:
    """Milliseconds of an action, the least of some runs after one for warmth."""
    times = []
    for _ in range(runs + 1):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return 1000 * min(times[1:])


def main() -> None:
    """Time each law and print a table."""
    torch.set_num_threads(1)
    print("| columns | law | outputs | forward, ms | forward and backward, ms | quantile, ms | x, ms | fit, s |")
    print("|---|---|---|---|---|---|---|---|")
    for columns in (20, 200, 1000):
        runs = 10 if columns < 1000 else 3
        gaussian = GaussianLikelihood((columns,), LearnedScale(1e-3))
        output = torch.randn(ROWS, 2, columns, requires_grad=True)
        show(columns, "Gaussian", gaussian, output, torch.randn(ROWS, columns), runs, "| |")
        for name in ("codes", "whole", "count", "real", "mixed"):
            matrix, fields = table(columns, ("codes", "whole", "count", "real") if name == "mixed" else (name,))
            start = time.process_time()
            preparation, _ = fit_table_preparation(matrix, fields, 2.0**-52)
            fit = time.process_time() - start
            likelihood, raw = ColumnsLikelihood(laws_of(preparation)), torch.from_numpy(matrix)
            prepare = least(lambda raw=raw, prepare=preparation: prepare(raw), runs)
            output = torch.randn(ROWS, likelihood.outputs, requires_grad=True)
            show(columns, name, likelihood, output, preparation(raw), runs, f"{prepare:.1f} | {fit:.1f} |")


def show(
    columns: int, name: str, likelihood: torch.nn.Module, output: torch.Tensor, x: torch.Tensor, runs: int, rest: str
) -> None:
    """Time one likelihood and print its row."""
    u = torch.rand(x.shape, dtype=torch.float64)
    with torch.no_grad():
        forward = least(lambda: likelihood(output).log_prob(x).mean(), runs)
        quantile = least(lambda: likelihood(output).quantile(u) if name != "Gaussian" else None, 1)
    both = least(lambda: likelihood(output).log_prob(x).mean().backward(), runs)
    outputs = output[0].numel()
    print(f"| {columns} | {name} | {outputs} | {forward:.1f} | {both:.1f} | {quantile:.0f} | {rest}", flush=True)


if __name__ == "__main__":
    main()
