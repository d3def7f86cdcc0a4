"""Exported files: onnxruntime and torch.export give the scores of jensen, for any batch, and name no path."""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.exchange.onnx import TOLERANCE
from jensen.randomness import Stream, derived_seed, normal_per_example

TINY_VAE = "--hidden 16 --latent-dims 2 --steps 20 --validation-examples 20"
TINY_TABLE = "--width 8 --latent-dims 2 --steps 20"
TINY_DIFFUSION = "--widths 8 --blocks 1 --octaves 0 --chain-steps 20 --bound-terms 4 --sampling-steps 4 --steps 6"


LONG = ("table", "diffusion")  # models whose export to ONNX takes half a minute


def mixed(path: Path) -> Path:
    """A table with a column for every law: real with an atom and with missing cells, whole, count, codes."""
    random, rows = np.random.default_rng(0), ["pay,age,visits,town,score"]
    for _ in range(200):
        pay = f"{np.exp(random.normal(7, 1)):.2f}" if random.random() > 0.3 else "0.00"
        score = f"{random.standard_cauchy():.5f}" if random.random() > 0.1 else ""
        visits = random.negative_binomial(1, 0.0005)
        rows.append(f"{pay},{random.integers(18, 90)},{visits},{random.choice(['a', 'b', 'c'])},{score}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Callable[[str], jensen.Run]:
    """A small run of digits, one of a table, and one of a diffusion model, by name."""
    folder = tmp_path_factory.mktemp("runs")
    wanted = {
        "digits": ["vae", *TINY_VAE.split()],
        "table": [
            "vae",
            "--data",
            str(folder / "mixed.csv"),
            "--columns",
            str(folder / "columns.toml"),
            *TINY_TABLE.split(),
        ],
        "diffusion": ["diffusion", *TINY_DIFFUSION.split(), "--validation-examples", "10"],
    }
    mixed(folder / "mixed.csv")
    (folder / "columns.toml").write_text('visits = "count"\n')

    @cache
    def run(name: str) -> jensen.Run:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the table's atom, and its few rows
            assert main(["train", *wanted[name], "--out", str(folder / name)]) == 0
        return jensen.load(folder / name)

    return run


@pytest.fixture(scope="module")
def onnx_files(runs, tmp_path_factory) -> Callable[[str], Path]:
    """The ONNX files of a run by its name."""
    folder = tmp_path_factory.mktemp("onnx")

    @cache
    def exported(name: str) -> Path:
        # In a process of its own: the checks of shapes that tests run under would fix the size of the traced batch
        words = ["export", str(runs(name).folder), "--to", "onnx", "--out", str(folder / name)]
        found = subprocess.run([sys.executable, "-m", "jensen", *words], capture_output=True, text=True, check=False)
        assert "onnxruntime agrees" in found.stdout, found.stderr[-2000:]
        return folder / name

    return exported


def outputs(path: Path, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path)
    return dict(zip([port.name for port in session.get_outputs()], session.run(None, inputs), strict=True))


def of_every_law(run: jensen.Run) -> set[str]:
    return {field.law for field in run.spec.preparation.fields}


@pytest.mark.parametrize("name", ["digits", pytest.param("table", marks=pytest.mark.slow)])
@pytest.mark.parametrize("count", [1, 20])
def test_onnxruntime_gives_the_scores_of_jensen(runs, onnx_files, name, count):
    run, draws = runs(name), 3
    if name == "table":
        assert of_every_law(run) == {"real", "whole", "count", "codes"}
    x, index = run.examples().x[:count], torch.arange(count)
    stream = derived_seed(0, Stream.EVALUATION)
    noise = normal_per_example(stream, range(count), (draws, run.model.latent_dims)).transpose(0, 1)
    found = outputs(onnx_files(name) / "log_prob_of_noise.onnx", x=x.numpy(), noise=noise.numpy())
    score = jensen.score(run, draws=draws, explained=0 if name == "table" else None).bound[:count]
    np.testing.assert_allclose(found["elbo"], score, rtol=TOLERANCE)
    prepared = run.spec.preparation(x)
    of_k = normal_per_example(stream, range(count), (draws, run.model.latent_dims), 0).transpose(0, 1)
    found = outputs(onnx_files(name) / "log_prob_of_noise.onnx", x=x.numpy(), noise=of_k.numpy())
    exact = run.model.importance_weighted_bound(prepared, samples=draws, index=index).value
    np.testing.assert_allclose(found["log_prob"], run.spec.preparation.raw_nats(exact, x), rtol=TOLERANCE)
    encoded = outputs(onnx_files(name) / "encoder.onnx", x=x.numpy())
    np.testing.assert_allclose(encoded["mean"], run.model.encode(prepared), rtol=1e-4, atol=1e-5)
    decoded = outputs(onnx_files(name) / "decoder.onnx", z=encoded["mean"])["mean"]
    again = run.spec.preparation.to_raw(run.model.reconstruct(prepared))
    np.testing.assert_allclose(decoded if name == "table" else np.round(decoded), again, rtol=1e-4, atol=1e-4)


def test_log_prob_draws_its_own_noise_for_any_k(runs, onnx_files):
    run = runs("digits")
    x = run.examples().x[:4]
    found = outputs(onnx_files("digits") / "log_prob.onnx", x=x.numpy(), k=np.array(4000))
    assert found["log_weights"].shape == (4000, 4)
    exact = run.model.importance_weighted_bound(run.spec.preparation(x), samples=4000)
    # Independent estimates: eight errors of their difference are exceeded with a probability below 1e-10 (normal)
    error = 2**0.5 * exact.standard_error.numpy()
    assert np.all(np.abs(found["log_prob"] - exact.value.numpy()) < 8 * error + 1e-4)


@pytest.mark.slow
def test_a_sum_of_terms_is_the_bound_of_jensen(runs, onnx_files):
    run = runs("diffusion")
    x, count = run.examples().x[:6], 6
    facts = json.loads((onnx_files("diffusion") / "model.json").read_text())["bound"]
    session = onnxruntime.InferenceSession(onnx_files("diffusion") / "bound.onnx")
    model = run.model
    exact = model.estimators(jensen_effort())[1].estimate(run.spec.preparation(x), 0, torch.arange(count))
    total, stream = np.zeros(count), derived_seed(0, Stream.EVALUATION)
    for t in range(1, facts["steps"] + 1):
        noise = normal_per_example(stream, range(count), tuple(x.shape[1:]), 0, t - 1).numpy()
        inputs = {"x": x.numpy(), "t": np.full(count, t), "noise": noise, "label": np.full(count, model.classes)}
        term, rest = session.run(None, inputs)
        total -= term
    np.testing.assert_allclose(rest + total, run.spec.preparation.raw_nats(exact.value, x), rtol=TOLERANCE)


def jensen_effort():
    from jensen.model import Effort

    return Effort(cross_checks=True)


def test_axes_have_names(onnx_files):
    session = onnxruntime.InferenceSession(onnx_files("digits") / "log_prob_of_noise.onnx")
    assert [port.shape for port in session.get_inputs()] == [["batch", 1, 8, 8], ["k", "batch", 2]]


@pytest.mark.parametrize("name", ["digits", *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)])
def test_no_file_names_a_path(runs, onnx_files, name):
    places = [str(Path(jensen.__file__).parent), str(Path(torch.__file__).parent), str(runs(name).folder.parent)]
    for path in onnx_files(name).iterdir():
        assert not [place for place in places if place.encode() in path.read_bytes()], path


