"""Find the command, parse its flags, execute it; a user's mistake gives one line and exit status 2."""

import io
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from typing import TextIO

from jensen import processes
from jensen.cli.parse import find, parse
from jensen.commands import commands
from jensen.commands.common import Command
from jensen.errors import InputError, within_memory

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 2 for a user's mistake, 130 after Ctrl-C.

    If there are several processes, all run the command, and only the main process prints.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    speaks = processes.is_main()
    if arguments is None:
        threading.excepthook = _leave_disks_to_their_users
    with warnings.catch_warnings(), nullcontext() if speaks else redirect_stdout(io.StringIO()):
        if speaks:
            warnings.showwarning = _show_warning
            warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata; bad pixels raise
        else:
            warnings.simplefilter("ignore")
        status = _main(words)
        if arguments is None:
            processes.leave(status)
        return status


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without its place in the code."""
    print(f"jensen: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _leave_disks_to_their_users(failed: threading.ExceptHookArgs) -> None:
    """Print a thread's error, except OSError, which threads such as TensorBoard's raise again in the main thread."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


def _main(words: list[str]) -> int:
    try:
        with within_memory("ask for less at once (--batch-size, --draws), or make the model or the data smaller"):
            processes.join()
            with processes.together():
                command = _command(words)
            if command is None:
                print(_overview())
            else:
                command.execute()
        return 0
    except processes.OtherProcessError:
        return 2
    except InputError as error:
        print(f"jensen: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        if processes.is_main():
            print(f"jensen: {_one_line(stop) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except RuntimeError as error:
        if not processes.says_another_ended(error):
            raise
        print("jensen: another of the processes has ended, and so does this one", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder without write permission
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        print(f"jensen: {what}; free space, allow writing, or give another path", file=sys.stderr)
        return 2


def _command(words: list[str]) -> Command | None:
    """The command with its options from the words; None if the words ask for the overview."""
    if words[:1] == ["--version"]:
        _print_version(words[1:])
        raise SystemExit(0)
    known = commands()
    name, rest = find(words, known)
    if name is None:
        return None
    if processes.count() > 1 and not known[name].several_processes:
        raise InputError(f"jensen {name} runs in one process; start it without torchrun or accelerate")
    return parse(name, known[name], rest)


def _print_version(words: list[str]) -> None:
    """Print the version, or with --verbose the whole installation. Raises `InputError` for other words."""
    if words not in ([], ["--verbose"]):
        raise InputError(f"--version {' '.join(words)}: expected nothing more, or --verbose")
    from jensen import __version__
    from jensen.cli.version import lines

    print("\n".join(lines()) if words else f"jensen {__version__}")


def _overview() -> str:
    rows = [f"  jensen {name:<17} {(kind.__doc__ or '').strip()}" for name, kind in commands().items()]
    about = "jensen trains, samples and scores generative models whose numbers you can trust."
    return "\n".join(
        [about, "", *rows, "", "Every command answers --help with all of its flags. Start with: jensen demo"]
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
