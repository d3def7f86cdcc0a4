"""`jensen impute`: draws of what is missing, as pictures and arrays, and how well calibrated they are."""

import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jensen.cli import options
from jensen.cli.actions import open_run
from jensen.data.examples import Examples
from jensen.data.grid import save_grid
from jensen.data.load import load_split, read_examples
from jensen.data.mask import read_mask
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.evaluation.scores import prepare, spread
from jensen.inference.calibration import calibration, save_calibration
from jensen.inference.imputation import impute as draw_missing
from jensen.inference.imputation import usual_imputer
from jensen.inference.impute_diffusion import Replacement, TwistedParticles
from jensen.inference.impute_vae import ImportanceResampling, MetropolisWithinGibbs
from jensen.inference.imputer import AbstractImputer, ExampleNoise, Imputation
from jensen.records import refuse_filled_folder, write_file
from jensen.report.charts import save_chart
from jensen.report.imputation import calibration_picture, calibration_table, remarks
from jensen.run import Run

SHOWN = 16  # of a run's own examples, where nobody says how many; and at most in the picture
HOLE = 0.45  # the brightness of what is missing in a picture


def impute(command: options.Impute) -> None:
    """Impute, write arrays and, of images, a picture; where the truth is known, also how well calibrated that is."""
    refuse_filled_folder(command.out)
    run = open_run(command.run)
    imputer = _imputer(run, command)
    examples, rows = _examples(run, command)
    observed, known = _masks(run, command, examples, rows)
    raw = examples.x[rows]
    x = prepare(run.spec.preparation, raw, rows, command.seed)
    found = draw_missing(run.model, x, observed, draws=command.draws, seed=command.seed, index=rows, method=imputer)
    if not found.draws.isfinite().all():
        raise InputError(f"{run.folder}: draws are not finite; try other --steps")
    draws, truth = _in_raw_units(run, found.draws, x, raw, observed)
    command.out.mkdir(parents=True, exist_ok=True)
    _save_arrays(command.out / "imputations.npz", rows, draws, observed.numpy())
    if run.spec.layout == "image":
        _save_picture(run, command.out / "imputations.png", x, observed, found, bool(known.all()))
    if command.calibrate:
        _calibrate(run, command, imputer, (draws, truth), known & ~observed)
    for name, values in found.diagnostics.items():
        print(f"{name}: {values.double().mean():.3g} (mean), {values.min():.3g} (least)")
    print(f"{command.out}: {command.draws} draws for each of {len(rows)} examples")
    print(f"It holds {', '.join(sorted(path.name for path in command.out.iterdir()))}")


# ---------------------------------------------------------------------------------------------- what was asked for


def _imputer(run: Run, command: options.Impute) -> AbstractImputer:
    """The method that the flags name; refuses those of the other family."""
    usual = usual_imputer(run.model)
    diffusion = isinstance(run.model, DiffusionModel)
    method = command.method or ("particles" if diffusion else "gibbs")
    family = "diffusion" if method in ("particles", "replacement") else "vae"
    if family != run.recipe.family:
        raise InputError(f"--method {method} is for family {family}, {run.folder} is {run.recipe.family}; leave it out")
    heeded: dict[str, tuple[str, ...]] = {
        "particles": ("particles", "steps"),
        "replacement": ("resamplings", "steps"),
        "gibbs": ("sweeps", "samples"),
        "importance": ("samples",),
    }
    wishes = {name: getattr(command, name) for name in ("particles", "resamplings", "steps", "sweeps", "samples")}
    given = {name: value for name, value in wishes.items() if value is not None}
    for name in given.keys() - set(heeded[method]):
        raise InputError(f"--{name} is not for --method {method}, which heeds --{' and --'.join(heeded[method])}")
    if method == "particles":
        return TwistedParticles(**given)
    if method == "replacement":
        return Replacement(**given)
    start = ImportanceResampling(given.pop("samples")) if "samples" in given else ImportanceResampling()
    if method == "importance":
        return start
    assert isinstance(usual, MetropolisWithinGibbs)
    return MetropolisWithinGibbs(given.get("sweeps", usual.sweeps), start)


def _examples(run: Run, command: options.Impute) -> tuple[Examples, Tensor]:
    """All examples of the data, and the numbers of those that are asked for."""
    if command.data is None:
        examples = load_split(run.spec, command.part)
        return examples, spread(len(examples), command.examples or SHOWN)
    examples = read_examples(command.data, run.spec, missing=run.spec.levels is None)
    return examples, spread(len(examples), command.examples)


