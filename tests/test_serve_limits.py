"""The server under load, at its limits, at its end, and under attack."""

import base64
import io
import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import TOKEN, Gate, folder, made, serving, until

from jensen.cli import main
from jensen.errors import InputError
from jensen.serve.asks import AskInterpolate, AskSample
from jensen.serve.bodies import csv_cells, numbers
from jensen.serve.limits import Limits
from jensen.serve.problems import Problem, problem_of
from jensen.serve.questions import interpolate
from jensen.serve.queue import Queue
from jensen.serve.routes import Held, validated
from jensen.serve.server import Address, Server
from jensen.serve.work import AbstractWork, Row

NUMBERS = [[[[0] * 8] * 8]]


@pytest.fixture(scope="module")
def server() -> Server:
    return made(Limits(queue=3, deadline=20, max_bytes=100_000, max_examples=50, max_numbers=20_000))


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with serving(server) as client:
        yield client


def error(response: httpx.Response, status: int) -> dict[str, str]:
    """The error of an answer with this status, which has three sentences and no path of the machine."""
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert set(found) == {"given", "expected", "do"}
    assert all(found.values()), found
    assert str(folder()) not in response.text
    assert "Traceback" not in response.text
    return found


# ---------------------------------------------------------------------------------------------- the queue


@dataclass(frozen=True)
class Doubled(AbstractWork):
    """Twice the number of each row, three at a time; a mistake for number 13."""

    name = "doubled"
    kind: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        return (3,)

    def compute(self, rows: Sequence[Row]) -> list[Any]:
        if any(row.number == 13 for row in rows):
            raise InputError("number 13: expected another; choose one")
        return [2 * row.number for row in rows]


def rows(*numbers: int) -> list[Row]:
    return [Row(number=number) for number in numbers]


def test_jobs_of_one_work_go_together_and_long_ones_take_turns() -> None:
    calls: list[tuple[str, int]] = []
    queue = Queue(Limits(), lambda name, count, seconds: calls.append((name, count)))
    a, b = Doubled(None, "a"), Doubled(None, "b")
    later = queue.submit_in_background(a, rows(9))
    long = queue.submit(a, rows(*range(7)), math.inf)
    other = queue.submit(b, rows(5), math.inf)
    short = queue.submit(a, rows(8), math.inf)
    order: list[str] = []
    for name, job in (("long", long), ("other", other), ("short", short), ("later", later)):
        job.future.add_done_callback(lambda _, name=name: order.append(name))
    queue.start()
    assert long.future.result(5) == [0, 2, 4, 6, 8, 10, 12]
    assert (other.future.result(5), short.future.result(5), later.future.result(5)) == ([10], [16], [18])
    assert order == ["other", "short", "long", "later"]  # the last row of `long` waits for all that came before it
    assert [count for _, count in calls] == [3, 1, 3, 2, 1]
    queue.close()


def test_a_mistake_in_one_request_is_not_that_of_its_company() -> None:
    queue = Queue(Limits(), lambda *_: None)
    work = Doubled(None)
    jobs = [queue.submit(work, rows(number), math.inf) for number in (1, 13, 3)]
    queue.start()
    assert (jobs[0].future.result(5), jobs[2].future.result(5)) == ([2], [6])
    with pytest.raises(InputError):
        jobs[1].future.result(5)
    queue.close()


def test_a_full_queue_says_when_to_try_again(client: httpx.Client, server: Server) -> None:
    gate = Gate(server.service.runs["labelled"])
    with ThreadPoolExecutor(4) as others:
        waiting = [others.submit(client.post, "/sample", json={"run": "labelled", "seed": 0})]
        assert gate.reached.wait(10)  # one runs
        waiting += [others.submit(client.post, "/sample", json={"run": "labelled", "seed": k}) for k in range(3)]
        until(lambda: len(server.service.queue) == 3)
        refused = client.post("/sample", json={"run": "labelled"})
        gate.open()
        assert [one.result().status_code for one in waiting] == [200] * 4
    assert "try again" in error(refused, 429)["do"]
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_many_large_answers_at_once_are_refused(client: httpx.Client, server: Server) -> None:
    service = server.service
    first, second = Held(service), Held(service)
    first.add(service.limits.numbers_held)
    with pytest.raises(Problem):
        second.add(1)
    error(client.post("/sample", json={"n": 1}), 429)
    first.release()
    assert client.post("/sample", json={"n": 1}).status_code == 200
    until(lambda: not service.numbers)  # the answer is sent


