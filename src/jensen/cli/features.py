"""`jensen features`: a classifier for the run's data, and how far its samples are from them."""

import time
from collections.abc import Sequence
from functools import partial
from itertools import product

from jensen import processes
from jensen.cli import options
from jensen.cli.actions import open_run
from jensen.cli.guide import digest, guided
from jensen.diffusion.model import DiffusionModel, Generation
from jensen.errors import InputError
from jensen.features.distance import DISTANCES, MOST, Cell, Distance, Reference, add_distance, measure, read_distances
from jensen.features.fit import train_classifier
from jensen.features.settings import ClassifierSettings
from jensen.features.store import ClassifierRecord, describe, load_classifier, save_classifier
from jensen.recipe.diffusion import build_generation
from jensen.recipe.settings import DiffusionRecipe
from jensen.report.charts import save_chart
from jensen.report.distances import distances_chart, distances_table
from jensen.run import Run
from jensen.vae import VAE


def features_train(command: options.FeaturesTrain) -> None:
    """Train the classifier, save it with the run, print what it recognises."""
    run = open_run(command.run)
    save_new_classifier(run, command.settings, command.seed)
    print(f"Next: jensen features distance {run.folder}")


def save_new_classifier(run: Run, settings: ClassifierSettings, seed: int) -> None:
    """Train a classifier on the run's data, save it in the run's folder, print what it recognises."""
    dataset = run.dataset
    began = time.perf_counter()
    classifier = train_classifier(dataset, settings, seed)
    record = describe(classifier, dataset, settings, seed, time.perf_counter() - began)
    folder = save_classifier(run.folder, classifier, record)
    for name, share in (("validation", record.validation), ("test", record.test)):
        if share:
            error = 100 * share.standard_error
            print(f"{name} accuracy {100 * share.mean:.2f} ± {error:.2f} % of {share.count:,} examples")
    print(f"{folder} written after {record.seconds:.0f} s")


def features_distance(command: options.FeaturesDistance) -> None:
    """Measure what has not been measured, save each as soon as it is known, print the table, draw the picture."""
    with processes.together():
        run = open_run(command.run)
        classifier, record = load_classifier(run.folder, run.spec)
        cells = _cells(run, command, record)
        missing = [cell for cell in cells if cell not in read_distances(run.folder)]
        if missing:
            reference = Reference.of(classifier, run.dataset, missing[0].n)
    for cell in missing:
        measured = _measured(run, cells[cell], reference, cell)
        processes.on_main(partial(add_distance, run.folder, measured))
    processes.on_main(lambda: _show(run, list(cells), record))


def _show(run: Run, cells: Sequence[Cell], record: ClassifierRecord) -> None:
    from rich.console import Console

    found = read_distances(run.folder)
    Console().print(distances_table([found[cell] for cell in cells], record.test))
    written = [run.folder / DISTANCES]
    beside = {"sampler": None, "steps": None}
    asked = cells[0].model_copy(update=beside)
    chart = distances_chart([one for cell, one in found.items() if cell.model_copy(update=beside) == asked])
    if chart:
        written.append(run.folder / "pictures" / "distances.png")
        written[-1].parent.mkdir(exist_ok=True)
        save_chart(chart, written[-1])
    print(" and ".join(map(str, written)))


def _cells(run: Run, command: options.FeaturesDistance, record: ClassifierRecord) -> dict[Cell, Generation | None]:
    """Every way of sampling that was asked for; what cannot be done is refused here."""
    n = command.n or min(MOST, run.spec.counts["train"])
    common = {"n": n, "seed": command.seed, "weights": run.step, "classifier": record.sha256}
    if not (isinstance(run.recipe, DiffusionRecipe) and isinstance(run.model, DiffusionModel)):
        if command.sampler or command.steps or command.guide or command.guidance is not None:
            raise InputError(
                f"{run.folder} is a run of family {run.recipe.family}: --sampler, --steps, --guidance and --guide are "
                "for diffusion models; leave them out"
            )
        return {Cell(sampler=None, steps=None, guidance=None, **common): None}
    settings, own = run.recipe.model, run.model.generation
    guidance = settings.guidance if command.guidance is None else command.guidance
    cells: dict[Cell, Generation | None] = {}
    for sampler, steps in product(command.sampler or (settings.sampler,), command.steps or (settings.sampling_steps,)):
        wish = {"sampler": sampler, "sampling_steps": steps, "guidance": guidance}
        generation = build_generation(settings.model_copy(update=wish), run.model.scoring.variance)
        run.model.generation = generation = guided(run, generation, command.guide)
        next(run.model.trajectory(1))  # the noise: too many steps, or guidance without labels, is refused by now
        cells[Cell(sampler=sampler, steps=steps, guidance=guidance, guide=digest(generation), **common)] = generation
    run.model.generation = own
    return cells


def _measured(run: Run, generation: Generation | None, reference: Reference, cell: Cell) -> Distance:
    if generation and isinstance(run.model, DiffusionModel):
        run.model.generation = generation
        asked = [run.model.denoiser, *([generation.guide] if generation.guide else [])]
        return measure(run.model, asked, reference, cell)
    assert isinstance(run.model, VAE)
    return measure(run.model, [run.model.decoder], reference, cell)
