"""Hostile requests: none gives status 500 or a traceback, and none writes anything. `make serve-fuzz` sends 100,000."""

import asyncio
import base64
import hashlib
import io
import json
import os
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import hypothesis
import numpy as np
import pytest
import schemathesis
from hypothesis import strategies as st
from serving import folder, made, serving

from jensen.serve.guard import App
from jensen.serve.limits import Limits
from jensen.serve.routes import application
from jensen.serve.server import Server

# hypothesis takes random numbers of the model's thread for some of its own
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the .random. module")
CASES = int(os.environ.get("SERVE_FUZZ_CASES", "250"))
LIMITS = Limits(max_bytes=20_000, max_examples=4, max_numbers=2_000, deadline=5)
VERBS = ("sample", "score", "reconstruct", "encode", "decode", "impute", "predict", "interpolate")
RUNS = ("pictures", "people", "labelled")
KINDS = ("application/json", "application/x-npy", "image/png", "text/csv", "text/plain", "")
ALLOWED = {200, 400, 401, 403, 404, 405, 406, 413, 415, 422, 429, 503, 504}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = made(LIMITS)
    server.service.queue.start()
    yield server
    server.service.queue.close()


@pytest.fixture(scope="module")
def app(server: Server) -> App:
    return application(server.service)


def state(cwd: Path) -> str:
    """A digest of the runs and of the working folder."""
    digest = hashlib.sha256()
    for path in sorted([*folder().rglob("*"), *cwd.rglob("*")]):
        digest.update(str(path).encode() + (path.read_bytes() if path.is_file() else b""))
    return digest.hexdigest()


def check(method: str, status: int, body: bytes) -> None:
    """The status is one of those of docs/serving.md, and an error is three sentences without a path."""
    assert status in ALLOWED, body
    assert b"Traceback" not in body
    assert str(folder()).encode() not in body
    if status != 200 and method != "HEAD":
        found = json.loads(body)
        assert set(found) == {"error"}
        assert set(found["error"]) == {"given", "expected", "do"}


# ---------------------------------------------------------------------------------------------- bodies

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20),
    st.sampled_from(["nan", "1e999", "../..", "/etc/passwd", "pictures", "7", "gibbs", "age", "\0", "\ud800"]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = """run n seed first label given steps guidance mean png x z mask draws method samples sweeps particles a b path
target other"""
FIELDS = st.sampled_from(NAMES.split())


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


EXAMPLE = np.zeros((1, 1, 8, 8), np.uint8)
ROW = {"age": 30, "sex": "F", "town": "Bern", "pay": 40.0}
SOUND = st.sampled_from(
    [
        EXAMPLE.tolist(), EXAMPLE[0].tolist(), [ROW], {"age": [30], "sex": ["M"], "town": [None], "pay": [3]},
        {"npy": base64.b64encode(npy(EXAMPLE)).decode()}, [[0.0] * 4], np.full((1, 1, 8, 8), None).tolist(),
    ]
)  # fmt: skip
RUN = st.sampled_from(RUNS)
SMALL = {"steps": st.integers(1, 4), "samples": st.integers(1, 4), "sweeps": st.integers(1, 3), "n": st.integers(1, 5),
         "draws": st.integers(1, 3), "particles": st.integers(1, 3)}  # fmt: skip
NEARLY = st.fixed_dictionaries(
    {"run": RUN},
    optional={
        **SMALL, "x": SOUND, "z": SOUND, "seed": VALUES, "mask": VALUES, "a": SOUND, "b": SOUND, "label": VALUES,
        "given": VALUES, "target": VALUES,
    },
)  # fmt: skip
RIGHT = st.fixed_dictionaries({"run": RUN, "x": SOUND}, optional={"seed": st.integers(0, 9)})
BODIES = st.one_of(NEARLY, RIGHT, st.dictionaries(FIELDS, VALUES, max_size=6), VALUES)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sound body of some type with some bytes changed, cut off or repeated."""
    text = draw(BODIES)
    sound = [npy(EXAMPLE), npy(np.zeros(3)), b"age,sex,town,pay\n30,F,Bern,40\n", base64.b64decode(PNG)]
    body = bytearray(draw(st.sampled_from([json.dumps(text, default=str).encode("utf-8", "replace"), *sound])))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, max(0, len(body) - 1)))
        change = draw(st.sampled_from(["flip", "cut", "insert", "double"]))
        if change == "flip" and body:
            body[place] ^= draw(st.integers(1, 255))
        elif change == "cut":
            del body[place:]
        elif change == "insert":
            body[place:place] = draw(st.binary(max_size=6))
        else:
            body += body[:500]
    return bytes(body)


PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR4nGNgGAWDEwAAAYgAAVyw1kkAAAAASUVORK5CYII="  # 8 x 8 pixels
TYPED = st.fixed_dictionaries({"content-type": st.sampled_from(KINDS)})
HEADERS = st.fixed_dictionaries(
    {"content-type": st.sampled_from(KINDS)},
    optional={
        "accept": st.sampled_from(["*/*", "image/png", "text/csv", "application/x-npy", "text/*;q=x", ",,,", "q"]),
        "content-length": st.sampled_from(["-1", "x", "99999999999999999999999", "3"]),
        "host": st.sampled_from(["evil.example", "[", "localhost:1:2", ""]),
        "origin": st.sampled_from(["null", "http://127.0.0.1", "x"]),
        "authorization": st.text(st.characters(codec="latin-1", categories=["L", "N", "P"]), max_size=10),
    },
)
OTHERS = ["/", "/healthz", "/runs", "/metrics", "/film", "/page/../x", "/page/a", "//", "/sample/", "/docs"]
PATHS = st.sampled_from([*[f"/{verb}" for verb in VERBS] * 6, *OTHERS])
QUERIES = st.dictionaries(FIELDS.map(str), st.sampled_from(["", "1", "-1", "x", "people", "true", "1e9"]), max_size=3)


async def asked(app: App, method: str, path: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> int:
    """The status of one request in this process, whose body comes in two parts."""
    parts = [(body[: len(body) // 2], True), (body[len(body) // 2 :], False)]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if parts:
            part, more = parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": more}
        await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    named = {"host": "127.0.0.1", **headers}
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": urlencode(query).encode(), "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in named.items()],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 60)
    check(method, sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]))
    return int(sent[0]["status"])


Case = tuple[str, str, dict[str, str], dict[str, str], bytes]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A request of anything."""
    plain = draw(st.booleans())
    path = draw(PATHS)
    method = "POST" if path[1:] in VERBS else draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]))
    if plain:
        body = json.dumps(draw(BODIES), default=str).encode()
        return method, path, {}, {"content-type": "application/json"}, body
    return method, path, draw(QUERIES), draw(st.one_of(TYPED, TYPED, HEADERS)), draw(damaged())


