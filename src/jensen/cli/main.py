"""Find the command, let tyro parse its flags, call it; one line and exit status 2 for a user's mistake."""

import io
import os
import re
import sys
import threading
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pydantic import BaseModel

from jensen import processes
from jensen.errors import InputError, within_memory

if TYPE_CHECKING:
    from jensen.cli.options import AbstractTrain

COMMANDS = {
    "demo": "Demo",
    "train vae": "TrainVAE",
    "train diffusion": "TrainDiffusion",
    "resume": "Resume",
    "sample": "Sample",
    "reconstruct": "Reconstruct",
    "evaluate": "Evaluate",
    "compare": "Compare",
    "score": "Score",
    "predict": "Predict",
    "impute": "Impute",
    "features train": "FeaturesTrain",
    "features distance": "FeaturesDistance",
    "features check": "FeaturesCheck",
    "compress": "Compress",
    "decompress": "Decompress",
    "info": "Info",
    "data check": "DataCheck",
}
SHARED = {
    "train vae",
    "train diffusion",
    "resume",
    "sample",
    "evaluate",
    "score",
    "predict",
    "features distance",
    "features check",
}  # among several processes
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 2 for a user's mistake, 130 after Ctrl-C.

    Of several processes all do, and one of them speaks.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    speaks = processes.is_main()
    if arguments is None:
        threading.excepthook = _leave_disks_to_their_users
    with warnings.catch_warnings(), nullcontext() if speaks else redirect_stdout(io.StringIO()):
        if speaks:
            warnings.showwarning = _show_warning
            warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; what matters is refused
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
    """One line, without the place in the code."""
    print(f"jensen: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _leave_disks_to_their_users(failed: threading.ExceptHookArgs) -> None:
    """Say what a thread failed by, but for a disk's error: TensorBoard's thread, say, raises it where it is used."""
    if not issubclass(failed.exc_type, OSError):
        threading.__excepthook__(failed)


def _main(words: list[str]) -> int:
    try:
        with within_memory("ask for less at once (--batch-size, --draws), or make the model or the data smaller"):
            processes.join()
            with processes.together():
                name, rest = _command(words)
                if name is None:
                    print(_overview())
                    return 0
                if processes.count() > 1 and name not in SHARED:
                    raise InputError(f"jensen {name} is work for one process; start it without torchrun or accelerate")
                options = _parse(name, rest)
            _run(name, options)
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
    except OSError as error:  # a disk that is full, a folder that may not be written
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or str(error)
        print(f"jensen: {what}; make room or permit it, or name another place", file=sys.stderr)
        return 2


def _command(words: list[str]) -> tuple[str | None, list[str]]:
    """The command that the first words name (None: help is wanted) and the remaining words."""
    if not words or words[0] in ("-h", "--help", "help"):
        return None, []
    if words[0] == "--version":
        from jensen import __version__

        print(f"jensen {__version__}")
        raise SystemExit(0)
    for length in (2, 1):
        if " ".join(words[:length]) in COMMANDS:
            return " ".join(words[:length]), words[length:]
    longer = [name for name in COMMANDS if name.startswith(f"{words[0]} ")]
    if longer and words[1:2] in ([], ["-h"], ["--help"]):
        return None, []
    given = " ".join(words[:2]) if longer else words[0]
    raise InputError(f"unknown command {given!r}; expected one of {', '.join(longer or COMMANDS)}; see jensen --help")


def _overview() -> str:
    from jensen.cli import options

    rows = [f"  jensen {name:<17} {(getattr(options, kind).__doc__ or '').strip()}" for name, kind in COMMANDS.items()]
    about = "jensen trains, samples and scores generative models whose numbers you can trust."
    return "\n".join(
        [about, "", *rows, "", "Every command answers --help with all of its flags. Start with: jensen demo"]
    )


def _parse(name: str, words: list[str]) -> Any:
    """The command's options from its flags. tyro explains a mistake in a box; here it becomes one line."""
    import tyro

    from jensen.cli import options

    kind: type[BaseModel] = getattr(options, COMMANDS[name])
    default = _defaults(kind, words) if issubclass(kind, options.AbstractTrain) else tyro.MISSING
    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(
                kind,
                prog=f"jensen {name}",
                args=words,
                default=default,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_unboxed(told.getvalue())}; see jensen {name} --help") from stop


def _defaults(kind: "type[AbstractTrain]", words: list[str]) -> "AbstractTrain":
    """The defaults of `train`: a config file's values where one is named, so that flags win over them."""
    default = kind.model_fields["recipe"].default
    for position, word in enumerate(words):
        if word == "--config" and position + 1 < len(words):
            return kind(recipe=default.from_toml(Path(words[position + 1])))
        if word.startswith("--config="):
            return kind(recipe=default.from_toml(Path(word.removeprefix("--config="))))
    return kind(recipe=default)


def _unboxed(text: str) -> str:
    """tyro's framed message as one plain line, without help texts and its closing reference to them."""
    plain = re.sub(r"\x1b\[[0-9;]*m|\[/?bold\]", "", text)
    lines = [line.strip("│╭╮╰╯─ \t") for line in plain.splitlines()]
    message = " ".join(line for line in lines[1:] if line.strip("-"))  # the first line is the box's title
    message = re.split(r"For full helptext|Argument helptext|For further information", message)[0]
    message, _, meant = message.partition("Perhaps you meant:")
    if options := list(dict.fromkeys(re.findall(r"(?<!\S)--[\w-]+", meant)))[:3]:
        message = f"{message.strip()}; perhaps you meant {' or '.join(options)}"
    message = re.sub(r"Error parsing [\w.{}]+: \d+ validation errors? for \w+ ", "", message)  # pydantic's preamble
    message = re.sub(r"^Value error, (.*?) \[type=.*", r"\1", message)
    message = re.sub(r"^(\S+) (.*?) \[type=\w+, input_value=(.*), input_type=\w+\].*", r"\1 = \3: \2", message)
    return message.strip(" .:;")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _run(name: str, options: Any) -> None:
    from jensen.cli import actions, check, compression, demo, features, impute, predict

    homes = {
        "demo": demo,
        "predict": predict,
        "impute": impute,
        "features check": check,
        "compress": compression,
        "decompress": compression,
    }
    home = homes.get(name, features if name.startswith("features ") else actions)
    getattr(home, name.replace(" ", "_"))(options)
