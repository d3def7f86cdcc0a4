"""`jensen data check`: the contents of DATA, and the reasons for which DATA would be refused."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from jensen.commands.common import Command
from jensen.data.options import ReadOptions
from jensen.errors import InputError

if TYPE_CHECKING:
    from jensen.data.check import Report


class DataCheck(Command):
    """Describe DATA, and list the problems for which it would be refused."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """`digits`, a CSV file, a folder of images, or IDX, NumPy (.npy, .npz), Parquet or Arrow files."""
    write_columns: Path | None = None
    """Tables: the new file for the types of the columns, in TOML, to be changed and given as --columns."""
    read: ReadOptions = ReadOptions()

    def execute(self) -> None:
        """Print the description of DATA; exit status 2 if DATA would be refused."""
        from jensen.data.check import check

        report = check(self.data, self.read)
        print("\n".join(report.lines()))
        if self.write_columns is not None:
            self._write_columns(report, self.write_columns)
        if not report.good:
            raise InputError(f"{self.data} would be refused: {len(report.problems)} problem(s), listed above")

    def _write_columns(self, report: "Report", path: Path) -> None:
        from jensen.data.table.wishes import written
        from jensen.records import refuse_existing_file, write_file

        if report.table is None:
            raise InputError(f"--write-columns {path}: {self.data} is no table with columns; leave it out")
        refuse_existing_file(path, ".toml", flag="--write-columns")
        write_file(path, written(report.table).encode())
