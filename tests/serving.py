"""Small runs of every kind, and a real server of them in a thread."""

import asyncio
import atexit
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import httpx
import numpy as np

import jensen
from jensen.commands.serve import _served
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.vae.settings import VAERecipe
from jensen.serve.limits import Limits
from jensen.serve.metrics import Metrics
from jensen.serve.routes import Service
from jensen.serve.served import Served
from jensen.serve.server import Address, Server, named

BRIEF = {"steps": 6, "batch_size": 32, "validate_every": 6, "sample_every": 6, "first_look": 0}
TOKEN = b"a-token-of-the-tests"


@lru_cache
def folder() -> Path:
    """Three runs for the tests of one process: `pictures` and `people` (VAEs), and `labelled` (diffusion)."""
    out = Path(mkdtemp(prefix="jensen-serve-"))
    atexit.register(shutil.rmtree, out, ignore_errors=True)
    rng = np.random.default_rng(0)
    age = rng.integers(18, 60, 120)
    towns, sexes = rng.choice(["Bern", "Thun", ""], 120, p=[0.5, 0.3, 0.2]), rng.choice(["F", "M"], 120)
    lines = [f"{a},{s},{t},{a * 1.25:.2f}" for a, s, t in zip(age, sexes, towns, strict=True)]
    (out / "people.csv").write_text("\n".join(["age,sex,town,pay", *lines]) + "\n")
    training = {key: value for key, value in BRIEF.items() if key != "first_look"}
    vae = {"hidden": (48,), "latent_dims": 4}
    jensen.train(VAERecipe.model_validate({"model": vae, "training": training}), out / "pictures")
    table = {"width": 16, "depth": 1, "latent_dims": 2, "fit_steps": 2}
    of_table = {"data": str(out / "people.csv"), "model": table, "training": training}
    jensen.train(VAERecipe.model_validate(of_table), out / "people")
    unet = DiffusionSettings(widths=(8, 16), blocks=1, chain_steps=50, bound_terms=4, sampling_steps=4)
    jensen.train(DiffusionRecipe(model=unet, training=BRIEF), out / "labelled")
    return out


def runs() -> list[jensen.Run]:
    """The three runs."""
    return [jensen.load(folder() / name) for name in ("pictures", "people", "labelled")]


@lru_cache
def served() -> list[Served]:
    """The three runs, measured once."""
    return named(runs())


def made(limits: Limits | None = None, *, histogram: int = 0, token: bytes | None = None) -> Server:
    """A server of the three runs on a free port."""
    return Server(Service(served(), limits or Limits(), Metrics()), Address(port=0, token=token), histogram)


@contextmanager
def serving(made: Server) -> Iterator[httpx.Client]:
    """A client of the server, which runs in a thread and is drained at the end."""
    thread = threading.Thread(target=lambda: asyncio.run(_served(made)))
    thread.start()
    until(lambda: made.started)
    port = made.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client:
            yield client
    finally:
        made.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


def until(true: object, seconds: float = 20) -> None:
    """Wait until the function `true` returns something true."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


class Gate:
    """A network of a run that waits at a gate before it computes."""

    def __init__(self, served: Served) -> None:
        self.opened, self.reached = threading.Event(), threading.Event()
        self._hook = served.run.model.networks[0].register_forward_pre_hook(self._wait)

    def _wait(self, *_: object) -> None:
        self.reached.set()
        assert self.opened.wait(30)

    def open(self) -> None:
        """Let the network compute, now and later."""
        self.opened.set()
        self._hook.remove()
