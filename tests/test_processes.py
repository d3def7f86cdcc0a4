"""Several processes do what one does: training, checkpoints, commands; they stop together and speak with one voice."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import several
import torch
from safetensors.torch import load_file

import jensen
from jensen import processes
from jensen.cli import main
from jensen.errors import InputError
from jensen.randomness import Noise, generator
from jensen.training.checkpoint import checkpoints
from jensen.training.log import read_lines

TRAINING = [
    *("--steps", 20, "--batch-size", 24, "--log-every", 4, "--validate-every", 10, "--checkpoint-every", 5),
    *("--ema-decay", 0.9, "--clip-norm", 1.0, "--validation-examples", 50, "--warmup-steps", 5, "--keep-last", 9),
]
VAE = ["train", "vae", "--hidden", 16, "--latent-dims", 3, "--fit-steps", 20]
DIFFUSION = [
    *("train", "diffusion", "--network", "mlp", "--width", 16, "--depth", 1, "--bound-terms", 3, "--sampling-steps", 3),
    *("--flip", "horizontal", "--shift", 0.2),  # whose draws must agree
    *("--times", "loss-aware", "--micro-batch-size", 8),  # whose parts, and buffers that remember losses, must agree
]
FAMILIES = {"vae": VAE, "diffusion": DIFFUSION}


def commands(folder: Path, out: Path) -> list[several.Words]:
    """Every command that shares its work, about the run `vae` in `folder`."""
    run = folder / "vae"
    return [
        ["score", run, "--split", "train", "--draws", 2, "--out", out / "scores.csv"],
        ["sample", run, "--n", 600, "--seed", 3, "--out", out / "samples.npz"],
        ["evaluate", run, "--batch-size", 30, "--further-examples", 70, "--samples", 30],
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both families, trained by one process: `vae`, `diffusion`; by two: `vae-none`, `vae-full` and so on."""
    folder = tmp_path_factory.mktemp("runs")
    for name, words in FAMILIES.items():
        assert main([str(word) for word in [*words, *TRAINING, "--out", folder / name]]) == 0
    by_two = [
        [*words, *TRAINING, "--sharding", sharding, "--out", folder / f"{name}-{sharding}"]
        for name, words in FAMILIES.items()
        for sharding in ("none", "full")
    ]
    told = several.run(2, by_two, folder / "said")
    assert told.codes == [0, 0], told
    assert told.out[1] == ""
    assert told.out[0].count("best weights") == 4
    return folder


def _tensors(run: Path, file: str) -> dict[str, torch.Tensor]:
    return load_file(checkpoints(run / "checkpoints")[-1] / file)


