"""`jensen features check`: samples against the data by every measure, and against the training examples for copies."""

import torch
from torch import Tensor

from jensen import processes
from jensen.cli import options
from jensen.cli.actions import open_run
from jensen.features.fit import shown
from jensen.features.sample_metrics import FeatureFunction, check_samples, draw, pixels, require, seen_by
from jensen.features.store import FOLDER, load_classifier
from jensen.randomness import Noise, generator
from jensen.records import write_file
from jensen.report.charts import save_chart
from jensen.report.sample_metrics import PICTURE, RECORD, SUSPICIOUS, metrics_table, nearest_chart
from jensen.run import Run


def features_check(command: options.FeaturesCheck) -> None:
    """Draw samples, measure them, print the table; write the numbers and a picture into the run."""
    with processes.together():
        run = open_run(command.run)
        name, see = _seeing(run, command.pixels)
        dataset = run.dataset
        require(command.k, samples=command.n, train=len(dataset.train), test=len(dataset.test))
    x = draw(run.model, command.n, command.seed, dataset.train.labels)
    processes.on_main(lambda: _compare(run, command, name, see, x))


def _compare(run: Run, command: options.FeaturesCheck, name: str, see: FeatureFunction, x: Tensor) -> None:
    from rich.console import Console

    dataset, preparation = run.dataset, run.spec.preparation
    train, test = (shown(part, preparation) for part in (dataset.train, dataset.test))
    samples = torch.from_numpy(preparation.to_raw(x))
    check = check_samples(samples, train, test, features=see, name=name, k=command.k, seed=command.seed)
    Console().print(metrics_table(check.metrics))
    record, picture = run.folder / RECORD.format(name), run.folder / PICTURE.format(name)
    metrics = check.metrics.model_copy(update={"weights": run.step})
    write_file(record, metrics.model_dump_json(indent=1).encode())
    picture.parent.mkdir(exist_ok=True)
    least = check.nearest.samples.argsort()[:SUSPICIOUS]
    pairs = None
    if run.spec.layout == "image":
        copied = train[check.nearest.row[least]]
        pairs = preparation.to_picture(x[least]), preparation.to_picture(preparation(copied, Noise(generator(0))))
    save_chart(nearest_chart(check.nearest, check.metrics.memorisation, pairs), picture)
    print(f"{record} and {picture} written")


def _seeing(run: Run, in_pixels: bool) -> tuple[str, FeatureFunction]:
    """The classifier's features where the run has one and nobody wants pixels; and what they are called."""
    if in_pixels or not (run.folder / FOLDER).is_dir():
        return "pixels", pixels(run.spec)
    classifier, _ = load_classifier(run.folder, run.spec)
    return "classifier", seen_by(classifier)
