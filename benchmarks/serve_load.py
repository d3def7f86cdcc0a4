"""`jensen serve` under load: many clients, beside a FastAPI handler without batches and, if given, LitServe.

    python benchmarks/serve_load.py [--run RUN] [--seconds 60] [--clients 64] [--rounds 2] [--litserve PYTHON]
                                    [--json FILE]

Servers and clients are processes of their own on loopback; the servers take turns (A B A B). Each client has one
connection and sends the next request when it has the answer: one sample of a seed of its own, or the score of one
example. Without --run, a variational autoencoder of digits is trained first, in seconds. --litserve is the Python of an
environment with litserve and jensen: `python -m venv lit && lit/bin/pip install -c constraints.txt . litserve==0.2.19`,
then `--litserve lit/bin/python`.

Then `jensen serve` alone: a queue of 16 under the same clients, and clients that are killed (SIGKILL) in mid-request.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
EXAMPLE = [[[[(3 * row + column) % 17 for column in range(8)] for row in range(8)]]]


# ---------------------------------------------------------------------------------------------- clients


async def client(port: int, number: int, end: float, example: Any) -> list[tuple[float, int]]:
    """Ask until `end`; the seconds and the status of each answer (0: a broken connection)."""
    draw, found = random.Random(number), []
    reader, writer = await asyncio.open_connection(HOST, port)
    while time.monotonic() < end:
        seed = draw.randrange(1 << 31)
        path, ask = ("/sample", {"n": 1, "seed": seed}) if draw.random() < 0.5 else ("/score", {"x": example})
        began = time.monotonic()
        status, wait = await answered(reader, writer, port, path, json.dumps(ask).encode())
        found.append((time.monotonic() - began, status))
        if status == 0:
            reader, writer = await asyncio.open_connection(HOST, port)
        await asyncio.sleep(wait if status == 429 else 0)
    writer.close()
    return found


async def answered(reader: Any, writer: Any, port: int, path: str, body: bytes) -> tuple[int, float]:
    """The status of an answer, and the seconds of its Retry-After."""
    head = f"POST {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: application/json\r\n"
    try:
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = re.search(r"content-length: (\d+)", head)
        await reader.readexactly(int(length[1]) if length else 0)
    except (OSError, asyncio.IncompleteReadError):
        return 0, 0.0
    later = re.search(r"retry-after: (\d+)", head)
    return int(head.split()[1]), float(later[1]) if later else 0.0


async def clients(port: int, count: int, seconds: float, example: Any) -> dict[str, Any]:
    """The answers of `count` clients: statuses, seconds, throughput."""
    end = time.monotonic() + seconds
    parts = await asyncio.gather(*(client(port, number, end, example) for number in range(count)))
    answers = [one for part in parts for one in part]
    good = sorted(seconds for seconds, status in answers if status == 200)
    statuses: dict[str, int] = {}
    for _, status in answers:
        statuses[str(status)] = statuses.get(str(status), 0) + 1
    share = [good[min(len(good) - 1, int(p * len(good)))] if good else float("nan") for p in (0.5, 0.99)]
    return {"p50": share[0], "p99": share[1], "per_second": len(good) / seconds, "statuses": statuses}


# ---------------------------------------------------------------------------------------------- other servers


def serve_plain(run_folder: str, port: int) -> None:
    """A FastAPI handler as one writes it first: each request calls the model alone, in a thread of the pool."""
    import numpy as np
    import uvicorn
    from fastapi import FastAPI
    from pydantic import BaseModel

    import jensen
    from jensen.progress import quiet
    from jensen.run import opened

    run, app = opened(run_folder), FastAPI()

    class Ask(BaseModel):
        n: int = 1
        seed: int = 0
        x: Any = None

    @app.post("/sample")
    def sample(ask: Ask) -> Any:
        with quiet():
            return {"x": jensen.sample(run, ask.n, seed=ask.seed).x.tolist()}

    @app.post("/score")
    def score(ask: Ask) -> Any:
        with quiet():
            found = jensen.score(run, np.array(ask.x, dtype=run.spec.dtype), seed=ask.seed)
        return {"scores": found.bound.tolist()}

    uvicorn.run(app, host=HOST, port=port, access_log=False, log_level="warning")


if "litserve" in sys.argv:  # at the top of the module, as its workers are started by pickle
    import litserve
    from fastapi import Request

    class Both(litserve.LitAPI):
        """Batches of up to 64: scores are computed together, samples a seed at a time."""

        def setup(self, device: Any) -> None:
            from jensen.run import opened

            self.run = opened(sys.argv[sys.argv.index("--run") + 1])

        def decode_request(self, request: Request) -> Any:  # FastAPI reads other types from the URL
            return request

        def predict(self, asks: list[Any]) -> list[Any]:
            import torch

            import jensen
            from jensen.data.examples import Examples
            from jensen.evaluation.scores import score
            from jensen.progress import quiet

            run, found = self.run, [None] * len(asks)
            scored = [place for place, ask in enumerate(asks) if "x" in ask]
            if scored:
                x = torch.tensor([asks[place]["x"][0] for place in scored], dtype=torch.uint8)
                bounds = score(run.model, Examples(x), run.spec.preparation, draws=run.model.usual_draws, seed=0).bound
                for place, bound in zip(scored, bounds.tolist(), strict=True):
                    found[place] = {"scores": [bound]}
            for place, ask in enumerate(asks):
                if "x" not in ask:
                    with quiet():
                        found[place] = {"x": jensen.sample(run, ask["n"], seed=ask["seed"]).x.tolist()}
            return found

        def encode_response(self, output: Any) -> Any:
            return output


def serve_litserve(run_folder: str, port: int) -> None:
    """LitServe with one worker for each address: a process each, so it uses two cores where `jensen serve` uses one."""
    apis = [Both(max_batch_size=64, batch_timeout=0.002, api_path=path) for path in ("/sample", "/score")]
    server = litserve.LitServer(apis, accelerator="cpu", timeout=60)
    server.run(host=HOST, port=port, log_level="warning", num_api_servers=1, generate_client_file=False)


# ---------------------------------------------------------------------------------------------- the servers' processes


class Process:
    """A server in a process of its own."""

    def __init__(self, words: list[str]) -> None:
        self.port = free_port()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [word.replace("PORT", str(self.port)) for word in words], env=environment, start_new_session=True
        )
        try:
            until_answers(self.port, self.process)
        except BaseException:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise

    def used(self) -> tuple[float, float]:
        """MB in memory (a page that processes share counts once) and seconds of CPU of the process and its children."""
        kb, ticks = 0, 0
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    if os.getpgid(int(folder.name)) == self.process.pid:
                        share = re.search(r"^Pss: +(\d+)", (folder / "smaps_rollup").read_text(), re.M)
                        kb += int(share[1]) if share else 0
                        ticks += sum(map(int, (folder / "stat").read_text().rpartition(")")[2].split()[11:13]))
                except OSError:
                    continue
        return kb * 1024 / 1e6, ticks / os.sysconf("SC_CLK_TCK")

    def metric(self, name: str) -> float:
        """A number of /metrics; NaN for a server without."""
        try:
            text = urllib.request.urlopen(f"http://{HOST}:{self.port}/metrics", timeout=10).read().decode()
        except OSError:
            return float("nan")
        found = re.search(rf"^{name} (\S+)$", text, re.M)
        return float(found[1]) if found else float("nan")

    def stop(self) -> int:
        """End the server by SIGTERM; its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(30)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind((HOST, 0))
        return int(one.getsockname()[1])


