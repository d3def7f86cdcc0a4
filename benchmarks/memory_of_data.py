"""Peak memory of training while data grow a hundredfold, in memory beside on disk; and what reading costs in speed.

    pip install "jensen[datasets]"
    python benchmarks/memory_of_data.py memory npy        # or arrow, parquet, images
    python benchmarks/memory_of_data.py speed

Every figure is from a process of its own: the peak resident set that Linux counts (`VmHWM`, pages of mapped files
included), from the reading of the data to the last step. The data are random bytes, images of 3 x 64 x 64. The
clock is the wall's: on one core decoding and computing take turns, so that reading ahead can only hide the disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np

SHAPE = (64, 64, 3)
BATCH, STEPS = 64, 30
GROWTH = (1, 10, 100)
COUNT = {"npy": 2000, "arrow": 2000, "parquet": 2000, "images": 200}  # examples of the smallest data
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
        parquet.ParquetWriter(sink, schema, compression="none", use_dictionary=False)
        if kind == "parquet"
        else pyarrow.ipc.new_stream(sink, schema) as writer,
    ):
        for block in blocks:
            column = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), size)
            writer.write_table(pyarrow.table([column], schema=schema))
    return path


# ---------------------------------------------------------------------------------------------- one process


def measured(data: str, stream: str, hidden: int, parts: bool) -> dict[str, float]:
    """What one training shows: peak memory, seconds of reading, examples per second of its parts and of the whole."""
    import torch

    from jensen.data import ReadOptions
    from jensen.recipe.build import build_model, load_dataset
    from jensen.recipe.settings import VAERecipe, VAESettings
    from jensen.training.loop import TrainingState, batch_at, gradient, optimise, steps
    from jensen.training.settings import TrainingSettings

    torch.set_num_threads(1)
    options = ReadOptions(stream=stream, layout="auto" if Path(data).is_dir() else "vector")
    training = TrainingSettings(steps=10**6, batch_size=BATCH)
    recipe = VAERecipe(data=data, read=options, model=VAESettings(latent_dims=8, hidden=(hidden,)), training=training)
    imported, began = peak(), time.perf_counter()
    dataset = load_dataset(recipe)
    reading = time.perf_counter() - began
    preparation = dataset.spec.preparation
    state = TrainingState.start(build_model(recipe, dataset.spec), training)
    records = steps(state, dataset.train, preparation, training, seed=0)
    whole = rate(lambda: next(records))
    found = {"imported": imported, "peak": peak(), "reading": reading, "training": whole}
    if parts:
        numbers = iter(range(10**6, 2 * 10**6))
        found["batches alone"] = rate(lambda: batch_at(next(numbers), dataset.train, preparation, BATCH, 0))
        fresh = TrainingState.start(build_model(recipe, dataset.spec), training)
        batch = batch_at(0, dataset.train, preparation, BATCH, 0)

        def step() -> None:
            from jensen.randomness import Noise, generator

            gradient(fresh.model, batch, 0, Noise(generator(0)), lambda loss: loss.backward(), None)
            optimise(fresh, 1e-3, None)

        found["steps alone"] = rate(step)
    return found


def rate(step: Callable[[], object]) -> float:
    """Examples per second of STEPS steps, after a few that do not count."""
    for _ in range(5):
        step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return STEPS * BATCH / (time.perf_counter() - began)


def peak() -> float:
    """The largest resident set of this process so far, MiB; `ru_maxrss` would count that of its parent's before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def in_a_process(data: Path, stream: str, hidden: int = 16, parts: bool = False) -> dict[str, float]:
    """`measured` in a new process."""
    told = json.dumps({"data": str(data), "stream": stream, "hidden": hidden, "parts": parts})
    done = subprocess.run([sys.executable, __file__, "--one", told], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------- tables


def memory(kind: str) -> None:
    """Peak memory by the size of the data, and the seconds of reading them."""
    print(f"| {kind}: examples | data, MiB | peak, in memory, MiB | peak, on disk, MiB | reading, s | on disk, s |")
    print("|---|---|---|---|---|---|")
    for times in GROWTH:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["HF_DATASETS_CACHE"] = f"{folder}/cache"
            count = COUNT[kind] * times
            data = write(kind, count, Path(folder))
            here, there = (in_a_process(data, stream) for stream in ("never", "always"))
        cells = [here["peak"], there["peak"]]
        seconds = [here["reading"], there["reading"]]
        numbers = [f"{count:,}", f"{count * np.prod(SHAPE) / 2**20:,.0f}", *(f"{cell:,.0f}" for cell in cells)]
        print("|", " | ".join([*numbers, *(f"{second:.1f}" for second in seconds)]), "|", flush=True)
    print(f"Imports alone: {there['imported']:,.0f} MiB")


def speed() -> None:
    """Examples per second: batches alone, steps alone, both by turns as if nothing overlapped, and the training."""
    heads = "data", "hidden units", "batches alone", "steps alone", "by turns", "on disk", "in memory", "ratio"
    print("|", " | ".join(heads), "|")
    print("|" + "---|" * len(heads))
    for kind, count, hidden in product(("npy", "images"), (2000,), (16, 256)):
        with tempfile.TemporaryDirectory() as folder:
            data = write(kind, count, Path(folder))
            here, there = (in_a_process(data, stream, hidden, parts=True) for stream in ("never", "always"))
        batches, alone = there["batches alone"], there["steps alone"]
        rates = [batches, alone, 1 / (1 / batches + 1 / alone), there["training"], here["training"]]
        ratio = f"{there['training'] / here['training']:.2f}"
        print("|", " | ".join([kind, str(hidden), *(f"{each:,.0f}" for each in rates), ratio]), "|", flush=True)
    print(f"{len(os.sched_getaffinity(0))} cores")


def main() -> None:
    """Print the table that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", choices=("memory", "speed"))
    parser.add_argument("kind", nargs="?", choices=tuple(COUNT), default="npy")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measured(**json.loads(given.one))))
    elif given.table == "memory":
        memory(given.kind)
    else:
        speed()


if __name__ == "__main__":
    main()
