"""`jensen predict`: p(y|x) of every example, and how good it is where the labels are known."""

from dataclasses import replace

from jensen.cli import options
from jensen.cli.actions import open_run
from jensen.cli.targets import check_file
from jensen.data import Examples, read_examples
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.evaluate.scores import spread
from jensen.inference.prediction import Circumstances, assess, predict_examples, save_csv, save_record
from jensen.inference.show import predictions_table, write_page
from jensen.run import Run


def predict(command: options.Predict) -> None:
    """Predict, write a row per example; where labels are known print how good that was, write it with pictures."""
    from rich.console import Console

    check_file(command.out, ".csv")
    run = open_run(command.run)
    counts = _label_counts(run)
    examples = _examples(run, command)
    names = run.spec.label_names or tuple(str(number) for number in range(len(counts)))
    _refuse_unseen(examples, counts, names)
    rows = spread(len(examples), command.examples)
    model, preparation = run.model, run.spec.preparation
    found = predict_examples(model, examples, preparation, draws=command.draws, seed=command.seed, index=rows)
    save_csv(command.out, found, names)
    print(f"{command.out}: {len(rows)} examples predicted")
    if found.labels is None:
        print("The labels are not known: there is nothing to compare the predictions with.")
        return
    source = command.data or f"{run.spec.source}, {command.split} split"
    one_bound = model.bound_evaluations if isinstance(model, DiffusionModel) else None
    told = Circumstances(source, run.step, command.draws, command.seed, names, counts, one_bound)
    record = assess(found, told)
    save_record(run.folder, record)
    page = write_page(run.folder, record)
    Console().print(predictions_table(record))
    print(f"{run.folder / 'predictions.json'} and {page} written")


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
        return run.examples(split=command.split)
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
