"""Start a server, and end it without losing a request."""

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvicorn

from jensen.errors import InputError
from jensen.progress import quiet
from jensen.run import Run
from jensen.serve.guard import LOOPBACK
from jensen.serve.limits import Limits
from jensen.serve.metrics import Metrics
from jensen.serve.routes import Service, application
from jensen.serve.served import Served
from jensen.serve.shown import shown_examples
from jensen.serve.work import Score

LOG = logging.getLogger("jensen.serve")
LEAST_TOKEN = 16  # characters
POLL = 0.05  # seconds between two looks at the queue while the server drains


@dataclass(frozen=True)
class Address:
    """Where the server listens; `token` is required beyond this machine."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: bytes | None = None

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return self.host in LOOPBACK

    def shows_examples(self, wish: bool | None) -> bool:
        """Whether clients may see test examples; by default on this machine only, as data may be private."""
        return self.loopback if wish is None else wish

    def check(self) -> None:
        """Raises `InputError` for an address beyond this machine without a token."""
        if not self.loopback and self.token is None:
            raise InputError(
                f"--host {self.host}: other machines could ask, expected a token for them; give --token-file FILE, or "
                "leave --host out"
            )


def read_token(file: Path) -> bytes:
    """The token in a file. Raises `InputError` for a file that is not there, and for a short token."""
    try:
        token = file.read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"--token-file {file}: cannot be read ({reason}); give a file with a token") from error
    if len(token) < LEAST_TOKEN or not token.isascii() or any(sign.isspace() for sign in token):
        raise InputError(
            f"--token-file {file}: expected one word of at least {LEAST_TOKEN} ASCII characters; make one with: python "
            "-c 'import secrets; print(secrets.token_urlsafe())'"
        )
    return token.encode()


class Server(uvicorn.Server):
    """The HTTP server. SIGTERM and Ctrl-C drain it: it refuses new requests, answers the waiting ones, and ends."""

    def __init__(self, service: Service, address: Address, histogram: int) -> None:
        address.check()
        self.service, self._histogram = service, histogram
        app = application(service, token=address.token, loopback=address.loopback)
        super().__init__(
            uvicorn.Config(
                app,
                host=address.host,
                port=address.port,
                lifespan="off",
                ws="none",
                access_log=False,
                log_level="warning",
                server_header=False,
                proxy_headers=False,
                date_header=False,
                h11_max_incomplete_event_size=1 << 15,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=5,
            )
        )

    def install(self) -> None:
        """Handle the signals of this process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.drain)

    def drain(self) -> None:
        """Refuse new requests and end when the queue is empty; asked a second time, end at once."""
        if self.service.queue.draining:
            self.should_exit = self.force_exit = True
            return
        self.service.queue.draining = True
        self._draining = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        while not self.service.queue.idle:
            await asyncio.sleep(POLL)
        await asyncio.sleep(2 * POLL)  # the answers of the last jobs
        self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until drained."""
        self.service.queue.start()
        threading.Thread(target=self._score_tests, name="jensen-histogram", daemon=True).start()
        with suppress(ValueError, RuntimeError):  # in a thread, where no signals arrive
            self.install()
        try:
            await self._serve(sockets)
        finally:
            self.service.queue.close()

    def _score_tests(self) -> None:
        """Score test examples of every run while no request waits, for the histogram and the percentiles."""
        if not self._histogram:
            return
        for served in self.service.runs.values():
            try:
                with quiet():
                    rows = served.test_rows(self._histogram)
            except InputError as error:
                LOG.warning("%s: no histogram of its test scores: %s", served.name, error)
                continue
            job = self.service.queue.submit_in_background(Score(served), rows)
            try:
                found = job.future.result()
            except Exception as error:
                LOG.warning("%s: no histogram of its test scores: %s", served.name, error)
                continue
            served.scores = np.sort([bound for bound, _ in found])


def named(runs: Sequence[Run]) -> list[Served]:
    """The runs as a server holds them. Raises `InputError` for two runs of one name."""
    names = [run.folder.resolve().name for run in runs]
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise InputError(f"two runs are called {twice[0]}: expected different names of folders; rename one")
    return [Served.of(run, name) for run, name in zip(runs, names, strict=True)]


def server(
    runs: Sequence[Run], address: Address, limits: Limits, histogram: int = 300, examples: bool | None = None
) -> Server:
    """A server of these runs; `histogram` is the number of test examples that are scored in the background.

    `examples` says whether clients may see test examples. Default: on this machine only.
    """
    address.check()
    found = named(runs)
    for served in found if address.shows_examples(examples) else ():
        served.shown = shown_examples(served.run)
    return Server(Service(found, limits, Metrics()), address, histogram)