def _masks(run: Run, command: options.Impute, examples: Examples, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What is observed, and what is known, hidden or not; each (count, *shape)."""
    known = (
        ~examples.x[rows].isnan() if examples.x.dtype.is_floating_point else torch.ones(len(rows), *run.spec.shape) > 0
    )
    observed = known
    if command.mask is not None:
        observed = known & torch.from_numpy(
            read_mask(command.mask, run.spec, len(examples), rows.tolist(), command.seed)
        )
    if bool(observed.all()):
        source = (
            f"--mask {command.mask} hides nothing" if command.mask else "no value is missing and no --mask hides any"
        )
        raise InputError(f"{source}; there is nothing to impute: give a --mask, say half:bottom or random:0.5")
    if command.calibrate and bool((known == observed).all()):
        raise InputError("--calibrate compares with the truth, and no --mask hides any; give one, say random:0.5")
    return observed, known


# ---------------------------------------------------------------------------------------------- what is written


def _in_raw_units(run: Run, draws: Tensor, x: Tensor, raw: Tensor, observed: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Draws (draws, count, *shape) and the examples (count, *shape) in the data's own numbers, observed ones untouched.

    Where a run binarises its data, the examples are the binarised ones.
    """
    preparation = run.spec.preparation
    truth = raw.numpy() if raw.is_floating_point() and preparation.kind == "standardise" else preparation.to_raw(x)
    flat = preparation.to_raw(draws.cpu().flatten(0, 1)).reshape(tuple(draws.shape))
    return np.where(observed.numpy(), truth, flat), truth


def _save_arrays(path: Path, rows: Tensor, draws: np.ndarray, observed: np.ndarray) -> None:
    wide = draws.astype(np.float64)
    deviation = wide.std(0, ddof=1) if len(draws) > 1 else np.full(wide.shape[1:], np.nan)
    precision = np.result_type(draws.dtype, np.float32)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        draws=draws,
        mask=observed,
        mean=wide.mean(0).astype(precision),
        sd=deviation.astype(precision),
        example=rows.numpy(),
    )
    write_file(path, buffer.getvalue())


def _save_picture(run: Run, path: Path, x: Tensor, observed: Tensor, found: Imputation, whole: bool) -> None:
    """A row for each example: itself where it is known, what is observed of it, the draws, their mean."""
    pictures = run.spec.preparation.to_picture
    x, draws = x[:SHOWN].cpu().nan_to_num(), found.draws[:, :SHOWN].cpu()
    original = pictures(x)
    seen = np.where(observed[:SHOWN].numpy(), original, original.dtype.type(HOLE * np.iinfo(original.dtype).max))
    columns = [*([original] if whole else []), seen, *map(pictures, draws), pictures(draws.mean(0))]
    save_grid(np.stack(columns, 1).reshape(-1, *run.spec.shape), path, columns=len(columns))


def _calibrate(
    run: Run, command: options.Impute, imputer: AbstractImputer, raw: tuple[np.ndarray, np.ndarray], hidden: Tensor
) -> None:
    """Write calibration.json and calibration.png; of test examples the former into the run as well, for its report."""
    from rich.console import Console

    draws, truth = (torch.from_numpy(values.astype(np.float64)) for values in raw)
    found = calibration(
        draws,
        truth.nan_to_num(),
        hidden,
        ExampleNoise(command.seed, range(len(truth))),
        source=command.data or f"{run.spec.source}, {command.part} split",
        mask=str(command.mask),
        method=_described(imputer),
        weights=run.step,
    )
    print("\n".join([f"{found.source}: {found.method}", *remarks(found)]))
    Console().print(calibration_table(found))
    save_chart(calibration_picture(found), command.out / "calibration.png")
    save_calibration(command.out, found)
    if command.of_test:
        print(f"{save_calibration(run.folder, found)} written, for its report")


def _described(imputer: AbstractImputer) -> str:
    """The method and its settings in words."""
    if isinstance(imputer, TwistedParticles):
        return f"twisted particles, {imputer.particles} in {imputer.steps} steps"
    if isinstance(imputer, Replacement):
        return f"replacement, {imputer.steps} steps, each {imputer.resamplings} times"
    if isinstance(imputer, MetropolisWithinGibbs):
        return f"Metropolis within Gibbs, {imputer.sweeps} sweeps"
    assert isinstance(imputer, ImportanceResampling)
    return f"importance resampling, {imputer.samples} samples"
