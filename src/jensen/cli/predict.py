"""`jensen predict`: p(y|x) of every example, labels or targets, and how good it is where y is known."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from jensen import processes
from jensen.cli import options
from jensen.cli.actions import open_run
from jensen.data.examples import Examples
from jensen.data.load import read_examples
from jensen.data.target_scaling import TargetScaling
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.evaluation.scores import spread
from jensen.inference.calibration import Coverage
from jensen.inference.prediction import Circumstances, Predictions, assess, predict_examples, save_csv, save_record
from jensen.inference.target_prediction import (
    Regression,
    TargetCircumstances,
    assess_linear,
    assess_targets,
    predict_target_examples,
    save_target_csv,
    save_targets,
)
from jensen.recipe.settings import VAERecipe
from jensen.records import refuse_existing_file
from jensen.report.pages import write_predictions
from jensen.report.predictions import predictions_table
from jensen.report.target_predictions import targets_table
from jensen.run import Run
from jensen.vae import VAE, ContinuousTarget


def predict(command: options.Predict) -> None:
    """Predict, write a row per example; where y is known print how good that was, write it with pictures."""
    with processes.together():
        refuse_existing_file(command.out, ".csv")
        if not command.of_test:
            _check_beside(command.out)
        run = open_run(command.run)
    model, scaling = run.model, run.spec.targets
    if scaling and isinstance(model, VAE) and isinstance(model.target, ContinuousTarget):
        processes.on_main(lambda: _predict_targets(command, run, model, scaling))
    else:
        _predict_labels(command, run)


def _predict_targets(command: options.Predict, run: Run, model: VAE, scaling: TargetScaling) -> None:
    from rich.console import Console

    examples = _examples(run, command)
    rows, preparation = spread(len(examples), command.examples), run.spec.preparation
    found = predict_target_examples(
        model, examples, preparation, scaling, draws=command.draws, seed=command.seed, index=rows
    )
    save_target_csv(command.out, found)
    print(f"{command.out}: {len(rows)} examples predicted")
    if found.y is None:
        print("The targets are not known: there is nothing to compare the predictions with.")
        return
    told = TargetCircumstances(_source(run, command), run.step, command.draws, command.seed)
    record = assess_targets(found, scaling, _linear(run, examples[rows], found.y, scaling), told)
    folder = _report_folder(command, run)
    written = save_targets(folder, record), write_predictions(folder, record, run.folder.name)
    Console().print(targets_table(record))
    if advice := _advice(run, record.model.coverage[0]):
        print(advice)
    print(f"{written[0]} and {written[1]} written")


def _advice(run: Run, found: Coverage) -> str:
    """What to do about intervals that hold y too often, beyond three standard errors, after training by the ELBO."""
    assert isinstance(run.recipe, VAERecipe)
    model, share = run.recipe.model, found.share
    if model.objective != "elbo" or share.mean - found.nominal <= 3 * share.standard_error:
        return ""
    return (
        f"Intervals too wide, {100 * found.nominal:g} % ones hold {100 * share.mean:.1f} %, as the ELBO makes them: "
        "train with\n--objective importance-weighted --importance-samples 20"
    )


def _linear(run: Run, examples: Examples, y: Tensor, scaling: TargetScaling) -> Regression | None:
    """Of a linear regression on the run's training examples; None where they are gone or others now."""
    try:
        train = run.dataset.train
    except InputError:
        return None
    return assess_linear(train, examples, y, run.spec.preparation, scaling)


def _report_folder(command: options.Predict, run: Run) -> Path:
    """Where it is said how good the predictions are: the run's folder holds what is about its test examples."""
    if command.of_test:
        return run.folder
    folder = _beside(command.out)
    folder.mkdir(exist_ok=True)
    return folder


def _beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}-report")


def _check_beside(out: Path) -> None:
    if (report := _beside(out)).exists():
        raise InputError(f"--out {out}: {report} exists and would be lost; give another name, or remove it first")


def _source(run: Run, command: options.Predict) -> str:
    return command.data or f"{run.spec.source}, {command.part} split"


def _predict_labels(command: options.Predict, run: Run) -> None:
    with processes.together():
        counts = _label_counts(run)
        examples = _examples(run, command)
        names = run.spec.label_names or tuple(str(number) for number in range(len(counts)))
        _refuse_unseen(examples, counts, names)
    rows = spread(len(examples), command.examples)
    preparation = run.spec.preparation
    found = predict_examples(run.model, examples, preparation, draws=command.draws, seed=command.seed, index=rows)
    processes.on_main(lambda: _write_labels(command, run, found, names, counts))


def _write_labels(
    command: options.Predict, run: Run, found: Predictions, names: tuple[str, ...], counts: tuple[int, ...]
) -> None:
    from rich.console import Console

    save_csv(command.out, found, names)
    print(f"{command.out}: {len(found.index)} examples predicted")
    if found.labels is None:
        print("The labels are not known: there is nothing to compare the predictions with.")
        return
    one_bound = run.model.bound_evaluations if isinstance(run.model, DiffusionModel) else None
    told = Circumstances(_source(run, command), run.step, command.draws, command.seed, names, counts, one_bound)
    record = assess(found, told)
    folder = _report_folder(command, run)
    written = save_record(folder, record), write_predictions(folder, record, run.folder.name)
    Console().print(predictions_table(record))
    print(f"{written[0]} and {written[1]} written")


def _label_counts(run: Run) -> tuple[int, ...]:
    """How many training examples each class has, of which the model is told; refuses one that knows no labels."""
    model = run.model
    if model.predicted_classes is None:
        advice = "without --no-conditional" if run.recipe.family == "diffusion" else "with --predict label"
        raise InputError(
            f"{run.folder} was trained without labels, so it has no p(y|x); train on labelled data, {advice}: "
            f"jensen train {run.recipe.family}"
        )
    counts = run.label_counts
    assert counts is not None
    if isinstance(model, DiffusionModel):
        model.scoring = replace(model.scoring, label_counts=counts)
    return counts


def _examples(run: Run, command: options.Predict) -> Examples:
    if command.data is None:
        return run.examples(split=command.part)
    return read_examples(command.data, run.spec, only_known_y=True)


def _refuse_unseen(examples: Examples, counts: tuple[int, ...], names: tuple[str, ...]) -> None:
    """A label of the data that no training example has: what a model says of it means nothing."""
    if examples.labels is None:
        return
    for label in examples.labels.unique().tolist():
        if not counts[label]:
            raise InputError(
                f"label {names[label]} of the data was never seen in training: no training example has it; "
                "train on more data, or leave such examples out"
            )
