"""Progress reports: silent when quick, a bar on a terminal, lines elsewhere, harmless when nested or interrupted."""

import contextlib
import os
import subprocess
import sys
import termios

import pytest

from jensen.progress import LINE_SECONDS, QUIET_SECONDS, Progress, track


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lines(capsys):
    """What standard error, captured and so not a terminal, has received."""
    return lambda: capsys.readouterr().err.splitlines()


def on_a_terminal(program):
    """What `program` writes to standard error, a pseudo-terminal of 100 columns, and to standard output, a pipe."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    with subprocess.Popen([sys.executable, "-c", program], stderr=slave, stdout=subprocess.PIPE) as process:
        os.close(slave)
        seen = b""
        with contextlib.suppress(OSError):  # reading from a terminal nobody holds open any more ends in EIO
            while chunk := os.read(master, 4096):
                seen += chunk
        os.close(master)
        printed = process.stdout.read()
    assert process.returncode == 0, seen.decode()
    return seen.decode(), printed.decode()


def test_track_yields_the_items_and_is_silent_when_quick(lines):
    assert list(track(iter("abc"), "letters")) == ["a", "b", "c"]
    assert lines() == []


def test_lines_come_after_two_seconds_then_every_thirty_and_at_the_end(clock, lines):
    with Progress("training", total=100, clock=clock) as progress:
        for done in range(1, 101):
            clock.now += 1.0
            progress.update(done, f"loss {done}")
    printed = lines()
    assert [line.split(",")[0] for line in printed] == [f"training: {n}/100" for n in (2, 32, 62, 92, 100)]
    assert printed[1] == "training: 32/100, 1.00/s, 0:00:32, 0:01:08 left, loss 32"


def test_nothing_is_said_of_work_shorter_than_two_seconds(clock, lines):
    with Progress("short", total=10, clock=clock) as progress:
        for done in range(1, 11):
            clock.now += QUIET_SECONDS / 11
            progress.update(done)
    assert lines() == []


def test_what_was_done_before_does_not_count_for_the_rate(clock, lines):
    with Progress("resumed", total=1000, start=500, clock=clock) as progress:
        clock.now += 10.0
        progress.update(600)
    assert lines() == ["resumed: 600/1000, 10/s, 0:00:10, 0:00:40 left"]


def test_without_a_total_there_is_no_time_left(clock, lines):
    with Progress("reading", clock=clock) as progress:
        clock.now += 4.0
        progress.update(2)
    assert lines() == ["reading: 2, 0.50/s, 0:00:04"]


def test_an_update_without_progress_does_not_divide_by_zero(clock, lines):
    with Progress("stuck", total=3, clock=clock) as progress:
        clock.now += LINE_SECONDS
        progress.update(0)
    assert lines() == ["stuck: 0/3, 0.00/s, 0:00:30"]


TERMINAL_PROGRAM = """
import sys, time
from jensen import progress
progress.QUIET_SECONDS = 0.2
for outer in progress.track(range(4), "outer [bold]"):
    for inner in progress.track(range(5), "inner", total=5):
        time.sleep(0.1)
    print("data", outer)
    print("a warning", file=sys.stderr)
"""


def test_a_terminal_gets_a_bar_also_nested_and_standard_output_keeps_its_data():
    seen, printed = on_a_terminal(TERMINAL_PROGRAM)
    assert "outer [bold]" in seen
    assert "inner" in seen
    assert "━" in seen
    assert "2/4" in seen
    assert "left" in seen
    assert seen.count("a warning") == 4
    assert seen.rstrip().endswith("\x1b[2K")  # the bar is wiped away at the end
    assert printed.splitlines() == [f"data {n}" for n in range(4)]


def test_on_a_terminal_too_nothing_is_shown_when_quick():
    seen, _ = on_a_terminal("from jensen.progress import track\nfor _ in track(range(1000), 'quick'): pass")
    assert seen == ""


def test_an_interrupted_loop_leaves_the_terminal_in_order():
    program = TERMINAL_PROGRAM.replace('print("data", outer)', "if outer == 2: break")
    seen, _ = on_a_terminal(program)
    assert seen.rindex("\x1b[?25h") > seen.rindex("\x1b[?25l")  # the cursor that was hidden is shown again
