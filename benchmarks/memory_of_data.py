"""Peak memory of training while data grow a hundredfold, in memory beside on disk; and what reading costs in speed.

    pip install "jensen[datasets]"
    python benchmarks/memory_of_data.py memory npy        # or arrow, parquet, images
    python benchmarks/memory_of_data.py speed

Every figure is from a process of its own: the peak resident set that Linux counts (`VmHWM`, pages of mapped files
included), from the reading of the data to the last step. The data are random bytes, images of 3 x 64 x 64.

For speed a training in memory and one on disk of the same data take turns in one process, some steps each; a ratio is
the median over the turns, with its range. CPU time counts what reading and decoding cost. Wall time is less than that
where a second core decodes while the first computes; on one core, or a busy machine, it says little.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, product
from pathlib import Path
from statistics import median

import numpy as np

SHAPE = (64, 64, 3)
BATCH, STEPS, TURNS = 64, 20, 7
COUNT = {"npy": 2000, "arrow": 2000, "parquet": 2000, "images": 100}  # examples of the smallest data
AT_ONCE = 1000  # examples written together


def write(kind: str, count: int, folder: Path) -> Path:
    """DATA of `count` examples."""
    drawn = (np.random.default_rng(start) for start in range(0, count, AT_ONCE))
    blocks = (source.integers(0, 256, (AT_ONCE, *SHAPE), np.uint8) for source in drawn)
    if kind == "npy":
        with (folder / "x.npy").open("wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (count, *SHAPE)}
            np.lib.format.write_array_header_1_0(file, header)
            for block in blocks:
                file.write(block.tobytes())
        return folder / "x.npy"
    if kind == "images":
        return write_images(next(blocks), count, folder)
    return write_table(kind, blocks, folder)


def write_images(noise: np.ndarray, count: int, folder: Path) -> Path:
    """PNG files of noise that neighbours share, so that they compress about as photographs do."""
    from PIL import Image

    for number in range(count):
        small = Image.fromarray(np.roll(noise[number % AT_ONCE], number, axis=0)[:24, :24])
        path = folder / "images" / f"{number // 1000:04d}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize(SHAPE[:2], Image.Resampling.BICUBIC).save(path)
    return folder / "images"


def write_table(kind: str, blocks: Iterator[np.ndarray], folder: Path) -> Path:
    """One shard with a column of fixed-size lists."""
    import pyarrow
    from pyarrow import parquet

    size = int(np.prod(SHAPE))
    schema = pyarrow.schema({"x": pyarrow.list_(pyarrow.uint8(), size)})
    path = folder / f"x.{kind}"
    with (
        pyarrow.OSFile(str(path), "wb") as sink,
        parquet.ParquetWriter(sink, schema, compression="none")
        if kind == "parquet"
        else pyarrow.ipc.new_stream(sink, schema) as writer,
    ):
        for block in blocks:
            column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), size)
            writer.write_table(pyarrow.table([column], schema=schema))
    return path


# ---------------------------------------------------------------------------------------------- one process


def training(data: str, stream: str, hidden: int) -> Callable[[], None]:
    """A function that trains for some steps more."""
    import torch

    from jensen.data import ReadOptions
    from jensen.recipe.build import build_model, load_dataset
    from jensen.recipe.settings import VAERecipe, VAESettings
    from jensen.training.loop import TrainingState, steps
    from jensen.training.settings import TrainingSettings

    torch.set_num_threads(1)
    options = ReadOptions(stream=stream, layout="auto" if Path(data).is_dir() else "vector")
    settings = TrainingSettings(steps=10**6, batch_size=BATCH)
    recipe = VAERecipe(data=data, read=options, model=VAESettings(latent_dims=8, hidden=(hidden,)), training=settings)
    dataset = load_dataset(recipe)
    state = TrainingState.start(build_model(recipe, dataset.spec), settings)
    records = steps(state, dataset.train, dataset.spec.preparation, settings, seed=0)

    def train() -> None:
        for _ in islice(records, STEPS):
            pass

    return train


def memory_of(data: str, stream: str) -> dict[str, float]:
    """Peak memory of a training, and the seconds of reading before it."""
    began = time.perf_counter()
    train = training(data, stream, hidden=16)
    reading = time.perf_counter() - began
    train()
    return {"peak": peak(), "reading": reading}


def speed_of(data: str, hidden: int) -> dict[str, float]:
    """Examples per second in memory and on disk, by CPU time, and the ratios of the two by turns."""
    contestants = [training(data, stream, hidden) for stream in ("never", "always")]
    turns = []
    for turn in range(TURNS + 1):
        times = []
        for train in contestants:
            clocks = time.process_time(), time.perf_counter()
            train()
            times.append((time.process_time() - clocks[0], time.perf_counter() - clocks[1]))
        turns += [times] if turn else []  # the first warms up
    found = {}
    for clock, name in enumerate(("CPU", "wall")):
        here, there = ([BATCH * STEPS / times[which][clock] for times in turns] for which in (0, 1))
        ratios = sorted(disk / memory for disk, memory in zip(there, here, strict=True))
        found |= {f"{name} in memory": median(here), f"{name} on disk": median(there)}
        found |= {f"{name} ratio": median(ratios), f"{name} low": ratios[0], f"{name} high": ratios[-1]}
    return found


def peak() -> float:
    """The largest resident set of this process so far, MiB; `ru_maxrss` would count that of its parent's before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def in_a_process(function: str, **given: object) -> dict[str, float]:
    """What one of the functions above finds in a new process."""
    told = json.dumps([function, given])
    done = subprocess.run([sys.executable, __file__, "--one", told], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------- tables


def memory(kind: str, growth: Sequence[int]) -> None:
    """Peak memory by the size of the data, and the seconds of reading them."""
    print(f"| {kind}: examples | data, MiB | peak, in memory, MiB | peak, on disk, MiB | reading, s | on disk, s |")
    print("|---|---|---|---|---|---|")
    for times in growth:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
            count = COUNT[kind] * times
            data = write(kind, count, Path(folder))
            here, there = (in_a_process("memory_of", data=str(data), stream=stream) for stream in ("never", "always"))
        cells = [here["peak"], there["peak"]]
        seconds = [here["reading"], there["reading"]]
        numbers = [f"{count:,}", f"{count * np.prod(SHAPE) / 2**20:,.0f}", *(f"{cell:,.0f}" for cell in cells)]
        print("|", " | ".join([*numbers, *(f"{second:.1f}" for second in seconds)]), "|", flush=True)


def speed(kinds: Sequence[str]) -> None:
    """Examples per second of the training alone, in memory and on disk."""
    print("| data | hidden units | in memory, per CPU second | on disk | ratio, CPU time | ratio, wall time |")
    print("|---|---|---|---|---|---|")
    for kind, hidden in product(kinds, (16, 256)):
        with tempfile.TemporaryDirectory() as folder:
            data = write(kind, 1000, Path(folder))
            found = in_a_process("speed_of", data=str(data), hidden=hidden)
        rates = (f"{found[f'CPU {where}']:,.0f}" for where in ("in memory", "on disk"))
        ratios = (
            f"{found[f'{clock} ratio']:.2f} ({found[f'{clock} low']:.2f} to {found[f'{clock} high']:.2f})"
            for clock in ("CPU", "wall")
        )
        print("|", " | ".join([kind, str(hidden), *rates, *ratios]), "|", flush=True)
    print(f"{len(os.sched_getaffinity(0))} cores")


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=("memory", "speed"))
    parser.add_argument("kind", nargs="?", choices=tuple(COUNT))
    parser.add_argument("--times", type=int, nargs="+", default=(1, 10, 100), help="sizes, of the smallest")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        function, arguments = json.loads(given.one)
        print(json.dumps({"memory_of": memory_of, "speed_of": speed_of}[function](**arguments)))
    elif given.table == "memory":
        memory(given.kind or "npy", given.times)
    else:
        speed([given.kind] if given.kind else ["npy", "images"])


if __name__ == "__main__":
    main()
