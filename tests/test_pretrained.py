"""The layout of the Hugging Face Hub: a folder holds the whole run and no path; upload and download are real requests.

The server below speaks the part of the Hub's protocol that huggingface_hub uses for a small repository.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.exchange.places import command_without_places, without_places

TINY = "--hidden 8 --latent-dims 2 --steps 5 --validation-examples 10"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> jensen.Run:
    """A small run that was evaluated."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "vae", *TINY.split(), "--out", str(folder)]) == 0
    assert main(["evaluate", str(folder), "--examples", "8", "--further-examples", "2", "--samples", "16"]) == 0
    return jensen.load(folder)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained") / "digits"
    jensen.save_pretrained(run, folder, license="apache-2.0")
    return folder


def same(one: jensen.Run, other: jensen.Run) -> bool:
    """Whether two runs sample and score alike."""
    samples = [jensen.sample(run, 3).x for run in (one, other)]
    scores = [jensen.score(run, "digits", draws=2).bound[:5] for run in (one, other)]
    return (samples[0] == samples[1]).all() and torch.equal(*scores)


def test_a_folder_gives_the_run_back(run, folder, tmp_path):
    back = jensen.from_pretrained(folder)
    assert (back.step, back.weights, back.recipe, back.spec) == (run.step, run.weights, run.recipe, run.spec)
    assert same(run, back)
    assert jensen.from_pretrained(folder.as_uri()).weights == run.weights
    written = jensen.from_pretrained(folder, out=tmp_path / "run")
    assert jensen.load(tmp_path / "run").weights == run.weights == written.weights
    assert main(["info", str(tmp_path / "run")]) == 0


def test_the_card_has_metadata_for_the_hub_and_numbers_with_errors(run, folder):
    card = huggingface_hub.ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "jensen")
    assert card.data.eval_results[0].metric_type == "nats"
    record = json.loads((run.folder / "evaluation.json").read_text())
    assert card.data.eval_results[0].metric_value == pytest.approx(record["elbo"]["nats"]["mean"])
    assert re.search(r"\| ELBO \| -\d+\.?\d* ± \d", card.text)
    assert command_without_places("jensen evaluate /secret/place/run --draws 3") == "jensen evaluate run --draws 3"


def test_no_file_holds_a_path_of_the_machine(run, folder):
    for path in folder.iterdir():
        assert str(run.folder.parent).encode() not in path.read_bytes()
    content = {"a": "/secret/place/x.csv", "b": ["rows of /secret/place/x.csv"], "c": "a/b"}
    assert without_places(content, ["/secret/place/x.csv"]) == {"a": "x.csv", "b": ["rows of x.csv"], "c": "a/b"}


def test_values_of_a_table_that_look_like_paths_stay_as_they_are(tmp_path):
    rows = [f"{value},{value}" for value in ("/a/x", "/b/x", "c") * 20]
    (tmp_path / "pages.csv").write_text("\n".join(["page,/next", *rows]) + "\n")
    folder, words = tmp_path / "run", "--latent-dims 2 --steps 2 --validation-examples 5 --validate-every 2"
    assert main(["train", "vae", "--data", str(tmp_path / "pages.csv"), *words.split(), "--out", str(folder)]) == 0
    run = jensen.load(folder)
    jensen.save_pretrained(run, tmp_path / "hub")
    back = jensen.from_pretrained(tmp_path / "hub")
    assert back.spec.table == run.spec.table
    assert set(jensen.sample(back, 30).frame().column("page").to_pylist()) <= {"/a/x", "/b/x", "c"}
    assert str(tmp_path) not in (tmp_path / "hub/config.json").read_text()


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", b"{}", "not of a model of jensen"),
        ("config.json", b"[", "no JSON"),
        ("model.safetensors", b"\x80\x04N.", "does not fit"),
    ],
)
def test_a_damaged_folder_is_refused_in_one_line(folder, tmp_path, file, content, said):
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / file).write_bytes(content)
    with pytest.raises(jensen.InputError, match=said) as found:
        jensen.from_pretrained(tmp_path / "copy")
    assert "\n" not in str(found.value)


def test_other_weights_than_the_recorded_ones_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy/config.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "weights": "0" * 64}))
    with pytest.raises(jensen.InputError, match="other weights"):
        jensen.from_pretrained(tmp_path / "copy")


