"""What tables cost: the likelihood of columns beside a Gaussian one, and a million rows on disk beside in memory.

    python benchmarks/table_speed.py
    python benchmarks/table_speed.py --rows 1000000 --steps 300

Milliseconds of the likelihood are for 1,000 rows: forward pass from the outputs of a decoder to the mean log p(x), and
backward pass to the outputs; float32, CPU time of one thread; the least of some runs. A mixed table has equal parts of
codes (2 to 50 levels), whole numbers, counts and real columns, half of them with atoms. Every column has missing cells.
"x" is the preparation.

With --rows, a CSV file of so many rows and 20 mixed columns is written, and `jensen train vae` learns it with `--stream
always` and with `--stream never`, each in a process of its own: CPU seconds of reading and of a step (with one
validation and one checkpoint, one thread), and the peak of the resident memory, which counts pages of mapped files. A
third process is stopped by Ctrl-C after a fifth of the steps or a little later; `jensen resume` must end with the same
weights as the first.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

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


def laws() -> None:
    """Time each law and print a table."""
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


# ---------------------------------------------------------------------------------------------- many rows

AT_ONCE = 50_000


def write_rows(path: Path, rows: int) -> None:
    """A CSV file of 20 columns: 5 categories, 5 whole numbers, 3 counts, 5 real numbers, 2 dates; 3 with gaps."""
    import pandas

    for start in range(0, rows, AT_ONCE):
        source, count = np.random.default_rng(start), min(AT_ONCE, rows - start)
        hidden = source.integers(0, 8, count)
        columns: dict[str, object] = {}
        for k in range(5):
            columns[f"word{k}"] = np.array([f"w{code}" for code in range(4 + 3 * k)])[
                (hidden * (k + 1) + source.integers(0, 3, count)) % (4 + 3 * k)
            ]
            columns[f"whole{k}"] = np.round(source.normal(50 + 9 * hidden, 9 + 20 * k)).astype(int)
            columns[f"real{k}"] = np.round(source.lognormal(hidden / 4, 0.5 + k / 5), 4)
        for k in range(3):
            columns[f"count{k}"] = source.poisson(0.3 + hidden * k)
        for k in range(2):
            days = (700 * hidden + source.integers(0, 900, count)).astype("timedelta64[D]")
            columns[f"date{k}"] = np.datetime64("2001-01-01") + days
        frame = pandas.DataFrame(columns)
        for name in ("word0", "real0", "whole0"):
            frame[name] = frame[name].mask(source.random(count) < 0.05)
        frame.to_csv(path, index=False, mode="a" if start else "w", header=not start)


def child(words: list[str]) -> None:
    """Run a command of jensen in this process, and print what it cost."""
    from jensen.cli import main as command
    from jensen.run import session

    read, marks = session.load_dataset, [time.process_time()]

    def timed(*given: object, **named: object) -> object:
        found = read(*given, **named)
        marks.append(time.process_time())
        return found

    session.load_dataset = timed
    torch.set_num_threads(1)
    status = command(words)
    marks.append(time.process_time())
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"status": status, "marks": marks, "gigabytes": int(peak.split()[1]) / 1e6}))


def many_rows(rows: int, steps: int) -> None:
    """Train on many rows, on disk and in memory, interrupt and resume, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.csv", rows)
        print(f"{rows:,} rows, {(folder / 'rows.csv').stat().st_size / 1e9:.2f} GB of CSV\n")
        print("| | CPU seconds to read | CPU ms a step | peak memory, GB |\n|---|---|---|---|", flush=True)
        train = ["train", "vae", "--data", str(folder / "rows.csv"), "--steps", str(steps)]
        train += ["--validate-every", str(steps), "--first-look", "0"]
        for stream in ("always", "never"):
            cost = costs([*train, "--stream", stream, "--out", str(folder / stream)])
            begin, read, end = cost["marks"]
            step = 1000 * (end - read) / steps
            print(f"| {stream} | {read - begin:.0f} | {step:.1f} | {cost['gigabytes']:.2f} |", flush=True)
        often = [*train, "--validate-every", str(steps // 5)]  # the lines of metrics are written when it validates
        interrupted([*often, "--stream", "always", "--out", str(folder / "stopped")], folder / "stopped")
        costs(["resume", str(folder / "stopped")])
        last = {name: weights(folder / name) for name in ("always", "never", "stopped")}
        print(f"\nthe same weights after an interruption: {last['stopped'] == last['always']}")
        print(f"the same weights on disk and in memory: {last['never'] == last['always']}")


def costs(words: list[str]) -> dict[str, list[float]]:
    """What a command of jensen cost in a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--child", *words], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def interrupted(words: list[str], run: Path) -> None:
    """Begin a training in a process of its own, and stop it by SIGINT when it has begun."""
    begun = subprocess.Popen(
        [sys.executable, "-m", "jensen", *words], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    told = run / "metrics.jsonl"
    while begun.poll() is None and not (told.exists() and told.stat().st_size):
        time.sleep(0.2)
    begun.send_signal(signal.SIGINT)
    begun.wait()
    steps = [json.loads(line)["step"] for line in told.read_text().splitlines()]
    print(f"\ninterrupted after step {max(steps)} or a little later", flush=True)


def weights(run: Path) -> bytes:
    """The last weights of a run."""
    last = max(path for path in (run / "checkpoints").iterdir() if path.name.startswith("step-"))
    return (last / "model.safetensors").read_bytes()


def main() -> None:
    """The table of the likelihoods, or that of many rows."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description="What tables cost.")
    parser.add_argument("--rows", type=int, help="rows of the CSV file; default: no file, but the likelihoods")
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    laws() if options.rows is None else many_rows(options.rows, options.steps)


if __name__ == "__main__":
    main()
