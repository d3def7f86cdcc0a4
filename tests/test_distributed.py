"""Several processes as users start them: torchrun, accelerate launch, two hosts; and what takes long."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import several
from test_memory import LIMITED
from test_processes import DIFFUSION, TRAINING, VAE, assert_close, assert_equal, cut, started

from jensen.cli import main
from jensen.errors import InputError
from jensen.training.checkpoint import checkpoints
from jensen.training.log import read_lines
from jensen.training.precision import dtype_of
from jensen.training.settings import TrainingSettings

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
LAUNCHERS = {
    "torchrun": [*TORCHRUN, "--standalone", "--nproc-per-node", "2"],
    "accelerate": [
        *(sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "29731"),
    ],
}


def _here(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process trains."""
    run = tmp_path_factory.mktemp("one") / "run"
    _here(*DIFFUSION, *TRAINING, "--out", run)
    return run


@pytest.mark.parametrize("launcher", list(LAUNCHERS))
def test_launchers_start_processes_that_train_together(launcher: str, one: Path, tmp_path: Path) -> None:
    words = [*LAUNCHERS[launcher], "-m", "jensen", *DIFFUSION, *TRAINING, "--out", tmp_path / "run"]
    told = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=300, check=False)
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("best weights") == 1
    assert_close(tmp_path / "run", one)


