"""The bounded queue of requests, and the one thread that calls models.

Rows of waiting requests of the same work go through the model together, at most `work.sizes[-1]` at a time. A request
with more rows takes its turn with the others. A request that nobody waits for any more is dropped; if the model is at
work on it, the work stops at the next call of a network.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from jensen.progress import quiet
from jensen.serve.limits import Limits
from jensen.serve.problems import Problem
from jensen.serve.work import AbstractWork, Row

LONGEST_WAIT = 60  # the highest Retry-After, in seconds
LOG = logging.getLogger("jensen.serve")


class Stopped(BaseException):
    """Nobody waits for the running work any more. No `except Exception` on the way may keep it."""


@dataclass(eq=False)
class Job:
    """One request: rows of one work, of which the first `taken` have gone to the model."""

    work: AbstractWork
    rows: Sequence[Row]
    deadline: float
    """The value of `time.monotonic()` after which nobody waits."""
    future: "Future[list[Any]]" = field(default_factory=Future)
    found: list[Any] = field(default_factory=list)
    taken: int = 0
    abandoned: bool = False

    @property
    def dead(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.abandoned or time.monotonic() > self.deadline

    def fail(self, error: BaseException) -> None:
        """Give the error to whoever waits."""
        with suppress(InvalidStateError):  # nobody waits
            self.future.set_exception(error)


Part = tuple[Job, Sequence[Row]]


class Queue:
    """A queue of jobs and its thread; `observe` is told the number of rows and the seconds of every call of a model."""

    def __init__(self, limits: Limits, observe: Callable[[str, int, float], None]) -> None:
        self._limits, self._observe = limits, observe
        self._waiting: deque[Job] = deque()
        self._background: deque[Job] = deque()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._seconds = 0.0  # an average per job, for Retry-After
        self.draining = False
        self._thread = threading.Thread(target=self._serve, name="jensen-model", daemon=True)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether no request waits or runs."""
        with self._changed:
            return not self._waiting and not any(job not in self._background for job in self._running)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """End the thread after the present call of a model; waiting jobs fail."""
        with self._changed:
            self._closed = True
            for job in chain(self._waiting, self._background, self._running):
                job.abandoned = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, work: AbstractWork, rows: Sequence[Row], deadline: float) -> Job:
        """Queue a request. Raises `Problem` 503 while the server drains, and 429 if the queue is full."""
        job = Job(work, rows, deadline)
        with self._changed:
            if self.draining:
                raise draining()
            self._drop()
            if len(self._waiting) >= self._limits.queue:
                raise full(len(self._waiting), self._retry_after())
            self._waiting.append(job)
            self._changed.notify()
        return job

    def submit_in_background(self, work: AbstractWork, rows: Sequence[Row]) -> Job:
        """Queue rows that the model computes whenever no request waits."""
        job = Job(work, rows, math.inf)
        with self._changed:
            self._background.append(job)
            self._changed.notify()
        return job

    def check(self) -> None:
        """Called by a network before it computes. Raises `Stopped` if nobody waits for the result."""
        if threading.current_thread() is self._thread and all(job.dead for job in self._running):
            raise Stopped

    def _retry_after(self) -> int:
        return min(LONGEST_WAIT, max(1, math.ceil(self._seconds * len(self._waiting))))

    # -- the thread

    def _serve(self) -> None:
        with quiet():
            while (parts := self._next()) is not None:
                try:
                    self._compute(parts)
                finally:
                    with self._changed:
                        self._running = []

    def _next(self) -> list[Part] | None:
        """The rows of the next call of a model, all of one work; waits for them. None after `close`."""
        with self._changed:
            while True:
                self._drop()
                if self._closed:
                    return None
                if queue := self._waiting or self._background:
                    parts = list(_gathered(queue))
                    self._running = [job for job, _ in parts]
                    return parts
                self._changed.wait()

    def _drop(self) -> None:
        """Forget jobs that nobody waits for."""
        for queue in (self._waiting, self._background):
            if any(job.dead for job in queue):
                alive = [job for job in queue if not job.dead]
                for job in queue:
                    if job.dead:
                        job.fail(late())
                queue.clear()
                queue.extend(alive)

    def _compute(self, parts: list[Part]) -> None:
        work, began = parts[0][0].work, time.monotonic()
        rows = [row for _, some in parts for row in some]
        try:
            found = work.padded(rows)
        except Stopped:
            for job, _ in parts:
                job.fail(late())
        except BaseException as error:
            if len(parts) > 1:  # one request's mistake is no other's
                for part in parts:
                    self._compute([part])
            else:
                parts[0][0].abandoned = True  # its further rows
                parts[0][0].fail(error)
        else:
            seconds = time.monotonic() - began
            self._seconds += 0.1 * (seconds / len(parts) - self._seconds)
            self._observe(work.name, len(rows), seconds)
            for job, some in parts:
                _give(job, found[: len(some)])
                found = found[len(some) :]


def _gathered(queue: deque[Job]) -> Iterator[Part]:
    """The first rows of the first job and of all jobs with the same work, as many as go through the model together.

    A job whose rows are all taken leaves the queue, and a job with further rows goes to its end.
    """
    work = queue[0].work
    room = work.sizes[-1]
    for job in [job for job in queue if job.work == work]:
        if not room:
            return
        some = job.rows[job.taken : job.taken + room]
        job.taken, room = job.taken + len(some), room - len(some)
        queue.remove(job)
        if job.taken < len(job.rows):
            queue.append(job)
        yield job, some


def _give(job: Job, found: list[Any]) -> None:
    job.found += found
    if len(job.found) == len(job.rows):
        with suppress(InvalidStateError):  # nobody waits
            job.future.set_result(job.found)


def full(count: int, seconds: int) -> Problem:
    """The problem of a full queue."""
    return Problem(
        429, f"{count} requests wait already", "a place in the queue", f"try again in {seconds} s",
        {"Retry-After": str(seconds)},
    )  # fmt: skip


def draining() -> Problem:
    """The problem of a server that is about to end."""
    return Problem(
        503, "a request to a server that is about to stop", "a server that accepts requests", "try again in 10 s",
        {"Retry-After": "10"},
    )  # fmt: skip


def late() -> Problem:
    """The problem of a passed deadline."""
    return Problem(
        504, "a request that was not answered in time", "an answer within the deadline of the server",
        "ask for less at once, or start the server with a longer --deadline",
    )  # fmt: skip
