"""Run a benchmark and keep what it prints as JSON, from which the site's page of benchmarks is made.

    python benchmarks/results/record.py benchmarks/error_bars.py [options of the benchmark]

The record is benchmarks/results/NAME.json: the command, versions, machine and date; each Markdown table that the
program printed as `columns` and `rows`; all other lines as `lines`.
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGES = ("jensen", "torch", "numpy", "scikit-learn", "diffusers", "pythae")


def main(words: list[str]) -> int:
    """Run the program with its options, show what it prints, write the record; the exit status of the program."""
    began, lines = time.perf_counter(), []
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        for line in program.stdout:
            print(line, end="", flush=True)
            lines.append(line.rstrip())
    if program.returncode == 0:
        target = HERE / f"{Path(words[0]).stem}.json"
        kept = record(words, lines, time.perf_counter() - began)
        target.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
        print(f"{target.name} written")
    return program.returncode


def record(words: list[str], lines: list[str], seconds: float) -> dict[str, object]:
    """What the program printed, and how it was run."""
    tables, others = parted(lines)
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    return {
        "command": shlex.join(["python", *words]),
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(seconds),
        "versions": {"python": platform.python_version()} | versions,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[2], 1),
        "tables": tables,
        "lines": others,
    }


def parted(lines: list[str]) -> tuple[list[dict[str, object]], list[str]]:
    """The Markdown tables among the lines, and the other lines without empty ones."""
    tables: list[dict[str, object]] = []
    others: list[str] = []
    rows: list[list[str]] | None = None
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if rows is None and line.startswith("|") and re.fullmatch(r"[|\-: ]+-[|\-: ]*", following):
            rows = []
            tables.append({"columns": _cells(line), "rows": rows})
        elif rows is not None and line.startswith("|"):
            rows += [] if re.fullmatch(r"[|\-: ]+", line) and not rows else [_cells(line)]
        else:
            rows = rows if line.startswith("<!--") else None
            others += [line] if line.strip() and not line.startswith("<!--") else []
    return tables, others


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().removeprefix("|").removesuffix("|"))]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
