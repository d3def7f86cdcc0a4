"""`jensen` and `python -m jensen`: the command line."""

import os
import signal
import sys
from types import FrameType

from jensen import processes

INTERRUPTED = 130


def main() -> int:
    """Run the command that the words name; Ctrl-C while this is imported is one line, as later."""
    waits = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nobody asked for it to be ignored
    if waits:
        signal.signal(signal.SIGINT, _end)
    from jensen import cli

    if waits:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


def _end(number: int, frame: FrameType | None) -> None:
    """At once: an exception amid an import may come out as another one, and nothing has begun yet."""
    if processes.is_main():
        print("jensen: interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
