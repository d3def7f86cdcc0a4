"""`jensen features distance`: the Fréchet distance of samples from the data, by sampler and steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import NonNegativeInt, PositiveInt

from jensen.commands.common import Command, RunFolder
from jensen.recipe.diffusion.samplers import Sampler

if TYPE_CHECKING:
    from jensen.features.distance import Cell, Distance
    from jensen.features.store import ClassifierRecord
    from jensen.recipe.family import Sampling
    from jensen.run import Run


class FeaturesDistance(Command):
    """Measure the distance of samples from the data, by sampler and steps."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run. Distances that its distances.json already holds are not measured again."""
    n: PositiveInt | None = None
    """Number of samples. Default: 10,000, or the number of training examples if that is smaller."""
    sampler: tuple[Sampler, ...] = ()
    """Diffusion: one or several samplers. Default: the run's."""
    steps: tuple[PositiveInt, ...] = ()
    """Diffusion: one or several numbers of steps. Default: the run's."""
    guidance: float | None = None
    """Diffusion with labels: scale of classifier-free guidance, or of guidance by --guide. Default: the run's."""
    guide: Path | None = None
    """Diffusion: a worse run on the same data, such as one trained for fewer steps. Samples are guided away from it."""
    seed: NonNegativeInt = 0
    """The seed of the samples."""

    def execute(self) -> None:
        """Measure the missing distances, save each as soon as it is known, print the table, draw the picture."""
        from rich.console import Console

        from jensen import processes
        from jensen.run import load, opened

        with processes.together():
            run = opened(self.run)
            guide = load(self.guide) if self.guide else None
        found = features_distance(
            run, self.n, samplers=self.sampler, steps=self.steps, guidance=self.guidance, guide=guide, seed=self.seed
        )

        def show() -> None:
            Console().print(found.table())
            print(" and ".join(map(str, found.save_chart())))

        processes.on_main(show)


@dataclass(frozen=True)
class Distances:
    """The requested distances (`asked`), and all distances in the run's distances.json (`known`)."""

    run: "Run"
    asked: "tuple[Distance, ...]"
    known: "tuple[Distance, ...]"
    classifier: "ClassifierRecord"

    def table(self) -> Any:
        """A row for each way of sampling, as a rich table."""
        from jensen.report.distances import distances_table

        return distances_table(self.asked, self.classifier.test)

    def save_chart(self) -> list[Path]:
        """Draw distances against steps, if the model has steps, into the run. Returns the paths of written files."""
        from jensen.features.distance import DISTANCES
        from jensen.report.charts import save_chart
        from jensen.report.distances import distances_chart

        beside = {"sampler": None, "steps": None}
        way = self.asked[0].cell.model_copy(update=beside)
        chart = distances_chart([one for one in self.known if one.cell.model_copy(update=beside) == way])
        written = [self.run.folder / DISTANCES]
        if chart:
            written.append(self.run.folder / "pictures" / "distances.png")
            written[-1].parent.mkdir(exist_ok=True)
            save_chart(chart, written[-1])
        return written


def features_distance(
    run: "Run",
    n: int | None = None,
    *,
    samplers: Sequence[Sampler] = (),
    steps: Sequence[int] = (),
    guidance: float | None = None,
    guide: "Run | None" = None,
    seed: int = 0,
) -> Distances:
    """Measure the Fréchet distance between `n` samples of the model and the test split.

    The distance is between the features that the run's classifier computes. One distance is measured for each sampler
    and number of steps. A distance that is already in the run's distances.json is not measured again; a new distance is
    saved there as soon as it is known. Processes started by torchrun divide the sampling among themselves. Before
    anything is measured, `InputError` is raised for a run without a classifier, and for an impossible way of sampling.
    """
    from jensen import processes
    from jensen.commands.sample import guide_of
    from jensen.features.distance import MOST, Reference, add_distance, measure, read_distances
    from jensen.features.store import load_classifier
    from jensen.recipe.family import SamplingWish

    with processes.together():
        classifier, record = load_classifier(run.folder, run.spec)
        n = n or min(MOST, run.spec.counts["train"])
        worse = guide_of(run, guide) if guide else None
        ways = [
            run.family.sampling(run.model, run.recipe, SamplingWish(sampler, count, guidance, worse))
            for sampler, count in product(samplers or (None,), steps or (None,))
        ]
        cells = {_cell(run, way, n, seed, record.sha256): way for way in ways}
        missing = [cell for cell in cells if cell not in read_distances(run.folder)]
        if missing:
            reference = Reference.of(classifier, run.dataset, missing[0].n)
    for cell in missing:
        measured = measure(cells[cell].model, reference, cell, run.provenance)
        processes.on_main(partial(add_distance, run.folder, measured))
    known = read_distances(run.folder)
    return Distances(run, tuple(known[cell] for cell in cells), tuple(known.values()), record)


def _cell(run: "Run", way: "Sampling[Any]", n: int, seed: int, classifier: str) -> "Cell":
    from jensen.features.distance import Cell

    return Cell(
        sampler=way.sampler,
        steps=way.steps,
        guidance=way.guidance,
        guide=way.guide,
        n=n,
        seed=seed,
        weights=run.weights,
        classifier=classifier,
    )
