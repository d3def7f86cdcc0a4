"""What every command does: call the chapters, print what they give."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import jensen
from jensen import processes
from jensen.cli import options
from jensen.cli.guide import guided
from jensen.data.check import check, describe_targets
from jensen.data.examples import Examples
from jensen.data.grid import save_grid, save_image
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.evaluation.settings import EvaluationSettings
from jensen.progress import track
from jensen.randomness import Noise, Stream, generator
from jensen.recipe.diffusion import build_generation
from jensen.recipe.settings import DiffusionRecipe
from jensen.records import refuse_existing_file, refuse_filled_folder, write_file
from jensen.run import RECIPE, Run

if TYPE_CHECKING:
    from jensen.bound import Estimate
    from jensen.evaluation.evaluation import Evaluation
    from jensen.evaluation.scores import Scores
    from jensen.report.further import Further
    from jensen.report.results import Results

SAMPLES_AT_ONCE = 256
RECOGNISED = 500  # samples that the classifier is shown


def train(command: options.AbstractTrain) -> None:
    """Train by the recipe, then say what was reached and what to do next."""
    name = command.config.stem if command.config else command.recipe.family
    out = command.out or Path("runs") / name
    run = jensen.train(command.recipe, out)
    _print_trained(run)


train_vae = train_diffusion = train


def resume(command: options.Resume) -> None:
    """Continue the run, then say what was reached."""
    _print_trained(jensen.resume(command.run, command.stream))


def open_run(folder: Path) -> Run:
    """The run, on the GPU where there is one; on the CPU with as many threads as its training had."""
    run = jensen.load(folder)
    torch.set_num_threads(run.recipe.training.threads)
    if torch.cuda.is_available() and run.recipe.training.device != "cpu":
        run.model.to("cuda")
    return run


def _print_trained(run: Run) -> None:
    bounds = [line for line in run.metrics if "validation_bound" in line and line["step"] == run.step]
    reached = ""
    if bounds:
        value, error = bounds[-1]["validation_bound"], bounds[-1]["validation_standard_error"]
        reached = f", validation bound {value:.3f} ± {error:.3f} nats per example"
    print(f"{run.folder}: best weights are those of step {run.step}{reached}")
    print(f"Next: jensen evaluate {run.folder}")


def sample(command: options.Sample) -> None:
    """Write samples as a grid, raw values, or a folder of PNGs."""
    with processes.together():
        _check_target(command.out)
        run = open_run(command.run)
        draw = _drawing(run, command)
    last = command.first + command.n
    mine = []
    with processes.together():
        for start in track(processes.share(range(command.first, last, SAMPLES_AT_ONCE)), "sampling"):
            drawn = draw(min(SAMPLES_AT_ONCE, last - start), seed=command.seed, first=start)
            if not drawn.isfinite().all():
                raise InputError(f"{run.folder}: samples are not finite; try a guidance nearer to 0 or other steps")
            mine.append({"x": torch.from_numpy(_raw_or_picture(run, command.out, drawn))})
    x = np.concatenate([part["x"].numpy() for part in processes.gathered(mine)])
    processes.on_main(lambda: _write_arrays(run, command.out, {"x": x}, command.first))
    print(f"{command.out}: {command.n} samples")


def _drawing(run: Run, command: options.Sample) -> Callable[..., torch.Tensor]:
    """The model's `sample` or `sample_mean`, with what the command says of a diffusion model's sampling and labels."""
    plain = run.model.sample_mean if command.mean else run.model.sample
    wishes = {"sampler": command.sampler, "sampling_steps": command.steps, "guidance": command.guidance}
    given = {name: value for name, value in wishes.items() if value is not None}
    if not given and command.label is None and command.guide is None:
        return plain
    if not (isinstance(run.recipe, DiffusionRecipe) and isinstance(run.model, DiffusionModel)):
        raise InputError(
            f"{run.folder} is a run of family {run.recipe.family}: --label, --guidance, --guide, --sampler and --steps "
            "are for diffusion models; leave them out"
        )
    generation = build_generation(run.recipe.model.model_copy(update=given), run.model.scoring.variance)
    run.model.generation = guided(run, generation, command.guide)
    if command.label is None:
        return plain
    label = _label(run, command.label)

    def labelled(n: int, *, seed: int, first: int) -> torch.Tensor:
        return plain(n, seed=seed, first=first, labels=torch.full((n,), label))

    return labelled


def _label(run: Run, given: str) -> int:
    """A label by its name in the data, or by its number where no name is one."""
    names, classes = run.spec.label_names or (), run.model.classes
    if classes is None:
        raise InputError(f"--label {given}: {run.folder} was trained without labels; leave --label out")
    if given in names:
        return names.index(given)
    if given.isdecimal() and int(given) < classes and not any(name.isdecimal() for name in names):
        return int(given)
    known = ", ".join(names[:20]) if names else f"0 to {classes - 1}"
    raise InputError(f"--label {given}: no label of {run.folder}; its labels are {known}; choose one")


def reconstruct(command: options.Reconstruct) -> None:
    """Write originals and reconstructions side by side."""
    _check_target(command.out)
    run = open_run(command.run)
    examples = run.examples(command.data, command.part)[: command.examples]
    x = run.spec.preparation(examples.x[:], Noise(generator(0, Stream.EVALUATION))).to(run.model.device)
    pair = [_raw_or_picture(run, command.out, values) for values in (x, run.model.reconstruct(x))]
    if command.out.suffix == ".npz":
        _write_arrays(run, command.out, {"x": pair[0], "reconstruction": pair[1]}, 0)
    else:
        _write_arrays(run, command.out, {"x": np.concatenate(pair)}, 0, columns=len(examples))
    print(f"{command.out}: {len(examples)} examples and their reconstructions")


def evaluate(command: options.Evaluate) -> None:
    """Evaluate, print the table, write evaluation.json and report.html; referee.json where the referee is asked."""
    from jensen.cli.referee import judged, show
    from jensen.report.further import further_records

    with processes.together():
        run = open_run(command.run)
        further = further_records(run.folder, run.step)  # first, so that a damaged record costs no evaluation
        source = command.data or f"{run.spec.source}, {command.part} split"
        examples = run.examples(command.data, command.part)
    verdict = processes.on_main(lambda: judged(run, examples, source, command))
    evaluate_run(run, examples, source, command.settings, replace(further, verdict=verdict))
    if verdict:
        show(verdict)
    print(f"{run.folder / 'evaluation.json'} and {run.folder / 'report.html'} written")


def evaluate_run(
    run: Run, examples: Examples, source: str, settings: EvaluationSettings, further: "Further | None" = None
) -> "Results | None":
    """Evaluate, save that and its report in the run's folder, print the table; gives what a comparison shows.

    `further` are other records about the run. Several processes evaluate; the main one does the rest.
    """
    from jensen.evaluation.evaluation import evaluate

    evaluation = evaluate(run.model, examples, run.spec.preparation, settings, source)
    return processes.on_main(lambda: _report(run, examples, evaluation, further))


def _report(run: Run, examples: Examples, evaluation: "Evaluation", further: "Further | None") -> "Results":
    from rich.console import Console

    from jensen.evaluation.saved import save_evaluation
    from jensen.report.bound import table
    from jensen.report.pages import NOTHING, write_report

    save_evaluation(run.folder, evaluation)
    results = _results(run, examples, evaluation)
    write_report(results, further or NOTHING)
    Console().print(table(evaluation))
    return results


def _results(
    run: Run, examples: Examples, evaluation: "Evaluation", title: str = "", *, compared: bool = False
) -> "Results":
    """What the pages about a run show; `examples` are those that `evaluation` was made from."""
    from jensen.evaluation.exhibits import make_exhibits
    from jensen.evaluation.yardsticks import yardsticks
    from jensen.recipe import diffusion, vae
    from jensen.report.results import Results

    words = {"vae": vae.WORDS, "diffusion": diffusion.WORDS}[run.recipe.family]
    scores, seed, preparation = evaluation.scores, evaluation.settings.seed, run.spec.preparation
    assert scores is not None
    selection = words.selection(run.spec.layout == "image", compared=compared)
    return Results(
        title=title or run.folder.name,
        folder=run.folder,
        recipe=run.recipe.model_dump(mode="json"),
        words=words,
        spec=run.spec,
        metrics=run.metrics,
        evaluation=evaluation,
        exhibits=make_exhibits(run.model, examples, preparation, scores, selection, seed),
        trained_steps=max([run.step, *(line["step"] for line in run.metrics)]),
        weights_step=run.step,
        labels=None if examples.labels is None else examples.labels[scores.index],
        recognition=_recognition(run, seed),
        yardsticks=yardsticks(run.dataset.train, examples, preparation, scores, seed),
    )


def _recognition(run: Run, seed: int) -> "Estimate | None":
    """How often the run's own classifier sees in a sample the label that was asked for; None without a classifier."""
    from jensen.features.classifier import recognition
    from jensen.features.store import FOLDER, load_classifier

    if run.model.classes is None or not (run.folder / FOLDER).is_dir():
        return None
    classifier, _ = load_classifier(run.folder, run.spec)
    labels = torch.arange(RECOGNISED) % run.model.classes
    samples = run.model.sample(RECOGNISED, seed=seed, labels=labels)
    return recognition(classifier, run.spec.preparation.to_raw(samples), labels)