ROUND = 1000  # cases with one seed of hypothesis, which remembers all cases of a round


def rounds(count: int) -> Iterator[Callable[[Any], Any]]:
    """Decorators of a test of hypothesis, whose cases are `count` in all; the seeds are 0, 1, 2, ..."""
    for seed, start in enumerate(range(0, count, ROUND)):
        settings = hypothesis.settings(
            max_examples=min(ROUND, count - start), deadline=None, database=None, print_blob=True,
            suppress_health_check=list(hypothesis.HealthCheck),
        )  # fmt: skip
        yield lambda test, seed=seed, settings=settings: hypothesis.seed(seed)(settings(test))


def test_no_request_breaks_the_server(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before, seen = state(tmp_path), Counter[int]()
    with asyncio.Runner() as runner:
        for decorated in rounds(CASES):

            @decorated
            @hypothesis.given(cases())
            def one(case: Case) -> None:
                method, path, query, headers, body = case
                seen[runner.run(asked(app, method, path, query, headers, body))] += 1

            one()
    assert state(tmp_path) == before
    assert "Traceback" not in capfd.readouterr().err
    assert sum(seen.values()) >= CASES
    assert {200, 400, 404, 405, 415, 422} <= set(seen)
    print(sum(seen.values()), dict(sorted(seen.items())))


def test_no_request_that_the_openapi_describes_breaks_the_server(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before, seen = state(tmp_path), Counter[int]()
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers={"Host": "127.0.0.1"})
    for operation in schema.get_all_operations():
        for decorated in rounds(max(2, CASES // 60)):

            @decorated
            @hypothesis.given(operation.ok().as_strategy())
            def one(case: Any) -> None:
                response = case.call(headers={"Host": "127.0.0.1"})
                seen[response.status_code] += 1
                check(case.method, response.status_code, response.content)

            one()
    assert state(tmp_path) == before
    print(sum(seen.values()), dict(sorted(seen.items())))


def test_random_bytes_through_a_socket(tmp_path: Path) -> None:
    """Bytes that are no HTTP, or half of it: the server answers or closes, and goes on."""
    draw = random.Random(0)
    with serving(made(LIMITS)) as client:
        head = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        for number in range(CASES // 10):
            kinds = [head, head + b"Content-Length: 5\r\n\r\n{}", head + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"]
            start = draw.choice([b"", *kinds])
            with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
                connection.sendall(start + draw.randbytes(draw.randrange(300)))
                if number % 2:
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(10)
                    assert b" 500 " not in connection.recv(4096)
        assert client.get("/healthz").json()["status"] == "ok"