def test_a_deadline_ends_the_wait_and_the_work(server: Server) -> None:
    quick = made(Limits(deadline=0.4))
    gate = Gate(quick.service.runs["labelled"])
    with serving(quick) as client:
        assert "deadline" in error(client.post("/sample", json={"run": "labelled"}), 504)["expected"]
        gate.open()
        until(lambda: quick.service.queue.idle)
        assert client.post("/sample", json={"n": 2}).status_code == 200  # the thread goes on


def test_the_work_for_a_client_that_has_gone_stops_at_the_next_step(client: httpx.Client, server: Server) -> None:
    served = server.service.runs["labelled"]
    calls: list[int] = []
    hook = served.run.model.networks[0].register_forward_hook(lambda *_: calls.append(1))
    gate = Gate(served)
    host, port = client.base_url.host, client.base_url.port
    body = json.dumps({"run": "labelled", "n": 1}).encode()
    lines = ["POST /sample HTTP/1.1", f"Host: {host}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    head = "\r\n".join([*lines, "", ""])
    connections = [socket.create_connection((host, port)) for _ in range(2)]
    connections[0].sendall(head.encode() + body)
    assert gate.reached.wait(10)  # the first runs
    connections[1].sendall(head.encode() + body)
    until(lambda: len(server.service.queue) == 1)
    for connection in connections:
        connection.close()
    until(lambda: all(job.abandoned for job in [*server.service.queue._waiting, *server.service.queue._running]))
    gate.open()
    until(lambda: server.service.queue.idle)
    hook.remove()
    assert sum(calls) <= 1  # of four steps
    assert client.post("/sample", json={"run": "labelled"}).status_code == 200


def test_a_film_stops_when_its_viewer_goes(client: httpx.Client, server: Server) -> None:
    with client.stream("GET", "/film", params={"run": "labelled"}) as response:
        next(response.iter_text())
    until(lambda: server.service.queue.idle)


# ---------------------------------------------------------------------------------------------- the end


def test_sigterm_drains(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "jensen", "serve", str(folder() / "labelled"), "--port", "0", "--histogram", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        line = process.stdout.readline()
        assert line.endswith("serves labelled\n"), process.stderr.read()
        address = line.split()[0]
        with httpx.Client(base_url=address, timeout=30, trust_env=False) as client, ThreadPoolExecutor(1) as other:
            client.get("/healthz")
            long = other.submit(httpx.post, f"{address}/sample", json={"n": 30, "steps": 49}, timeout=60)
            until(lambda: "jensen_queue_requests 0.0" not in client.get("/metrics").text or long.done())
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            until(lambda: client.get("/healthz").json()["status"] == "draining")
            refused = client.post("/sample", json={"n": 1})
            assert long.result().status_code == 200
        assert error(refused, 503)["do"]
        assert process.wait(20) == 0
    finally:
        process.kill()
    lines = process.stderr.read().splitlines()
    assert all("batches that do not change a bit" in line for line in lines), lines  # the progress of the start
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- who may ask


def test_another_address_needs_a_token(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = str(folder() / "pictures")
    assert main(["serve", run, "--host", "0.0.0.0"]) == 2
    line = capsys.readouterr().err
    assert "token" in line
    assert line.count("\n") == 1
    (tmp_path / "token").write_text("short\n")
    assert main(["serve", run, "--host", "0.0.0.0", "--token-file", str(tmp_path / "token")]) == 2
    assert "at least 16" in capsys.readouterr().err
    assert main(["serve", run, str(tmp_path / "absent")]) == 2
    with pytest.raises(InputError, match="token"):
        Server(made().service, Address(host="0.0.0.0"), 0)


def test_a_token_is_asked_of_every_request() -> None:
    with serving(made(token=TOKEN)) as client:
        for wrong in ({}, {"Authorization": "Bearer other"}, {"Authorization": TOKEN.decode()}):
            refused = client.post("/sample", json={}, headers=wrong)
            assert "Bearer" in error(refused, 401)["expected"]
            assert refused.headers["www-authenticate"] == "Bearer"
            assert client.get("/runs", headers=wrong).status_code == 401
        assert client.get("/healthz").json() == {"status": "ok", "runs": []}
        right = {"Authorization": f"Bearer {TOKEN.decode()}"}
        assert client.post("/sample", json={}, headers=right).status_code == 200
        assert len(client.get("/healthz", headers=right).json()["runs"]) == 3


def test_a_page_of_another_site_gets_nothing(client: httpx.Client) -> None:
    error(client.get("/runs", headers={"Host": "evil.example"}), 400)
    error(client.post("/sample", json={}, headers={"Origin": "http://evil.example"}), 403)
    answer = client.get("/healthz")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers
    port = client.base_url.port
    for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200


# ---------------------------------------------------------------------------------------------- hostile bodies


def npy(header: str, content: bytes = b"") -> bytes:
    """A .npy file with this header."""
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content


def png(width: int, height: int, content: bytes = b"") -> bytes:
    """A PNG of this size, whatever its pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", content), (b"IEND", b"")]
    parts = [struct.pack(">I", len(x)) + k + x + struct.pack(">I", zlib.crc32(k + x)) for k, x in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def packed(content: bytes) -> str:
    return base64.b64encode(content).decode()


def pickled() -> bytes:
    """A .npy file of Python objects that would make a folder."""
    file = io.BytesIO()

    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, ("unpickled",)

    np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    return file.getvalue()


JSON_BODIES: list[tuple[str, Any, int]] = [
    ("/score", {}, 422),
    ("/score", {"x": "text"}, 422),
    ("/score", {"x": [[1, 2], [3]]}, 422),
    ("/score", {"x": [[[["a"] * 8] * 8]]}, 422),
    ("/score", {"x": [[[[{}] * 8] * 8]]}, 422),
    ("/score", {"x": [[[[17] * 8] * 8]]}, 422),
    ("/score", {"x": [[[[0.5] * 8] * 8]]}, 422),
    ("/score", {"x": [[[[-1] * 8] * 8]]}, 422),
    ("/score", {"x": [[[[None] * 8] * 8]]}, 422),
    ("/score", {"x": [[[[10**400] * 8] * 8]]}, 422),
    ("/score", {"x": NUMBERS * 51}, 413),
    ("/score", {"x": [[0] * 4] * 60}, 422),
    ("/score", {"x": NUMBERS, "seed": -1}, 422),
    ("/score", {"x": NUMBERS, "seed": 2**64}, 422),
    ("/score", {"x": NUMBERS, "other": 1}, 422),
    ("/score", {"x": NUMBERS, "run": "../pictures"}, 404),
    ("/score", {"x": {"npy": "?"}}, 422),
    ("/score", {"x": {"npy": packed(pickled())}}, 422),
    ("/score", {"x": {"npy": packed(b"\x93NUMPY\x01\x00")}}, 400),
    ("/score", {"x": {"npy": packed(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1, 1, 8, 8)}"))}}, 400),
    ("/score", {"x": {"npy": packed(npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999,)}"))}}, 413),
    ("/score", {"x": {"npy": packed(npy("{'descr': '|S8', 'fortran_order': False, 'shape': (1,)}", b"8" * 8))}}, 422),
    ("/score", {"x": {"npy": packed(npy("__import__('os').mkdir('run')"))}}, 400),
    ("/score", {"x": {"png": packed(png(60_000, 60_000))}}, 413),
    ("/score", {"x": {"png": packed(png(8, 8, b"no pixels"))}}, 422),
    ("/score", {"x": {"png": packed(png(9, 9, zlib.compress(bytes(90))))}}, 422),
    ("/score", {"x": {"png": packed(b"GIF89a" + bytes(40))}}, 400),
    ("/score", {"x": {"file": "/etc/passwd"}}, 422),
    ("/score", {"x": "/etc/passwd"}, 422),
    ("/score", {"run": "people", "x": [{"age": "a lot", "sex": "F", "town": "Bern", "pay": 1}]}, 422),
    ("/score", {"run": "people", "x": [{"age": 3, "sex": "X", "town": "Bern", "pay": 1}]}, 422),
    ("/score", {"run": "people", "x": [{"age": None, "sex": "F", "town": "Bern", "pay": 1}]}, 422),
    ("/score", {"run": "people", "x": [{"age": [1], "sex": "F", "town": "Bern", "pay": 1}]}, 422),
    ("/score", {"run": "people", "x": [{"age": 1}]}, 422),
    ("/score", {"run": "people", "x": [{}]}, 422),
    ("/score", {"run": "people", "x": {"age": [1], "sex": []}}, 422),
    ("/score", {"run": "people", "x": []}, 422),
    ("/sample", {"n": 0}, 422),
    ("/sample", {"n": 51}, 413),
    ("/sample", {"n": 1e99}, 422),
    ("/sample", {"label": "7"}, 422),
    ("/sample", {"run": "labelled", "label": "eleven"}, 422),
    ("/sample", {"steps": 3}, 422),
    ("/sample", {"given": {"age": 1}}, 422),
    ("/sample", {"run": "people", "given": {"height": 1}}, 422),
    ("/sample", {"run": "people", "given": {"age": "1" * 5000}}, 422),
    ("/decode", {"z": [[1, 2]]}, 422),
    ("/decode", {"z": [[1e300] * 4]}, 422),
    ("/decode", {"run": "labelled", "z": [[1]]}, 422),
    ("/reconstruct", {"run": "people", "x": [{}]}, 422),
    ("/impute", {"x": NUMBERS, "mask": [[2]]}, 422),
    ("/impute", {"x": NUMBERS, "mask": np.full((1, 8, 8), 2).tolist()}, 422),
    ("/impute", {"x": NUMBERS, "draws": 1000, "mask": np.zeros((1, 8, 8), int).tolist()}, 413),
    ("/impute", {"run": "labelled", "x": NUMBERS, "particles": 999, "mask": np.zeros((1, 8, 8), int).tolist()}, 413),
    ("/impute", {"x": NUMBERS, "particles": 3, "mask": np.zeros((1, 8, 8), int).tolist()}, 422),
    ("/predict", {"x": NUMBERS}, 422),
    ("/predict", {"run": "people", "x": [{"age": 1}], "target": "height"}, 422),
    ("/predict", {"run": "people", "x": [{"age": 1}]}, 422),
    ("/interpolate", {"a": NUMBERS, "b": NUMBERS, "n": 1}, 422),
    ("/interpolate", {"a": NUMBERS * 2, "b": NUMBERS}, 422),
]


@pytest.mark.parametrize(("path", "fields", "status"), JSON_BODIES, ids=range(len(JSON_BODIES)))
def test_a_wrong_request_gets_three_sentences(client: httpx.Client, path: str, fields: Any, status: int) -> None:
    error(client.post(path, content=json.dumps(fields), headers={"Content-Type": "application/json"}), status)


RAW_BODIES: list[tuple[str, bytes, int]] = [
    ("application/json", b"", 400),
    ("application/json", b"{", 400),
    ("application/json", b"\xff\xfe", 400),
    ("application/json", b"[1]", 400),
    ("application/json", b'{"x": NaN}', 400),
    ("application/json", b'{"x": ' + b"[" * 4000 + b"]" * 4000 + b"}", 400),
    ("application/json", b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}", 400),
    ("application/json", b'{"x": [' + b"0," * 45_000 + b"0]}", 413),
    ("application/json", b'{"run": "\\ud800"}', 400),
    ("application/json", b'{"x": ' + b"9" * 9000 + b"}", 400),
    ("application/json", b" " * 100_001, 413),
    ("text/csv", b"age,sex\n1", 422),
    ("text/csv", b"\xff\xfe", 415),
    ("application/json", b'{"x": [' + b"[]," * 5_000 + b"0]}", 413),
    ("application/x-npy", b"\x93NUMPY", 400),
    *[
        ("application/x-npy", npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}", content), 400)
        for shape, content in (
            ((-2, -32), bytes(256)),
            ((True, 1, 8, 8), bytes(256)),
            ((1,) * 99 + (64,), bytes(256)),
            ((0, 10**30), b""),
        )
    ],
    ("image/png", b"", 400),
    ("text/plain", b"{}", 415),
    ("application/x-www-form-urlencoded", b"x=1", 415),
    ("application/x-python-pickle", pickled(), 415),
]


@pytest.mark.parametrize(("kind", "body", "status"), RAW_BODIES, ids=range(len(RAW_BODIES)))
def test_a_wrong_body_gets_three_sentences(client: httpx.Client, kind: str, body: bytes, status: int) -> None:
    error(client.post("/score", content=body, headers={"Content-Type": kind}), status if kind != "text/csv" else 415)


def test_the_second_header_of_a_png_counts(client: httpx.Client) -> None:
    content = png(8, 8)[:33] + png(100, 100)[8:]
    found = error(client.post("/score", content=content, headers={"Content-Type": "image/png"}), 422)
    assert "100x100" in found["given"]


def megabytes(act: Callable[[], object]) -> float:
    """The memory of the largest moment of `act`, which must raise a `Problem` or end."""
    tracemalloc.start()
    try:
        act()
    except Problem:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak / 1e6


def test_a_mistake_that_is_made_often_costs_no_memory(server: Server) -> None:
    table = server.service.runs["people"].table
    assert table is not None
    unknown, cells = {f"{k}": 0 for k in range(20_000)}, {f"{k}": [] for k in range(20_000)}
    assert megabytes(lambda: validated(AskSample, unknown)) < 1
    assert megabytes(lambda: validated(AskSample, {"given": cells})) < 3
    assert megabytes(lambda: csv_cells(b"age\n" + b"12\n" * 50_000, table, Limits(max_examples=50))) < 2


def test_examples_of_too_many_numbers_together_are_refused(server: Server) -> None:
    served, limits = server.service.runs["pictures"], Limits(max_numbers=1024)
    one = {"png": base64.b64encode(png(8, 8, zlib.compress(bytes(72)))).decode()}
    assert len(numbers([one] * 16, served, limits)) == 16
    with pytest.raises(Problem, match="1,088 numbers"):
        numbers([one] * 17, served, limits)
    with pytest.raises(Problem, match="1,088 numbers"):
        next(interpolate(served, AskInterpolate(a=NUMBERS, b=NUMBERS, n=17), limits))


def test_csv_of_other_rows_is_refused(client: httpx.Client) -> None:
    for body, status in (
        (b"age,sex,town,pay\n1,F", 400),
        (b"age,age\n1,2\n", 422),
        (b"age,sex,town,pay\n" + b"1,F,Bern,2\n" * 51, 413),
        (b"age\n", 422),
        (b"\xff\xfe", 400),
        (b'a,"b\0\n1,2\n', 400),
        (b"age,sex,town,pay\n" + b"1" * 200 + b",F,Bern,2\n", 200),
    ):
        found = client.post("/score?run=people", content=body, headers={"Content-Type": "text/csv"})
        assert status == 200 or error(found, status)


def test_a_body_without_a_length_is_counted_as_it_comes(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(50):
            yield b" " * 10_000

    error(client.post("/score", content=endless(), headers={"Content-Type": "application/json"}), 413)


HEAD = "POST /sample HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def test_clients_that_send_nothing_keep_nobody_out(client: httpx.Client) -> None:
    address = client.base_url.host, client.base_url.port
    connections = [socket.create_connection(address) for _ in range(20)]
    for place, connection in enumerate(connections):
        length = "Transfer-Encoding: chunked" if place % 2 else "Content-Length: 99999"
        connection.sendall(f"{HEAD}{length}\r\n\r\n".encode())
    time.sleep(0.1)
    assert client.post("/sample", content=iter([b"{}"]), headers={"Content-Type": "application/json"}).is_success
    for connection in connections:
        connection.close()


def test_an_answer_that_is_not_read_is_held_for_the_deadline_only() -> None:
    quick = made(Limits(deadline=1))
    with serving(quick) as client:
        quick.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # the system keeps little
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((client.base_url.host, client.base_url.port))
        body = b'{"n": 1024, "mean": true}'
        connection.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        connection.recv(10)  # the answer has begun
        time.sleep(0.3)
        assert quick.service.numbers
        until(lambda: not quick.service.numbers, 5)
        connection.close()


def test_wrong_addresses_methods_and_forms(client: httpx.Client) -> None:
    error(client.get("/../../etc/passwd"), 404)
    error(client.get("/docs"), 404)
    refused = client.put("/sample", json={})
    error(refused, 405)
    assert "POST" in refused.headers["allow"]
    error(client.options("/sample"), 405)
    error(client.post("/sample", json={}, headers={"Accept": "text/html"}), 406)
    error(client.post("/sample", json={}, headers={"Accept": "text/csv"}), 406)
    for params in ({"frames": "many"}, {"seed": "-1"}, {"other": "1"}, {}):
        error(client.get("/film", params=params), 422)


def test_an_unexpected_error_shows_no_traceback(client: httpx.Client, server: Server) -> None:
    served = server.service.runs["pictures"]
    hook = served.run.model.networks[0].register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        found = error(client.post("/decode", json={"z": [[0, 0, 0, 0]]}), 500)
    finally:
        hook.remove()
    assert "division" not in str(found)


def test_advice_for_the_command_line_becomes_advice_for_a_client() -> None:
    found = problem_of(
        InputError("/home/me/run: has no label, expected one; leave --label-name out"), [("/home/me", "r")]
    )
    assert (found.given, found.expected, found.do) == ("r/run: has no label", "one", "leave label_name out")
    assert len(Problem(400, "x" * 9999, "", "").body()["error"]["given"]) < 500


def test_a_long_and_slow_body_meets_the_deadline() -> None:
    quick = made(Limits(deadline=0.3))
    with serving(quick) as client:
        connection = socket.create_connection((client.base_url.host, client.base_url.port))
        head = (
            "POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        )
        connection.sendall(head.encode())
        connection.settimeout(10)
        assert re.match(rb"HTTP/1.1 504 .*", connection.recv(100))
        connection.close()
