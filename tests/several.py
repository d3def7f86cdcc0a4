"""Several processes as torchrun starts them, but with everything imported: what test_processes.py runs commands in."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

Words = Sequence[object]
IMPORTED = [
    *("jensen.run", "jensen.commands.train", "jensen.evaluation.evaluation", "jensen.features.distance"),
    *("jensen.report.pages", "matplotlib.figure", "rich.console"),
    *("jensen.recipe.vae.family", "jensen.recipe.diffusion.family"),
    *("accelerate", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor", "torch.utils.tensorboard"),
]
Process = multiprocessing.process.BaseProcess


@dataclass(frozen=True)
class Told:
    """What the processes of one group came to: each one's exit status of the last command, and all that it said."""

    codes: list[int | None]
    out: list[str]
    err: list[str]


def with_everything_imported() -> ForkServerContext:
    """The context of processes that have everything imported when they start; one server serves all tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def start(count: int, commands: Sequence[Words], folder: Path, machines: int = 1) -> list[Process]:
    """Start `count` processes, as if on several machines; each runs all the commands one after the other."""
    context = with_everything_imported()
    port = _free_port()
    words = [[str(word) for word in command] for command in commands]
    folder.mkdir(exist_ok=True)
    processes = [
        context.Process(target=_take_part, args=(rank, count, count // machines, port, words, folder), daemon=True)
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def run(count: int, commands: Sequence[Words], folder: Path, machines: int = 1) -> Told:
    """The same, and wait for their end."""
    return ended(start(count, commands, folder, machines), folder)


def ended(processes: Sequence[Process], folder: Path) -> Told:
    """Wait for their end, two minutes at most."""
    for process in processes:
        process.join(120)
        process.kill()  # which does nothing to one that has ended
    out, err = ([(folder / f"{rank}.{name}").read_text() for rank in range(len(processes))] for name in ("out", "err"))
    return Told([process.exitcode for process in processes], out, err)


def _take_part(rank: int, count: int, local: int, port: int, commands: list[list[str]], folder: Path) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if count > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank % local, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": local}
        os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(port)
    from jensen.cli import main

    sys.exit(max(main(words) for words in commands))


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