def compare(command: options.Compare) -> None:
    """Print the table of several evaluated runs, write report.html."""
    if len(set(command.runs)) < 2 or len(set(command.runs)) < len(command.runs):
        raise InputError(f"compare {' '.join(map(str, command.runs))}: expected at least two runs, each once")
    if (command.out / RECIPE).exists():
        raise InputError(f"--out {command.out} is a run, whose report would be lost; give another folder")
    names = [folder.name for folder in command.runs]
    titles = names if len(set(names)) == len(names) else [str(folder) for folder in command.runs]
    compared = [_evaluated(folder, title) for folder, title in zip(command.runs, titles, strict=True)]
    print(f"{compare_results(command.out, compared, ' and '.join(titles))} written")


def compare_results(out: Path, compared: "Sequence[Results]", title: str) -> Path:
    """Write the page about several models, print their table; gives the page's path."""
    from rich.console import Console

    from jensen.report.comparison import comparison_table
    from jensen.report.pages import write_comparison

    path = write_comparison(out, compared, title)
    Console().print(comparison_table(compared))
    return path


def _evaluated(folder: Path, title: str) -> "Results":
    """A run with the evaluation that lies in its folder."""
    from jensen.evaluation.saved import load_evaluation
    from jensen.evaluation.scores import examples_digest

    run = open_run(folder)
    evaluation, examples = load_evaluation(folder), run.examples()
    if examples_digest(examples) != evaluation.examples_digest:
        raise InputError(
            f"{folder} was evaluated on {evaluation.source}, not on its own test examples; "
            f"make that with: jensen evaluate {folder}"
        )
    return _results(run, examples, evaluation, title, compared=True)


