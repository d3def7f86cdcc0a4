"""How far the work has come, on standard error: a bar on a terminal, now and then a plain line elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from jensen.processes import is_main

Item = TypeVar("Item")

QUIET_SECONDS = 2.0  # work that is over before then shows nothing
REDRAW_SECONDS = 0.1  # between two states of the bar
LINE_SECONDS = 30.0  # between two lines where there is no terminal


def track(iterable: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """The items of `iterable`, one by one, with a progress bar on standard error while they are worked through.

    `total` is the number of items where `iterable` cannot tell it. Nothing is shown during the first two seconds.

    >>> sum(track(range(5), "adding"))
    10
    """
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with Progress(description, total) as progress:
        for done, item in enumerate(iterable, start=1):
            yield item
            progress.update(done)


class Progress:
    """A report of work that counts itself: `update(done, text)` says how much is done, and more worth reading.

    On a terminal it is a bar that goes away at the end; elsewhere a plain line every 30 seconds and one at the end.
    Either begins after two seconds. `start` is how much was done before (a resumed run) and does not count for the
    rate. It draws only inside `update`, never from a thread, so a report within a report takes its place until it ends.
    Of several processes only the main one reports.

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
        self._next_report = self._began + QUIET_SECONDS if is_main() else math.inf
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

    def update(self, done: int, text: str = "") -> None:
        """Report that `done` items of the total are done; `text` stands beside it until the next update."""
        self._done, self._text = done, text
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
        """Done and total, rate, time so far, time left and text: what bar and line both say."""
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
        self._bar.update(task, completed=self._done, state=self._state(), refresh=True)


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(max(seconds, 0.0))))


def _new_bar() -> Any:
    """A bar on standard error that draws when told to, and lets what is printed meanwhile scroll by above it."""
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
        redirect_stdout=sys.stdout.isatty(),  # a pipe keeps its data
    )
