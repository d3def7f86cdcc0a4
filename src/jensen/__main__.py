"""Entry point of the commands `jensen` and `python -m jensen`."""

import os
import signal
import sys
from types import FrameType

from jensen import processes

INTERRUPTED = 130


def main() -> int:
    """Run the command line and return its exit status.

    Ctrl-C ends the command with one line and status 130, even during the imports.
    """
    # False where the parent process has SIGINT ignored, as a shell does for background jobs: then leave it ignored
    waits = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if waits:
        signal.signal(signal.SIGINT, _end)
    from jensen import cli

    if waits:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


def _end(number: int, frame: FrameType | None) -> None:
    """Exit at once.

    An exception raised inside an import may surface as a different exception. At this point no work has begun, so there
    is nothing to clean up.
    """
    if processes.is_main():
        print("jensen: interrupted", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
