"""Progress of long work, on standard error: a bar on a terminal, an occasional plain line elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from jensen.processes import is_main

Item = TypeVar("Item")

QUIET_SECONDS = 2.0  # shorter work shows nothing
REDRAW_SECONDS = 0.1  # between two redraws of the bar
LINE_SECONDS = 30.0  # between two plain lines

_QUIET = ContextVar("quiet", default=False)


@contextmanager
def quiet() -> Iterator[None]:
    """A context in which neither `Progress` nor `say` shows anything."""
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def _shown() -> bool:
    return is_main() and not _QUIET.get()


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """Yield the items of `iterable` and show a progress bar on standard error meanwhile.

    `total` is the number of items, for an `iterable` without a length. Nothing is shown during the first two seconds.

    >>> sum(track(range(5), "adding"))
    10
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(description, total) as progress:
        for done, item in enumerate(iterable, start=1):
            yield item
            progress.update(done)


def say(line: str) -> None:
    """Print a line on standard error; of several processes, only the main one prints."""
    if _shown():
        print(line, file=sys.stderr, flush=True)


class Progress:
    """A display of progress: the caller reports by `update(done, text)` how much is done, with an optional text.

    On a terminal the display is a bar, which disappears at the end. Elsewhere the display is a plain line every 30
    seconds and one at the end. Nothing is shown during the first two seconds. `start` is the work done by earlier
    sessions (a resumed run), which the rate ignores. The display is drawn only inside `update`, never from a thread. An
    inner display replaces the outer display until the inner one ends. Of several processes, only the main process shows
    progress.

    >>> with Progress("training", total=1000, start=400) as progress:
    ...     for step in range(400, 1000):
    ...         progress.update(step + 1, f"loss {1 / (step + 1):.4f}")
    """

    def __init__(
        self, description: str, total: int | None = None, start: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._description = description
        self._total = total
        self._start = start
        self._clock = clock
        self._began = clock()
        self._next_report = self._began + QUIET_SECONDS if _shown() else math.inf
        self._done = start
        self._text = ""
        self._line = ""  # the last plain line
        self._bar: Any = None  # rich.progress.Progress, once drawn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._line:
            self._print_line()

    def update(self, done: int, text: str = "", total: int | None = None) -> None:
        """Report that `done` items of the total are done; `text` is shown beside the numbers until the next update.

        `total` replaces the total, if it has changed.
        """
        self._done, self._text, self._total = done, text, total or self._total
        now = self._clock()
        if now < self._next_report:
            return
        if self._bar is not None or sys.stderr.isatty():
            self._draw_bar()
            self._next_report = now + REDRAW_SECONDS
        else:
            self._print_line()
            self._next_report = now + LINE_SECONDS

    def _state(self) -> str:
        """The content of bar and line: done and total, rate, elapsed time, remaining time and text."""
        elapsed = self._clock() - self._began
        rate = (self._done - self._start) / elapsed
        parts = [f"{self._done}/{self._total}" if self._total is not None else f"{self._done}"]
        parts += [f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2f}/s", _clock_time(elapsed)]
        if self._total is not None and rate > 0:
            parts.append(f"{_clock_time((self._total - self._done) / rate)} left")
        return ", ".join([*parts, self._text] if self._text else parts)

    def _print_line(self) -> None:
        line = f"{self._description}: {self._state()}"
        if line != self._line:
            print(line, file=sys.stderr, flush=True)
        self._line = line

    def _draw_bar(self) -> None:
        if self._bar is None:
            self._bar = _new_bar()
            self._bar.add_task(self._description, total=self._total, state="")
            self._bar.start()
        task = self._bar.task_ids[0]
        self._bar.update(task, total=self._total, completed=self._done, state=self._state(), refresh=True)


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(max(seconds, 0.0))))


def _new_bar() -> Any:
    """A bar on standard error that is drawn only on request; other output scrolls past above it."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # a pipe must receive its data unchanged
    )
