"""`jensen serve`: answer requests over HTTP."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, NonNegativeInt

from jensen.commands.common import Command
from jensen.errors import InputError
from jensen.serve.limits import Limits


class Serve(Command):
    """Answer requests over HTTP, with a page for the browser."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """The folders of the runs. The name of a folder is the name of its run in requests; the first is the default."""
    host: str = "127.0.0.1"
    """The address to listen on. Default: this machine only. Any other address needs --token-file."""
    port: int = Field(8080, ge=0, le=65535)
    """The port; 0 takes a free one."""
    token_file: Path | None = None
    """A file with a secret word. Every request must send it: Authorization: Bearer WORD."""
    queue: int = Field(256, ge=1)
    """The most requests that wait; a further one gets status 429 and is told when to try again."""
    deadline: float = Field(60.0, gt=0)
    """The seconds after which a request gets status 504."""
    max_bytes: int = Field(16 << 20, ge=1024)
    """The most bytes of a request."""
    max_examples: int = Field(1024, ge=1)
    """The most examples of a request."""
    max_numbers: int = Field(1 << 22, ge=1024)
    """The most numbers of a request or of its answer."""
    histogram: NonNegativeInt = 300
    """The number of test examples scored in the background, to tell how unusual an example is; 0 for none."""
    examples: bool | None = None
    """Whether clients may see test examples, so that a visitor of the page without data can try the run.
    Default: only if the server listens on this machine alone."""

    def execute(self) -> None:
        """Load the runs, print the address, and serve until SIGTERM or Ctrl-C."""
        refuse_without_packages()
        from jensen.run import opened
        from jensen.serve.server import Address, read_token, server

        if not self.runs:
            raise InputError("no RUN: expected the folders of one or more runs; name them")
        address = Address(self.host, self.port, read_token(self.token_file) if self.token_file else None)
        address.check()
        limits = Limits(**{name: getattr(self, name) for name in Limits.model_fields})
        asyncio.run(_served(server([opened(run) for run in self.runs], address, limits, self.histogram, self.examples)))


async def _served(server: Any) -> None:
    """Serve, and print the address when the server listens."""
    serving = asyncio.ensure_future(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    if server.started:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        print(
            f"http://{f'[{host}]' if ':' in host else host}:{port} serves {', '.join(server.service.runs)}", flush=True
        )
    await serving


def refuse_without_packages() -> None:
    """Raises `InputError` if the packages of the server are not installed."""
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"jensen serve needs the package {error.name}, which is not installed; pip install 'jensen[serve]'"
        ) from error