ALONE = """
import sys, torch
sys.modules["jensen"] = None  # an import of jensen fails
program = torch.export.load(sys.argv[1]).module()
given = torch.load(sys.argv[2], weights_only=True)
torch.save([program(*inputs) for inputs in given], sys.argv[3])
"""


def test_a_program_of_torch_runs_without_jensen_for_any_batch(runs, tmp_path):
    run = runs("table")
    jensen.export(run, to="torch", out=tmp_path / "program")
    x = run.examples().x
    noises = [torch.randn(k, count, 2) for k, count in ((1, 1), (5, 20))]
    torch.save([(x[: noise.shape[1]], noise) for noise in noises], tmp_path / "given.pt")
    files = (tmp_path / "program/log_prob.pt2", tmp_path / "given.pt", tmp_path / "found.pt")
    subprocess.run([sys.executable, "-c", ALONE, *map(str, files)], check=True, cwd=tmp_path)
    found = torch.load(tmp_path / "found.pt", weights_only=True)
    for noise, (log_prob, elbo, log_weights) in zip(noises, found, strict=True):
        own = x[: noise.shape[1]]
        q = run.model.infer(run.spec.preparation(own))
        z = q.mean + q.scale * noise
        weights = run.model.log_joint(run.spec.preparation(own), z) - q.log_prob(z)
        exact = run.spec.preparation.raw_nats(weights.double().exp().mean(0).log(), own)
        torch.testing.assert_close(log_prob, exact, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(log_weights.exp().mean(0).log(), exact, rtol=1e-6, atol=1e-6)
        assert (elbo <= exact + 20).all()
    assert str(Path(jensen.__file__).parent).encode() not in (tmp_path / "program/log_prob.pt2").read_bytes()


def test_a_posterior_without_an_encoder_is_refused_by_name(tmp_path):
    words = "train vae --posterior per-datapoint --hidden 4 --latent-dims 2 --steps 2 --fit-steps 2"
    assert main([*words.split(), "--validation-examples", "5", "--out", str(tmp_path / "run")]) == 0
    with pytest.raises(jensen.InputError, match="posterior per-datapoint"):
        jensen.export(jensen.load(tmp_path / "run"), to="onnx", out=tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
