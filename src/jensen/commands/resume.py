"""`jensen resume`: continue an interrupted training."""

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
    """The new path of the run's own data, if they have moved. The data are checked, and the path is recorded."""
    steps: PositiveInt | None = None
    """Total number of training steps, recorded in history.json. Default: unchanged."""
    minutes: float | None = Field(default=None, gt=0, le=1e6)
    """Time for further training, instead of `steps`; the resulting total is recorded in history.json."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Peak learning rate for the remaining steps, recorded in history.json. Default: unchanged."""
    stream: Streaming | None = None
    """When to leave the examples on disk; the choice changes no number. Default: unchanged."""

    def execute(self) -> None:
        """Continue the run, then print the result and the next command."""
        from jensen.run import resume

        run = resume(
            self.run,
            self.stream,
            self.data,
            steps=self.steps,
            minutes=self.minutes,
            learning_rate=self.learning_rate,
        )
        print("\n".join(reached(run)))