def until_answers(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait for an answer. Raises `SystemExit` with what the server says instead, or if it says nothing."""
    end = time.monotonic() + 180
    body = json.dumps({"n": 1, "seed": 0}).encode()
    while time.monotonic() < end and process.poll() is None:
        request = urllib.request.Request(
            f"http://{HOST}:{port}/sample", body, {"Content-Type": "application/json"}, method="POST"
        )
        try:
            urllib.request.urlopen(request, timeout=60).read()
            return
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                raise SystemExit(f"a server answers {error.code}: {error.read().decode()[:500]}") from error
            time.sleep(0.2)
        except OSError:
            time.sleep(0.2)
    raise SystemExit("a server did not start")


def loaded(words: list[str], options: argparse.Namespace, *, watch: bool = False) -> dict[str, Any]:
    """Start a server, load it, and stop it."""
    server = Process(words)
    command = [sys.executable, __file__, "--load", str(server.port), "--clients", str(options.clients)]
    load = subprocess.Popen([*command, "--seconds", str(options.seconds)], stdout=subprocess.PIPE, text=True)
    began, first, longest, before = time.monotonic(), float("nan"), 0.0, server.used()[1]
    while load.poll() is None:
        time.sleep(0.5)
        if time.monotonic() - began > min(10, options.seconds / 2) and first != first:
            first = server.used()[0]
        if watch:
            longest = max(longest, server.metric("jensen_queue_requests"))
    last, after = server.used()
    assert load.stdout is not None
    found = json.loads(load.stdout.read())
    found["cpu"] = (after - before) / max(1, sum(found["statuses"].values()))
    return {**found, "mb_early": first, "mb_end": last, "longest_queue": longest, "exit": server.stop()}


def killed(words: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Kill clients in mid-request three times; the server must answer, and its queue must become empty."""
    server = Process(words)
    command = [sys.executable, __file__, "--load", str(server.port), "--clients", str(options.clients)]
    for _ in range(3):
        load = subprocess.Popen([*command, "--seconds", "60"], stdout=subprocess.DEVNULL)
        time.sleep(3)
        load.kill()
        load.wait()
    end = time.monotonic() + 10
    while server.metric("jensen_queue_requests") and time.monotonic() < end:
        time.sleep(0.05)
    began = time.monotonic()
    until_answers(server.port, server.process)
    waiting, seconds = server.metric("jensen_queue_requests"), time.monotonic() - began
    return {"kills": 3, "queue_after": waiting, "seconds_to_answer": seconds, "exit": server.stop()}


def trained() -> str:
    """A run on digits, made now."""
    import jensen
    from jensen.recipe.vae.settings import VAERecipe

    out = Path(tempfile.mkdtemp(prefix="jensen-load-")) / "digits"
    training = {"steps": 200, "validate_every": 200, "sample_every": 200}
    model = {"hidden": (256, 128), "latent_dims": 16, "activation": "gelu"}
    return str(jensen.train(VAERecipe.model_validate({"model": model, "training": training}), out).folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--litserve")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--other", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        print(json.dumps(asyncio.run(clients(options.load, options.clients, options.seconds, EXAMPLE))))
        return
    if options.other:
        {"plain": serve_plain, "litserve": serve_litserve}[options.other[0]](options.run, int(options.other[1]))
        return
    run = options.run or trained()
    ours = [sys.executable, "-m", "jensen", "serve", run, "--port", "PORT", "--histogram", "0"]
    other = [__file__, "--run", run, "--other"]
    servers = {"jensen serve": ours, "plain FastAPI": [sys.executable, *other, "plain", "PORT"]}
    if options.litserve:
        servers["LitServe"] = [options.litserve, *other, "litserve", "PORT"]
    rows: list[dict[str, Any]] = []
    names = ("requests/s", "p50, ms", "p99, ms", "CPU, ms", "MB early", "MB end", "queue")
    print(f"{'server':<16}{''.join(f'{name:>11}' for name in names)}  statuses")
    for _ in range(options.rounds):
        for name, words in servers.items():
            rows.append(shown({"server": name, **loaded(words, options, watch=name == "jensen serve")}))
    small = [*ours, "--queue", "16"]
    rows.append(shown({"server": "queue of 16", **loaded(small, options, watch=True)}))
    kills = killed(ours, options)
    print(f"killed clients: {kills}")
    if options.json:
        about = {"clients": options.clients, "seconds": options.seconds, "cores": os.cpu_count()}
        options.json.write_text(json.dumps({**about, "rows": rows, "kills": kills}, indent=1) + "\n")


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row, printed."""
    times = [1000 * row[name] for name in ("p50", "p99", "cpu")]
    numbers = [row["per_second"], *times, row["mb_early"], row["mb_end"], row["longest_queue"]]
    print(f"{row['server']:<16}{''.join(f'{number:>11.1f}' for number in numbers)}  {row['statuses']}", flush=True)
    return row


if __name__ == "__main__":
    main()
