"""`jensen resume`: go on with a training that was interrupted."""

from typing import ClassVar

from pydantic import Field, PositiveInt

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
    steps: PositiveInt | None = None
    """The number of steps to train for in all, recorded in history.json. Default: as before."""
    learning_rate: float | None = Field(None, gt=0)
    """The peak learning rate from here on, recorded in history.json. Default: as before."""
    stream: Streaming | None = None
    """Whether to leave the examples on disk, which changes no number. Default: as the run was begun."""

    def execute(self) -> None:
        """Continue the run, then say what was reached."""
        from jensen.run import resume

        run = resume(self.run, self.stream, self.data, steps=self.steps, learning_rate=self.learning_rate)
        print("\n".join(reached(run)))