@pytest.mark.parametrize("key", ["SIGTERM", "Ctrl-C"])
def test_torchrun_passes_a_signal_on_and_all_stop_with_a_checkpoint(key: str, tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of a terminal, and to each worker once more by torchrun."""
    words = [*LAUNCHERS["torchrun"], "-m", "jensen", *VAE, *TRAINING, "--steps", 10**6, "--out", tmp_path / "run"]
    command, pipe = [str(word) for word in words], subprocess.PIPE
    running = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    saved = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + 200
    while not checkpoints(saved) and time.monotonic() < deadline and running.poll() is None:
        time.sleep(0.05)
    running.terminate() if key == "SIGTERM" else os.killpg(running.pid, signal.SIGINT)
    _, err = running.communicate(timeout=200)
    step = int(checkpoints(saved)[-1].name.removeprefix("step-"))
    assert err.count(f"jensen: stopped at step {step}; continue with: jensen resume") == 1, err


def test_three_processes_resume_bit_for_bit(tmp_path: Path) -> None:
    """With more than two, the order in which gradients are summed shows."""
    wide = ["train", "vae", "--hidden", 200, 200, "--latent-dims", 20, *TRAINING]
    for sharding in ("none", "full"):
        run, again = tmp_path / sharding, tmp_path / f"{sharding}-again"
        said = tmp_path / "said"
        assert several.run(3, [[*wide, "--sharding", sharding, "--out", run]], said).codes == [0, 0, 0]
        assert several.run(3, [["resume", cut(run, again, 10)]], said).codes == [0, 0, 0]
        assert_equal(again, run)


def test_shards_of_each_machine(one: Path, tmp_path: Path) -> None:
    """Two machines of two processes: shards within, sums between."""
    run, said = tmp_path / "run", tmp_path / "said"
    told = several.run(4, [[*DIFFUSION, *TRAINING, "--sharding", "hybrid", "--out", run]], said, machines=2)
    assert told.codes == [0, 0, 0, 0], told
    assert_close(run, one)
    assert several.run(4, [["resume", cut(run, tmp_path / "cut", 10)]], said, machines=2).codes == [0, 0, 0, 0]
    assert_equal(tmp_path / "cut", run)


def test_where_one_is_killed_the_other_ends_too(tmp_path: Path) -> None:
    running = started(tmp_path / "run", tmp_path / "said")
    os.kill(running[1].pid or 0, signal.SIGKILL)
    told = several.ended(running, tmp_path / "said")
    assert told.codes == [1, -signal.SIGKILL]
    assert "another of the processes has ended" in told.err[0]
    assert "Traceback" not in told.err[0]


KINDS = {
    "per-datapoint": [*VAE, "--posterior", "per-datapoint", "--fit-steps", 5],
    "convolutional": [
        *("train", "vae", "--latent-dims", 3, "--network", "convolutional", "--channels", 4, 8),
        *("--likelihood", "gaussian"),
    ],
    "importance": [*VAE, "--objective", "doubly-reparameterised", "--micro-batch-size", 5],
    "unet": ["train", "diffusion", "--widths", 8, 8, "--bound-terms", 3, "--sampling-steps", 3],
    "transformer": [
        *("train", "diffusion", "--network", "transformer", "--width", 16, "--depth", 2, "--activation-checkpointing"),
        *("--bound-terms", 3, "--sampling-steps", 3),
    ],
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_of_model_trains_on_two(kind: str, tmp_path: Path) -> None:
    words = [*KINDS[kind], *TRAINING, "--steps", 12, "--log-every", 2]
    _here(*words, "--out", tmp_path / "one")
    shardings = ["none"] if kind == "per-datapoint" else ["none", "full"]
    by_two = [[*words, "--sharding", sharding, "--out", tmp_path / sharding] for sharding in shardings]
    told = several.run(2, by_two, tmp_path / "said")
    assert told.codes == [0, 0], told
    for sharding in shardings:
        assert_close(tmp_path / sharding, tmp_path / "one")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("family", [VAE, DIFFUSION], ids=["vae", "diffusion"])
def test_networks_in_16_bits(family: list[object], precision: str, tmp_path: Path) -> None:
    """Each process rounds the gradient of its rows to 16 bits: the losses agree to that."""
    try:
        dtype_of(TrainingSettings(precision=precision), "cpu")  # type: ignore[arg-type]
    except InputError as error:
        pytest.skip(str(error))
    words = [*family, *TRAINING, "--steps", 30, "--log-every", 1]
    _here(*words, "--precision", precision, "--out", tmp_path / "one")
    by_two = [
        [*words, "--precision", kind, "--sharding", sharding, "--out", tmp_path / kind / sharding]
        for kind in (precision, "float32")
        for sharding in ("none", "full")
    ]
    told = several.run(2, by_two, tmp_path / "said")
    assert told.codes == [0, 0], told
    scalers = []
    for sharding in ("none", "full"):
        runs = [tmp_path / "one", tmp_path / precision / sharding, tmp_path / "float32" / sharding]
        losses = [[line["loss"] for line in read_lines(run / "metrics.jsonl") if "loss" in line] for run in runs]
        assert losses[0] == pytest.approx(losses[1], rel=0.02)
        assert losses[1] != losses[2]  # it was another arithmetic
        scalers.append(json.loads((checkpoints(runs[1] / "checkpoints")[-1] / "state.json").read_text()).get("scaler"))
    assert scalers[0] == scalers[1]
    assert precision == "bfloat16" or scalers[0]["scale"] < 2**16


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_where_one_process_is_short_of_memory_all_take_smaller_parts(tmp_path: Path) -> None:
    """The second alone may have only so many MiB more than at the start."""
    (tmp_path / "limited.py").write_text(LIMITED.replace("if more:", "if more and os.environ.get('RANK') == '1':"))
    words = ["train", "vae", "--steps", "3", "--hidden", "1024", "--batch-size", "16384", "--log-every", "1"]
    for name, launcher in (("two", LAUNCHERS["torchrun"]), ("one", [sys.executable])):
        command = [*launcher, tmp_path / "limited.py", 100, *words, "--out", tmp_path / name]
        told = subprocess.run([str(w) for w in command], capture_output=True, text=True, timeout=500, check=False)
        assert told.returncode == 0, told.stderr
        if name == "two":
            assert told.stderr.count("memory ran out; batches of 16384 go through the network") == 1
    lines = [read_lines(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    assert not any("micro_batch_size" in line for line in lines[0])
    sizes = [line["micro_batch_size"] for line in lines[1] if "micro_batch_size" in line]
    assert sizes
    assert set(sizes) <= {4096, 2048, 1024, 512, 256}
    losses = [[line["loss"] for line in found if "loss" in line] for found in lines]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.filterwarnings("default:.*back to step")
def test_all_roll_back_together(tmp_path: Path) -> None:
    """A loss that explodes is seen by all, and the same steps are left out."""
    words = [*VAE, *TRAINING, "--steps", 60, "--learning-rate", 0.1, "--log-every", 2, "--explosion", 0.2]
    words += ["--on-divergence", "rollback", "--rollbacks", 10]
    _here(*words, "--out", tmp_path / "one")
    by_two = [[*words, "--sharding", sharding, "--out", tmp_path / sharding] for sharding in ("none", "full")]
    told = several.run(2, by_two, tmp_path / "said")
    assert told.codes == [0, 0], told
    assert any("left_out" in line for line in read_lines(tmp_path / "one" / "metrics.jsonl"))
    for sharding in ("none", "full"):
        assert_close(tmp_path / sharding, tmp_path / "one")


def test_data_on_disk_are_read_by_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 17, (500, 8, 8), dtype=np.uint8))
    words = [*VAE, *TRAINING, "--data", tmp_path / "x.npy", "--stream", "always"]
    _here(*words, "--out", tmp_path / "one")
    assert several.run(2, [[*words, "--out", tmp_path / "two"]], tmp_path / "said").codes == [0, 0]
    assert_close(tmp_path / "two", tmp_path / "one")


def test_predictions_and_features_are_those_of_one_process(one: Path, tmp_path: Path) -> None:
    _here("features", "train", one, "--visits", 2000)
    found = []
    for count in (1, 2):
        out = tmp_path / str(count)
        shutil.copytree(one, out)
        commands = [
            ["predict", out, "--examples", 120, "--draws", 2, "--out", out / "predicted.csv"],
            ["features", "check", out, "--n", 600],
            ["features", "distance", out, "--n", 600],
        ]
        told = several.run(count, commands, tmp_path / f"said-{count}")
        assert set(told.codes) == {0}, told
        records = [
            json.loads(path.read_text()) for path in (out / "predictions.json", next(out.glob("*metrics*.json")))
        ]
        (distance,) = json.loads((out / "distances.json").read_text())["distances"]
        assert distance.pop("seconds") > 0
        for record in (*records, distance):
            assert record.pop("provenance")["processes"] == count
        found.append([(out / "predicted.csv").read_text(), *records, distance])
    assert found[0] == found[1]


# ---------------------------------------------------------------------------------------------- two hosts


@pytest.fixture
def hosts() -> Iterator[dict[str, tuple[str, str]]]:
    """Two network namespaces joined by a cable: name -> (its end of the cable, its address)."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    names, ends = ([f"{kind}{os.getpid()}{side}" for side in "ab"] for kind in ("jn", "jv"))
    made = subprocess.run(["ip", "netns", "add", names[0]], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    addresses = ["10.231.77.1", "10.231.77.2"]
    try:
        _ip("netns", "add", names[1])
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, addresses, strict=True):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            for device in ("lo", end):
                _ip("-n", name, "link", "set", device, "up")
        yield {name: place for name, *place in zip(names, ends, addresses, strict=True)}
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.mark.parametrize("rendezvous", ["static", "c10d"])
def test_two_hosts_rendezvous_and_train(rendezvous: str, hosts: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    """One torchrun each, with nothing in common but the cable and the disk."""
    first = next(iter(hosts.values()))[1]
    running = []
    for number, (name, (end, address)) in enumerate(hosts.items()):
        meet = {
            "static": ["--node-rank", number, "--master-addr", first, "--master-port", 29500],
            "c10d": [
                "--rdzv-backend",
                "c10d",
                "--rdzv-endpoint",
                f"{first}:29501",
                "--local-addr",
                address,
                "--rdzv-conf",
                f"is_host={1 - number}",
            ],
        }[rendezvous]
        words = [*TORCHRUN, "--nnodes", 2, "--nproc-per-node", 1, *meet, "-m", "jensen", *DIFFUSION, *TRAINING]
        inside = ["ip", "netns", "exec", name, "env", f"GLOO_SOCKET_IFNAME={end}"]
        command = [str(word) for word in (*inside, *words, "--out", tmp_path / "run")]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    told = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert [out.count("best weights") for out, _ in told] in ([1, 0], [0, 1])
    _here(*DIFFUSION, *TRAINING, "--out", tmp_path / "one")
    assert_close(tmp_path / "run", tmp_path / "one")