def test_mistakes_are_told_before_anything_is_written(run, folder, tmp_path, capsys, monkeypatch):
    with pytest.raises(jensen.InputError, match="license 'My Own'"):
        jensen.export(run, to="pretrained", out=tmp_path / "new", license="My Own")
    assert not (tmp_path / "new").exists()
    with pytest.raises(jensen.InputError, match="not an empty folder"):
        jensen.save_pretrained(run, folder)
    with pytest.raises(jensen.InputError, match="no such folder"):
        jensen.from_pretrained(tmp_path / "nothing")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (".", "..", str(tmp_path / "here")):
        with pytest.raises(jensen.InputError, match=r"not an empty folder|the present folder"):
            jensen.export(run, to="pretrained", out=out)
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert jensen.export(run, to="pretrained", out=tmp_path / "link").files
    assert (tmp_path / "empty/config.json").exists()
    assert main(["export", str(run.folder), "--to", "torch", "--license", "mit", "--out", str(tmp_path / "t")]) == 2
    assert "has no model card" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- the Hub


class Hub(BaseHTTPRequestHandler):
    """One repository in memory: created, filled by a commit, listed, and read."""

    files: dict[str, bytes] = {}  # noqa: RUF012 - one server a process

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _json(self, content: object, status: int = 200) -> None:
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json"})

    def _send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _commit(self) -> str:
        digest = hashlib.sha1(b"".join(name.encode() + body for name, body in sorted(self.files.items())))
        return digest.hexdigest()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        host = f"http://{self.headers['Host']}"
        if self.path.endswith("/validate-yaml"):
            self._json({"errors": [], "warnings": []})
        elif self.path.endswith("/repos/create"):
            self._json({"url": f"{host}/me/digits", "name": "me/digits"})
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            self._json({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._json({"success": True, "commitUrl": f"{host}/me/digits/commit/{self._commit()}",
                        "commitOid": self._commit(), "hookOutput": ""})  # fmt: skip
        else:
            self._json({"error": self.path}, 404)

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if not self.path.startswith(("/api/models/me/digits", "/me/digits/resolve/")):
            self._send(b"", 404, {"X-Error-Code": "RepoNotFound"})
        elif "/resolve/" in self.path and name in self.files:
            tag = hashlib.sha1(self.files[name]).hexdigest()
            self._send(self.files[name], 200, {"ETag": f'"{tag}"', "X-Repo-Commit": self._commit()})
        elif "/tree/" in self.path:
            self._json([{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                        for n, b in self.files.items()])  # fmt: skip
        elif self.path.startswith("/api/models/me/digits"):
            listed = [{"rfilename": each} for each in self.files]
            self._json({"id": "me/digits", "sha": self._commit(), "siblings": listed, "private": False,
                        "tags": [], "downloads": 0, "likes": 0})  # fmt: skip
        else:
            self._json({"error": self.path}, 404)

    do_HEAD = do_GET  # noqa: N815 - http.server asks for this name


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


THERE_AND_BACK = """
import sys, jensen
run = jensen.load(sys.argv[1])
print(jensen.push_to_hub(run, "me/digits", license="mit", token="hf_x"))
back = jensen.from_pretrained("me/digits")
assert back.weights == run.weights
try:
    jensen.from_pretrained("me/nothing")
except jensen.InputError as error:
    print(error)
"""


AWAY = """
import sys, jensen
try:
    jensen.push_to_hub(jensen.load(sys.argv[1]), "me/digits", token="hf_x")
except jensen.InputError as error:
    print(error)
"""


def test_a_run_goes_to_the_hub_and_back_and_stays_readable_offline(run, hub, tmp_path):
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    own = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {**os.environ, **own}
    program = [sys.executable, "-c", THERE_AND_BACK, str(run.folder)]
    found = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    assert f"{address}/me/digits/commit/" in found.stdout
    assert "me/nothing: it cannot be downloaded" in found.stdout
    assert set(Hub.files) >= {"config.json", "model.safetensors", "README.md"}
    unreachable = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    program = [sys.executable, "-c", AWAY, str(run.folder)]
    found = subprocess.run(program, env=unreachable, capture_output=True, text=True, check=False)
    assert "me/digits: it cannot be uploaded" in found.stdout, found.stderr[-2000:]
    offline = {**environment, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"}
    again = "import jensen; print(jensen.from_pretrained('me/digits').weights)"
    found = subprocess.run([sys.executable, "-c", again], env=offline, capture_output=True, text=True, check=False)
    assert found.stdout.strip() == run.weights, found.stderr[-2000:]
