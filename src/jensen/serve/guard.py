"""What every request passes before a route sees it: host, origin, token, size. What every answer gets: headers."""

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from jensen.serve.limits import Limits
from jensen.serve.metrics import Metrics
from jensen.serve.problems import Problem

LOG = logging.getLogger("jensen.serve")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BODIES = 8  # bodies of the largest size that are held at once
PIECE = 1 << 16  # bytes of an answer that are given to the connection at once
READING = 64  # requests whose bodies are read while the queue is full
PUBLIC = ("/", "/healthz")  # and the files of the page: no secrets
PAGE = "/page/"
HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


class Guard:
    """The outermost layer of the server. `token` is None on loopback, where `Host` must name this machine."""

    def __init__(self, app: App, limits: Limits, metrics: Metrics, token: bytes | None, loopback: bool) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._token, self._loopback = token, loopback
        self._inside = self._bytes = 0  # requests that are not answered yet, and the bytes of their bodies so far

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket
            await send({"type": "websocket.close", "code": 1008})
            return
        began = time.monotonic()
        body, answer = _Limited(receive, self._limits, began, self._count), _Answer(send, self._limits.deadline)
        self._inside += 1
        try:
            self._check(scope)
            await self._app(scope, body, answer)
        except Problem as problem:
            await answer.problem(problem)
        except _UnreadError:  # uvicorn closes the connection of an answer that is not whole
            LOG.warning("%s %s: not read by its client in time", scope["method"], scope.get("route_path", "?"))
        except asyncio.CancelledError:
            raise
        except Exception:
            LOG.exception("%s %s", scope["method"], scope.get("route_path", "?"))
            await answer.problem(unexpected())
        finally:
            self._inside, self._bytes = self._inside - 1, self._bytes - body.bytes
            route = scope.get("route")
            self._metrics.request(getattr(route, "path", "other"), answer.status, time.monotonic() - began)

    def _check(self, scope: Scope) -> None:
        """Raises `Problem` for a request that no route may see."""
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._loopback and _name_of(f"//{host}") not in LOOPBACK:
            raise Problem(400, "a Host header that does not name this machine", "127.0.0.1 or localhost", "correct it")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").partition("://")[2] != host:
            raise Problem(403, "a request of another site", "requests of this server's own page", "ask without Origin")
        self._check_token(scope, headers)
        length = headers.get(b"content-length", b"0")[:20]
        if not length.isdigit():
            raise Problem(400, "a Content-Length that is no number", "the number of bytes", "correct it")
        if int(length) > self._limits.max_bytes:
            raise _too_large(self._limits)
        if self._inside > self._limits.queue + READING:
            raise self._crowded()

    def _count(self, size: int) -> None:
        """Count bytes that have come. Raises `Problem` if all bodies together are too large.

        Bytes that are only announced do not count, or a few clients that send nothing would keep out all others.
        """
        self._bytes += size
        if self._bytes > BODIES * self._limits.max_bytes:
            raise self._crowded()

    def _crowded(self) -> Problem:
        return Problem(
            429, f"{self._inside} requests at once", "fewer or smaller requests at once", "try again in 1 s",
            {"Retry-After": "1"},
        )  # fmt: skip

    def _check_token(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        scope["authorised"] = self._token is None
        if self._token is None:
            return
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        scope["authorised"] = kind.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)
        path = scope["path"]
        if not scope["authorised"] and path not in PUBLIC and not path.startswith(PAGE):
            raise Problem(
                401, "no token, or a wrong one", "Authorization: Bearer TOKEN", "send the token of the server",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip


def _name_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _too_large(limits: Limits) -> Problem:
    return Problem(
        413,
        "a body that is too large",
        f"at most {limits.max_bytes:,} bytes",
        "send fewer examples",
        {"Connection": "close"},
    )


def unexpected() -> Problem:
    """The problem of a fault of the server itself."""
    return Problem(
        500, "a request that the server failed on", "an answer", "report it; the server's log has the details"
    )


class _Limited:
    """`receive` with a limit of bytes and the deadline; `count` is told of all bytes that come."""

    def __init__(self, receive: Receive, limits: Limits, began: float, count: Callable[[int], None]) -> None:
        self._receive, self._limits, self._end, self._count = receive, limits, began + limits.deadline, count
        self.bytes, self._whole = 0, False

    async def __call__(self) -> Message:
        if self._whole:
            return await self._receive()  # for the news that the client has gone
        try:
            async with asyncio.timeout(max(0.0, self._end - time.monotonic())):
                message = await self._receive()
        except TimeoutError:
            raise Problem(
                504, "a body that did not arrive in time", f"all of it within {self._limits.deadline:g} s", "send less",
                {"Connection": "close"},
            ) from None  # fmt: skip
        size = len(message.get("body", b""))
        self.bytes, self._whole = self.bytes + size, not message.get("more_body", False)
        self._count(size)
        if self.bytes > self._limits.max_bytes:
            raise _too_large(self._limits)
        return message


class _UnreadError(Exception):
    """The client does not take its answer."""


class _Answer:
    """`send` that adds the headers and remembers the status.

    Raises `_UnreadError` if the client lets it wait for more than `patience` seconds in all. Bodies go in pieces,
    so that little is left in the connection of a client that takes nothing.
    """

    def __init__(self, send: Send, patience: float) -> None:
        self._send, self._patience, self.status, self._begun = send, patience, 499, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self._begun = message["status"], True
            names = {name.lower() for name, _ in message.get("headers", ())}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in names]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        body = message.get("body", b"")
        last = max(0, len(body) - 1) // PIECE * PIECE
        for start in range(0, last, PIECE):
            await self._patiently({**message, "body": body[start : start + PIECE], "more_body": True})
        await self._patiently({**message, "body": body[last:]} if last else message)

    async def _patiently(self, message: Message) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, self._patience)):
                await self._send(message)
        except TimeoutError:
            raise _UnreadError from None
        self._patience -= time.monotonic() - began

    async def problem(self, problem: Problem) -> None:
        """Answer with a problem, unless an answer has begun."""
        if self._begun:
            return
        body = json.dumps(problem.body()).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.headers}
        named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": problem.status, "headers": named})
        await self({"type": "http.response.body", "body": body})
