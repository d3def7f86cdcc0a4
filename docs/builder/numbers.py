"""The page of benchmarks, from the records that benchmarks/results/record.py wrote."""

import json
from pathlib import Path
from typing import Any

from builder.stage import ROOT

PAGE = Path("docs/benchmark_tables.md")
OPENING = """# Tables of the benchmarks

Made from the JSON of the programs themselves, `benchmarks/results/*.json`. What the numbers mean, and those of programs
that have no record yet, is in [benchmarks.md](benchmarks.md). `python benchmarks/results/record.py PROGRAM` makes a
record.
"""


def benchmark_page() -> str:
    """One section per record: its command, tables and lines, and how it was run."""
    return "\n".join([OPENING, *(_section(path) for path in sorted(ROOT.glob("benchmarks/results/*.json")))])


def _section(path: Path) -> str:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return "\n".join(
        [
            f"## {path.stem.replace('_', ' ').capitalize()}\n",
            f"```sh\n{record['command']}\n```\n",
            *(_table(table["columns"], table["rows"]) for table in record["tables"]),
            *(["```text", *record["lines"], "```", ""] if record["lines"] else []),
            f"*{record['date']}, {record['seconds']:,} s on {record['machine']}, load {record['load']}; {versions}.*",
            "",
        ]
    )


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(["|" + "|".join(line) + "|" for line in lines] + [""])
