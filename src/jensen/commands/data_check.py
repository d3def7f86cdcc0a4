"""`jensen data check`: the contents of DATA, and the reasons for which DATA would be refused."""

from typing import Annotated

import tyro

from jensen.commands.common import Command
from jensen.data.options import ReadOptions
from jensen.errors import InputError


class DataCheck(Command):
    """Describe DATA, and list the problems for which it would be refused."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """`digits`, a folder of images, or IDX, NumPy (.npy, .npz), Parquet or Arrow files."""
    read: ReadOptions = ReadOptions()

    def execute(self) -> None:
        """Print the description of DATA; exit status 2 if DATA would be refused."""
        from jensen.data.check import check

        report = check(self.data, self.read)
        print("\n".join(report.lines()))
        if not report.good:
            raise InputError(f"{self.data} would be refused: {len(report.problems)} problem(s), listed above")
