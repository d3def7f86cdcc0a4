"""A training as a job: run for real by submitit's local executor, and the batch file that Slurm would get."""

import os
import subprocess
from pathlib import Path

import pytest

import jensen
from jensen.cli import main
from jensen.commands.slurm import submit
from jensen.recipe.vae.settings import VAESettings

submitit = pytest.importorskip("submitit")
RECIPE = jensen.VAERecipe(
    data="digits", model=VAESettings(latent_dims=2, hidden=(8,)), training={"steps": 6, "validate_every": 6}
)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs that stand for Slurm's: sbatch keeps the file it gets."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {
        "srun": "exit 0",
        "sbatch": f'cp "$1" {tmp_path}/sent.sh; echo Submitted batch job 12',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_the_batch_file_says_what_was_asked(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = cluster / "big"
    asked = ["partition=gpu", "timeout_min=240", "nodes=2", "gpus_per_node=8", "tasks_per_node=8", "qos=long"]
    assert main(["train", "vae", "--steps", "6", "--out", str(out), "--slurm", *asked]) == 0
    assert "job 12 trains" in capsys.readouterr().out
    sent = (cluster / "sent.sh").read_text()
    subprocess.run(["bash", "-n", str(cluster / "sent.sh")], check=True)
    for line in ("partition=gpu", "time=240", "nodes=2", "gpus-per-node=8", "ntasks-per-node=8", "qos=long"):
        assert f"#SBATCH --{line}\n" in sent
    assert "#SBATCH --job-name=jensen-big\n" in sent
    assert not out.exists()
    assert (cluster / "big-job/recipe.json").exists()


def test_what_a_job_cannot_be(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(jensen.InputError, match="--slurm gpu: expected NAME=VALUE"):
        submit(RECIPE, cluster / "run", ["gpu"])
    with pytest.raises(jensen.InputError, match="partitoin"):
        submit(RECIPE, cluster / "run", ["partitoin=gpu"])
    with pytest.raises(jensen.InputError, match="cluster=moon: expected one of slurm, local, debug"):
        submit(RECIPE, cluster / "run", ["cluster=moon"])
    sbatch = cluster / "bin/sbatch"
    accepting = sbatch.read_text()
    sbatch.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpux' >&2\nexit 1\n")
    with pytest.raises(jensen.InputError, match=r"Slurm refused the job .*invalid partition specified: gpux"):
        submit(RECIPE, cluster / "run", ["partition=gpux"])
    sbatch.write_text(accepting)
    assert not (cluster / "run-job").exists()
    (cluster / "there").mkdir()
    with pytest.raises(jensen.InputError, match="exists and would be lost"):
        submit(RECIPE, cluster / "there", [])
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(jensen.InputError, match="this machine has no srun"):
        submit(RECIPE, cluster / "run", [])


@pytest.mark.slow
def test_a_job_trains_and_a_job_that_comes_again_resumes(tmp_path: Path) -> None:
    """Two processes are started by submitit's local executor, as Slurm would start them."""
    job = submit(RECIPE, tmp_path / "run", ["cluster=local", "timeout_min=10"])
    run = jensen.load(tmp_path / "run") if job.result() else None
    assert run is not None
    assert run.finished
    assert run.weights == job.result()
    again = submitit.AutoExecutor(tmp_path / "again", cluster="local")
    again.update_parameters(timeout_min=10)
    assert (
        again.submit(job.submission().function).result() == run.weights
    )  # a run that has begun is resumed, not refused
