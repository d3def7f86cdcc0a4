"""Peak memory of training while data grow a hundredfold, in memory beside on disk; and what reading costs in speed.

    pip install "jensen[datasets]"
    python benchmarks/memory_of_data.py memory npy        # or arrow, parquet, images
    python benchmarks/memory_of_data.py speed

Every figure is from a process of its own: the peak resident set that Linux counts (`VmHWM`, pages of mapped files
included), from the reading of the data to the last step. The data are random bytes, images of 3 x 64 x 64.

For speed three trainings of the same data take turns in one process, some steps each, torch computing with one thread:
in memory, on disk as jensen reads it, and on disk with every example read and decoded in turn when its step asks for
it. CPU time counts what reading and decoding cost. Of the wall time that they add to a step in turn, what the second
training does without is what other cores have taken over: (in turn - on disk) / (in turn - in memory), 1 if reading is
hidden altogether. On one core, or a busy machine, it says nothing. Each is the median over the turns, with its range.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from jensen.data.stored import Stored

SHAPE = (64, 64, 3)
BATCH, STEPS, TURNS = 64, 20, 7
PLACES = ("in memory", "on disk", "in turn")
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
    """One shard with a column of fixed-size lists; of Parquet with all rows in one group, as pyarrow writes them."""
    import pyarrow
    from pyarrow import parquet

    size = int(np.prod(SHAPE))
    schema = pyarrow.schema({"x": pyarrow.list_(pyarrow.uint8(), size)})
    columns = (pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(block.reshape(-1)), size) for block in blocks)
    batches = (pyarrow.record_batch([column], schema=schema) for column in columns)
    path = folder / f"x.{kind}"
    if kind == "parquet":
        table = pyarrow.Table.from_batches(batches, schema)
        parquet.write_table(table, path, row_group_size=len(table), compression="none")
        return path
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return path


# ---------------------------------------------------------------------------------------------- one process


class InTurn:
    """Rows on disk of which each is read, and decoded, when its step asks for it: nothing is done beside the step."""

    def __init__(self, stored: "Stored") -> None:
        self._stored, self.device = stored, stored.device

    def __len__(self) -> int:
        return len(self._stored)

    def to(self, device: "torch.device") -> "InTurn":
        """Itself: rows go to a device batch by batch."""
        return self

    def index_select(self, dim: int, index: "Tensor") -> "Tensor":
        """Rows in memory."""
        import torch

        return torch.cat([self._stored[row] for row in index.split(1)])


def training(data: str, place: str, hidden: int) -> Callable[[], None]:
    """A function that trains for some steps more; it reads their batches and no further ones."""
    import torch

    from jensen.data.options import ReadOptions
    from jensen.recipe.build import build_model, load_dataset
    from jensen.recipe.vae.settings import VAERecipe, VAESettings
    from jensen.training.loop import steps
    from jensen.training.settings import TrainingSettings
    from jensen.training.state import TrainingState

    torch.set_num_threads(1)
    stream = "never" if place == "in memory" else "always"
    options = ReadOptions(stream=stream, layout="auto" if Path(data).is_dir() else "vector")
    settings = TrainingSettings(steps=10**6, batch_size=BATCH)
    recipe = VAERecipe(data=data, read=options, model=VAESettings(latent_dims=8, hidden=(hidden,)), training=settings)
    dataset = load_dataset(recipe)
    examples = replace(dataset.train, x=InTurn(dataset.train.x)) if place == "in turn" else dataset.train
    state = TrainingState.start(build_model(recipe, dataset.spec), settings)

    def train() -> None:
        until = settings.model_copy(update={"steps": state.step + STEPS})
        for _ in steps(state, examples, dataset.spec.preparation, until, seed=0):
            pass

    return train


def memory_of(data: str, place: str) -> dict[str, float]:
    """Peak memory of a training, and the seconds of reading before it."""
    began = time.perf_counter()
    train = training(data, place, hidden=16)
    reading = time.perf_counter() - began
    train()
    return {"peak": peak(), "reading": reading}


def speed_of(data: str, hidden: int) -> dict[str, list[float]]:
    """CPU and wall milliseconds of a step by turns, and what comes of them: each the median, lowest and highest."""
    contestants = [training(data, place, hidden) for place in PLACES]
    turns = []
    for turn in range(TURNS + 1):
        times = []
        for train in contestants:
            clocks = time.process_time(), time.perf_counter()
            train()
            times.append((time.process_time() - clocks[0], time.perf_counter() - clocks[1]))
        turns += [times] if turn else []  # the first warms up
    cpu, wall = 1000 / STEPS * np.array(turns).transpose(2, 1, 0)  # (clock, place, turn)
    memory, disk, in_turn = wall
    found = {"ratio": cpu[0] / cpu[1], "taken over": (in_turn - disk) / (in_turn - memory)}
    found |= {f"CPU {place}": times for place, times in zip(PLACES, cpu, strict=True)}
    found |= {f"wall {place}": times for place, times in zip(PLACES, wall, strict=True)}
    return {name: [float(of(values)) for of in (np.median, np.min, np.max)] for name, values in found.items()}


def peak() -> float:
    """The largest resident set of this process so far, MiB; `ru_maxrss` would count that of its parent's before it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def in_a_process(function: str, **given: object) -> dict[str, Any]:
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
            here, there = (in_a_process("memory_of", data=str(data), place=place) for place in PLACES[:2])
        cells = [here["peak"], there["peak"]]
        seconds = [here["reading"], there["reading"]]
        numbers = [f"{count:,}", f"{count * np.prod(SHAPE) / 2**20:,.0f}", *(f"{cell:,.0f}" for cell in cells)]
        print("|", " | ".join([*numbers, *(f"{second:.1f}" for second in seconds)]), "|", flush=True)


def speed(kinds: Sequence[str]) -> None:
    """Milliseconds of a step in memory, on disk and on disk with all of it done in turn."""
    cells = [f"{clock} {place}" for clock in ("CPU", "wall") for place in PLACES]
    print("|", " | ".join(["data", "hidden units", *(f"{cell}, ms" for cell in cells)]), end=" | ")
    print("speed on disk, by CPU time | of reading, taken over by other cores |")
    print("|---" * (len(cells) + 4) + "|")
    for kind, hidden in product(kinds, (16, 256)):
        with tempfile.TemporaryDirectory() as folder:
            found = in_a_process("speed_of", data=str(write(kind, 1000, Path(folder))), hidden=hidden)
        spreads = ("{:.2f} ({:.2f} to {:.2f})".format(*found[name]) for name in ("ratio", "taken over"))
        print(
            "|",
            " | ".join([kind, str(hidden), *(f"{found[cell][0]:.1f}" for cell in cells), *spreads]),
            "|",
            flush=True,
        )
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