def assert_close(run: Path, other: Path) -> None:
    """The same lines of metrics and the same last checkpoint, but for rounding."""
    lines, others = (read_lines(folder / "metrics.jsonl") for folder in (run, other))
    assert len(lines) == len(others) > 5
    for line, expected in zip(lines, others, strict=True):
        assert line.keys() == expected.keys()
        for name in line.keys() - {"examples_per_second"}:
            value = expected[name]
            assert line[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-4, abs=1e-6)), name
    for file in ("model.safetensors", "optimiser.safetensors"):  # weights and their moving average; moments
        torch.testing.assert_close(_tensors(run, file), _tensors(other, file), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_processes_train_what_one_does(trained: Path, family: str, sharding: str) -> None:
    assert_close(trained / f"{family}-{sharding}", trained / family)


def cut(run: Path, folder: Path, step: int) -> Path:
    """A copy of a run that was killed after `step`."""
    shutil.copytree(run, folder)
    for path in checkpoints(folder / "checkpoints"):
        if int(path.name.removeprefix("step-")) > step:
            shutil.rmtree(path)
    return folder


def assert_equal(run: Path, other: Path) -> None:
    """The same checkpoints bit for bit."""
    names = [path.name for path in checkpoints(other / "checkpoints")]
    assert [path.name for path in checkpoints(run / "checkpoints")] == names
    for name in names:
        for file in ("model.safetensors", "optimiser.safetensors", "state.json"):
            assert (run / "checkpoints" / name / file).read_bytes() == (
                other / "checkpoints" / name / file
            ).read_bytes(), (name, file)


def test_checkpoints_are_interchangeable(trained: Path, tmp_path: Path) -> None:
    """From two processes to one and back; on as many as before, bit for bit."""
    for sharding in ("none", "full"):
        jensen.resume(cut(trained / f"diffusion-{sharding}", tmp_path / f"on-one-{sharding}", 10))
        assert_close(tmp_path / f"on-one-{sharding}", trained / "diffusion")
    record = cut(trained / "diffusion", tmp_path / "on-two-full", 10) / "recipe.json"
    recipe = json.loads(record.read_text())
    recipe["training"]["sharding"] = "full"
    record.write_text(json.dumps(recipe))
    resumed = [
        cut(trained / "diffusion", tmp_path / "on-two", 10),
        record.parent,
        cut(trained / "diffusion-none", tmp_path / "again-none", 10),
        cut(trained / "diffusion-full", tmp_path / "again-full", 10),
    ]
    told = several.run(2, [["resume", run] for run in resumed], tmp_path / "said")
    assert told.codes == [0, 0], told
    for run in resumed[:2]:
        assert_close(run, trained / "diffusion")
    for run, sharding in zip(resumed[2:], ("none", "full"), strict=True):
        assert_equal(run, trained / f"diffusion-{sharding}")


def test_commands_give_the_numbers_of_one_process(trained: Path, tmp_path: Path) -> None:
    """Bit for bit, since a batch is never divided; pictures and tables too."""
    found = []
    for count in (1, 2):
        out = tmp_path / str(count)
        told = several.run(count, commands(trained, out), tmp_path / f"said-{count}")
        assert set(told.codes) == {0}, told
        samples = np.load(out / "samples.npz")["x"]
        evaluated = [trained / "vae" / name for name in ("evaluation.json", "scores.npz")]
        evaluation = json.loads(evaluated[0].read_text())
        assert evaluation.pop("provenance")["processes"] == count
        found.append([(out / "scores.csv").read_bytes(), samples, evaluation, evaluated[1].read_bytes()])
        said = told.out[0].replace(str(out), "out")
        found[-1].append(said)
        assert told.out[1:] == [""] * (count - 1)
        for path in evaluated:
            path.unlink()
    for one, two in zip(*found, strict=True):
        assert np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two
    assert len(found[0][1]) == 600
    assert found[0][0].count(b"\n") > 1000


def test_samples_depend_on_seed_and_number_alone(trained: Path) -> None:
    """Alone or in a batch of any size, to the rounding of products of other sizes."""
    for name in FAMILIES:
        model = jensen.load(trained / name).model
        together = model.sample_mean(20, seed=5)
        for size in (1, 7):
            parts = [model.sample_mean(min(size, 20 - first), seed=5, first=first) for first in range(0, 20, size)]
            torch.testing.assert_close(torch.cat(parts), together, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model.sample_mean(20, seed=6), together, atol=1e-2)


# ---------------------------------------------------------------------------------------------- mistakes, signals


def test_what_cannot_be_done_is_said_once(trained: Path, tmp_path: Path) -> None:
    new = ["--out", tmp_path / "new"]
    refused = {
        "batch_size 25 on 2 processes": [*VAE, "--batch-size", 25, *new],
        "needs the mean of a whole batch": [*VAE, "--free-bits", 0.1, *new],
        "choose both, or posterior amortised": [*VAE, "--posterior", "per-datapoint", "--sharding", "full", *new],
        "a single number, which cannot be split": [*VAE, "--variance", "shared", "--sharding", "full", *new],
        "holds a run already": [*VAE, "--out", trained / "vae"],
        "is not a run": ["sample", tmp_path, "--out", tmp_path / "samples.npz"],
        "runs in one process": ["info", trained / "vae"],
        "see jensen train vae --help": [*VAE, "--no-such-flag"],
    }
    told = several.run(2, list(refused.values()), tmp_path / "said")
    assert told.codes == [2, 2]
    said = "".join(told.err).splitlines()
    assert len(said) == len(refused), said
    for line, expected in zip(sorted(said), sorted(said), strict=True):
        assert line == expected
    for expected in refused:
        assert sum(expected in line for line in said) == 1, (expected, said)
    assert not (tmp_path / "new").exists()


def started(out: Path, said: Path) -> list[several.Process]:
    """Two processes that train for ever."""
    words = [*VAE, *TRAINING, "--steps", 10**6, "--out", out]
    running = several.start(2, [words], said)
    deadline = time.monotonic() + 100
    while not checkpoints(out / "checkpoints") and time.monotonic() < deadline:
        time.sleep(0.05)
    return running


def test_a_signal_to_one_stops_all_with_a_checkpoint(tmp_path: Path) -> None:
    running = started(tmp_path / "run", tmp_path / "said")
    os.kill(running[1].pid or 0, signal.SIGTERM)
    told = several.ended(running, tmp_path / "said")
    assert told.codes == [130, 130]
    last = checkpoints(tmp_path / "run" / "checkpoints")[-1]
    step = int(last.name.removeprefix("step-"))
    assert "".join(told.err).count(f"stopped at step {step}; continue with: jensen resume") == 1


# ---------------------------------------------------------------------------------------------- alone


def test_one_process_keeps_everything() -> None:
    assert (processes.count(), processes.rank(), processes.is_main()) == (1, 0, True)
    assert processes.share(range(5)) == range(5)
    assert processes.own_rows(7) == slice(0, 7)
    columns = {"x": torch.ones(2)}
    assert processes.gathered([columns]) == [columns]
    assert processes.on_main(lambda: 3) == 3
    with pytest.raises(InputError, match="mine"), processes.together():
        raise InputError("mine")
    assert not torch.distributed.is_initialized()


def test_noise_of_a_process_goes_on_in_parts() -> None:
    whole = Noise(generator(5)).normal((12, 2))
    own = Noise(generator(5)).part(slice(6, 12), 12)
    assert torch.equal(own.part(slice(2, 5), 6).normal((3, 2)), whole[8:11])
    assert torch.equal(own.normal((6, 2)), whole[6:])