def score(command: options.Score) -> None:
    """Write one row per example."""
    from jensen.evaluation.scores import score as score_examples

    with processes.together():
        refuse_existing_file(command.out)
        run = open_run(command.run)
        examples = run.examples(command.data, command.part)
    draws = command.draws or run.model.usual_draws
    scores = score_examples(run.model, examples, run.spec.preparation, draws=draws, seed=command.seed)
    processes.on_main(lambda: _write_scores(run, examples, scores, command.out))


def _write_scores(run: Run, examples: Examples, scores: "Scores", out: Path) -> None:
    names = run.spec.label_names
    labels = None if examples.labels is None else examples.labels.tolist()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["example", "bound_nats", "standard_error_nats", "bits_per_dim", *(["label"] if labels else [])])
    rows = zip(scores.bound.tolist(), scores.standard_error.tolist(), scores.bits_per_dimension.tolist(), strict=True)
    for number, values in enumerate(rows):
        label = [names[labels[number]] if names else labels[number]] if labels else []
        writer.writerow([number, *(f"{value:.6g}" for value in values), *label])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, text.getvalue().encode())
    print(f"{out}: {len(examples)} examples scored")


def info(command: options.Info) -> None:
    """Print what the run is."""
    run = open_run(command.run)
    spec, recipe = run.spec, run.recipe
    parameters = sum(parameter.numel() for parameter in run.model.parameters())
    counts = ", ".join(f"{count} {name}" for name, count in spec.counts.items())
    lines = {
        "run": run.folder,
        "data": f"{spec.source} ({spec.kind}); {counts}; shape {spec.shape}, {spec.dtype}",
        "preparation": spec.preparation.kind,
        **({"targets": describe_targets(spec.targets)} if spec.targets else {}),
        "model": f"{recipe.family}, {parameters:,} parameters; {_settings_line(recipe.model)}",
        "training": f"{_settings_line(recipe.training)}; seed {recipe.seed}",
        "best weights": f"step {run.step} of {recipe.training.steps}",
    }
    evaluation = run.folder / "evaluation.json"
    if evaluation.exists():
        lines["evaluated"] = f"see {evaluation} and {run.folder / 'report.html'}"
    for name, value in lines.items():
        print(f"{name:<13} {value}")


def _settings_line(settings: Any) -> str:
    """What differs from the defaults."""
    changed = settings.model_dump(exclude_defaults=True)
    return ", ".join(f"{name} {value}" for name, value in changed.items()) or "all defaults"


def data_check(command: options.DataCheck) -> None:
    """Print what DATA is; exit status 2 if it would be refused."""
    report = check(command.data, command.read)
    print("\n".join(report.lines()))
    if not report.good:
        raise InputError(f"{command.data} would be refused: {len(report.problems)} problem(s), listed above")


# ---------------------------------------------------------------------------------------------- writing


def _check_target(out: Path) -> None:
    if out.suffix not in (".png", ".npz", ""):
        raise InputError(f"--out {out}: expected a .png, an .npz or a folder; change its ending")
    if out.suffix:
        refuse_existing_file(out)
    else:
        refuse_filled_folder(out)


def _raw_or_picture(run: Run, out: Path, x: Any) -> np.ndarray:
    preparation = run.spec.preparation
    return preparation.to_raw(x) if out.suffix == ".npz" else preparation.to_picture(x)


def _write_arrays(run: Run, out: Path, arrays: dict[str, np.ndarray], first: int, columns: int | None = None) -> None:
    if out.suffix == ".npz":
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)  # type: ignore[arg-type]
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, buffer.getvalue())
        return
    if run.spec.layout != "image":
        raise InputError(f"--out {out}: examples of shape {run.spec.shape} are no images; give an .npz")
    if out.suffix == ".png":
        save_grid(arrays["x"], out, columns)
        return
    out.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(arrays["x"], start=first):
        save_image(picture, out / f"{number:06d}.png")
