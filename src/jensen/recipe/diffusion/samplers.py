"""The samplers of recipes and of the command line: one table. Importing this module imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Entry:
    """A sampler: its class in `jensen.diffusion.sampler`, its grid in `.schedule` beside it, and its arguments."""

    kind: str
    grid: str
    arguments: Mapping[str, float] = field(default_factory=dict)


SAMPLERS: Mapping[str, Entry] = {
    "ancestral": Entry("Ancestral", "UniformTime"),
    "ddim": Entry("DDIM", "UniformTime"),
    "heun": Entry("Heun", "UniformRoot"),
    "dpm-solver++": Entry("DPMSolver2M", "UniformLogSnr"),
    "dpm-solver++-sde": Entry("DPMSolver2M", "UniformLogSnr", {"eta": 1.0}),
    "unipc": Entry("UniPC", "UniformLogSnr"),
}

if TYPE_CHECKING:
    Sampler = str
else:
    Sampler = Literal[tuple(SAMPLERS)]  # so that a name is refused where it is given, by recipe and command line alike
