"""`jensen resume`: go on with a training that was interrupted."""

from typing import ClassVar

from jensen.commands.common import Command, RunFolder
from jensen.commands.train import reached
from jensen.data.options import Streaming


class Resume(Command):
    """Continue an interrupted run, bit for bit as if it had never stopped."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run."""
    data: str | None = None
    """The new place of the run's own data, if they have moved; it is checked and recorded."""
    stream: Streaming | None = None
    """Whether to leave the examples on disk, which changes no number. Default: as the run was begun."""

    def execute(self) -> None:
        """Continue the run, then say what was reached."""
        from jensen.run import resume

        print("\n".join(reached(resume(self.run, self.stream, self.data))))
