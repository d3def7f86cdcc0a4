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
    stream: Streaming | None = None
    """Whether to leave the examples on disk, which changes no number. Default: as the run was begun."""

    def execute(self) -> None:
        """Continue the run, then say what was reached."""
        from jensen.run import resume

        print("\n".join(reached(resume(self.run, self.stream))))
