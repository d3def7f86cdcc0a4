"""The server answers what the functions behind the verbs return, and the same bits in any company."""

import base64
import csv
import io
import json
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from serving import made, runs, serving, until

import jensen
from jensen.errors import InputError
from jensen.inference.predict_column import predict_classes, target_column
from jensen.randomness import Crowd, Stream, derived_seed, generator, normal_per_example, uniform_per_example
from jensen.recipe.family import SamplingWish
from jensen.serve.served import _bits
from jensen.serve.server import Server

pytestmark = pytest.mark.filterwarnings("default:columns are not scored")
ROWS = [{"age": 40, "sex": "F", "town": "Bern", "pay": 50.5}, {"age": 22, "sex": "M", "town": None, "pay": 27.5}]


@pytest.fixture(scope="module")
def server() -> Server:
    return made(histogram=30)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with serving(server) as client:
        yield client


@pytest.fixture(scope="module")
def pictures() -> jensen.Run:
    return runs()[0]


@pytest.fixture(scope="module")
def people() -> jensen.Run:
    return runs()[1]


@pytest.fixture(scope="module")
def labelled() -> jensen.Run:
    return runs()[2]


def told(client: httpx.Client, where: str, **fields: object) -> dict:
    """The JSON answer of a request."""
    response = client.post(where, json=fields)
    assert response.status_code == 200, response.text
    return response.json()


# ---------------------------------------------------------------------------------------------- values


def test_the_runs_describe_themselves(client: httpx.Client) -> None:
    until(lambda: all(one["histogram"] for one in client.get("/runs").json()))
    first, table, labelled = client.get("/runs").json()
    assert (first["name"], first["data"], first["shape"], first["levels"]) == ("pictures", "picture", [1, 8, 8], 17)
    assert sum(first["histogram"]["counts"]) == first["histogram"]["examples"] == 30
    assert {"sample", "score", "encode", "decode", "interpolate", "impute"} <= set(first["verbs"])
    assert [one["name"] for one in table["columns"]] == ["age", "sex", "town", "pay"]
    assert table["columns"][1]["categories"] == ["F", "M"]
    assert labelled["labels"] == [str(k) for k in range(10)]
    assert "film" in labelled["verbs"]
    assert "reconstruct" not in table["verbs"]


@pytest.mark.parametrize("mean", [False, True])
def test_samples_are_those_of_the_function(client: httpx.Client, pictures: jensen.Run, mean: bool) -> None:
    found = told(client, "/sample", n=5, seed=3, first=2, mean=mean)
    expected = jensen.sample(pictures, 5, seed=3, first=2, mean=mean).x
    assert np.abs(np.array(found["x"]) - expected).max() <= mean  # a mean may round to another level


def test_samples_of_a_label_and_with_other_steps(client: httpx.Client, labelled: jensen.Run) -> None:
    found = told(client, "/sample", run="labelled", n=3, seed=1, label="7", steps=3, png=True)
    expected = jensen.sample(labelled, 3, seed=1, labels="7", wish=SamplingWish(steps=3))
    assert np.abs(np.array(found["x"]) - expected.x).max() <= 1
    assert found["labels"] == ["7"] * 3
    picture = Image.open(io.BytesIO(base64.b64decode(found["png"][0])))
    assert picture.size == (8, 8)
    assert told(client, "/sample", run="labelled", n=12)["labels"][8:] == ["8", "9", "0", "1"]


def test_samples_of_a_table_and_given_cells(client: httpx.Client, people: jensen.Run) -> None:
    found = told(client, "/sample", run="people", n=4, seed=2)
    assert found["x"] == jensen.sample(people, 4, seed=2).frame().to_pylist()
    given = told(client, "/sample", run="people", n=3, seed=2, given={"age": 40, "sex": "F"})
    assert given["x"] == jensen.sample(people, 3, seed=2, given={"age": 40, "sex": "F"}).frame().to_pylist()


def test_scores_are_those_of_the_function(client: httpx.Client, pictures: jensen.Run, labelled: jensen.Run) -> None:
    x = pictures.examples().x[:5]
    for run, name in ((pictures, "pictures"), (labelled, "labelled")):
        expected = jensen.score(run, x.numpy(), seed=4)
        found = told(client, "/score", run=name, x=x.tolist(), seed=4)
        assert found["of"] == "ELBO"
        assert [one["bound"] for one in found["scores"]] == pytest.approx(expected.bound.tolist(), rel=1e-5)
        assert [one["error"] for one in found["scores"]] == pytest.approx(expected.standard_error.tolist(), rel=1e-3)


def test_a_percentile_is_the_share_of_test_examples_that_score_lower(client: httpx.Client, server: Server) -> None:
    until(lambda: all(one["histogram"] for one in client.get("/runs").json()))
    black = told(client, "/score", x=np.full((8, 8), 16).reshape(1, 1, 8, 8).tolist())["scores"][0]
    scores = server.service.runs["pictures"].scores
    assert black["percentile"] == (scores < black["bound"]).mean()


def test_scores_of_rows_as_json_and_as_csv(client: httpx.Client, people: jensen.Run) -> None:
    found = told(client, "/score", run="people", x=ROWS, seed=1)["scores"]
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    assert told(client, "/score", run="people", x=columns, seed=1)["scores"] == found
    text = "age,sex,town,pay\n40,F,Bern,50.50\n22,M,,27.50\n"
    headers = {"Content-Type": "text/csv", "Accept": "text/csv"}
    answer = client.post("/score", params={"run": "people", "seed": 1}, content=text, headers=headers)
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [float(row["bound_nats"]) for row in rows] == [one["bound"] for one in found]


def test_codes_and_what_they_decode_to(client: httpx.Client, pictures: jensen.Run) -> None:
    x = pictures.examples().x[:3]
    prepared = pictures.spec.preparation(x)
    found = told(client, "/encode", x=x.tolist())
    q = pictures.model.infer(prepared)
    assert np.array(found["z"]) == pytest.approx(q.mean.detach().numpy(), abs=1e-5)
    assert np.array(found["sigma"]) == pytest.approx(q.scale.detach().numpy(), rel=1e-4)
    again = told(client, "/reconstruct", x=x.tolist(), png=True)
    decoded = told(client, "/decode", z=found["z"])
    assert again["x"] == decoded["x"]
    expected = pictures.spec.preparation.to_raw(pictures.model.reconstruct(prepared))
    assert np.abs(np.array(again["x"]) - expected).max() <= 1


def test_a_path_from_one_example_to_another_begins_and_ends_with_their_reconstructions(
    client: httpx.Client, pictures: jensen.Run
) -> None:
    a, b = pictures.examples().x[:2].tolist()
    ends = told(client, "/reconstruct", x=[a, b])["x"]
    for path in ("spherical", "straight"):
        found = told(client, "/interpolate", a=a, b=b, n=5, path=path)
        expected = jensen.interpolate(pictures, np.array(a, np.uint8), np.array(b, np.uint8), 5, path=path).x
        assert np.abs(np.array(found["x"]) - expected).max() <= 1
        assert np.abs(np.array(found["x"])[[0, -1]] - np.array(ends)).max() <= 1
        assert len(found["x"]) == len(found["png"]) == 5


def test_codes_of_the_other_families(client: httpx.Client, labelled: jensen.Run, people: jensen.Run) -> None:
    x = labelled.examples().x[:2]
    codes = told(client, "/encode", run="labelled", x=x.tolist())
    assert "sigma" not in codes
    assert np.array(codes["z"]) == pytest.approx(labelled.model.encode(labelled.spec.preparation(x)).numpy(), abs=1e-2)
    assert np.abs(np.array(told(client, "/decode", run="labelled", z=codes["z"])["x"]) - x.numpy()).max() <= 1
    z = told(client, "/encode", run="people", x=ROWS)["z"]
    expected = jensen.decode(people, np.array(z, np.float32)).frame()
    assert told(client, "/decode", run="people", z=z)["x"] == expected.to_pylist()
    path = told(client, "/interpolate", run="people", a=ROWS[0], b=ROWS[1], n=3)["x"]
    assert path[0] == expected.to_pylist()[0]
    assert len(path) == 3


def test_imputed_pictures_keep_what_is_known(client: httpx.Client, pictures: jensen.Run) -> None:
    x = pictures.examples().x[:2].numpy()
    mask = np.ones((8, 8), bool)
    mask[:, 4:] = False
    ask = {"seed": 5, "draws": 4, "method": "importance", "samples": 20}
    found = told(client, "/impute", x=x.tolist(), mask=mask[None].tolist(), **ask, png=True)
    wish = jensen.ImputationWish(method="importance", samples=20)
    draws = jensen.impute(pictures, x, mask[None], draws=4, seed=5, wish=wish).draws
    assert np.array(found["x"]) == pytest.approx(draws.mean(0), abs=1e-6)
    assert np.array(found["low"]) == pytest.approx(np.quantile(draws, 0.025, axis=0), abs=1e-6)
    assert (np.array(found["x"])[..., :4] == x[..., :4]).all()
    holes = x.astype(object)
    holes[..., 4:] = None
    assert told(client, "/impute", x=holes.tolist(), **ask)["x"] == found["x"]


def test_imputed_rows_are_those_of_the_function(client: httpx.Client, people: jensen.Run) -> None:
    rows = [{**ROWS[0], "pay": None}, {"age": 30, "sex": "M", "town": "Thun", "pay": 40}, {"sex": "F"}]
    found = told(client, "/impute", run="people", x=rows, draws=20, seed=1)
    frame = pandas.DataFrame(rows)
    (expected,) = jensen.impute(people, frame, draws=20, seed=1).frames()
    assert found["x"] == expected.select(found["names"]).to_pylist()
    assert found["x"][1] == rows[1]
    assert found["low"][0]["pay"] <= found["x"][0]["pay"] <= found["high"][0]["pay"]


def test_predictions_are_those_of_the_functions(client: httpx.Client, people: jensen.Run, labelled: jensen.Run) -> None:
    x = labelled.examples().x[:2]
    found = told(client, "/predict", run="labelled", x=x.tolist(), seed=2)["predictions"]
    expected = jensen.predict(labelled, x.numpy(), seed=2).predictions.prediction.probabilities
    assert [list(one["probabilities"].values()) for one in found] == [
        pytest.approx(row, abs=1e-4) for row in expected.tolist()
    ]
    found = told(client, "/predict", run="people", x=ROWS, target="sex", seed=2)["predictions"]
    examples = people.examples(pandas.DataFrame(ROWS))
    field = target_column(people.spec.table, "sex")
    expected = predict_classes(people.model, examples, people.spec, field, seed=2).prediction.probabilities
    assert [one["probabilities"]["F"] for one in found] == pytest.approx(expected[:, 0].tolist(), rel=1e-4)
    numbers = told(client, "/predict", run="people", x=ROWS, target="pay")["predictions"]
    assert numbers[0]["low"] < numbers[0]["mean"] < numbers[0]["high"]


def test_a_film_ends_with_the_sample(client: httpx.Client) -> None:
    events = client.get("/film", params={"run": "labelled", "seed": 3, "label": "4", "frames": 3}).text.split("\n\n")
    assert events[-2].startswith("event: done")
    frames = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert [frame["step"] for frame in frames] == [0, 2, 4]
    sample = told(client, "/sample", run="labelled", seed=3, label=4, png=True)
    assert frames[-1]["png"] == sample["png"][0]


# ---------------------------------------------------------------------------------------------- forms


def test_arrays_and_pictures_go_in_and_out(client: httpx.Client, pictures: jensen.Run) -> None:
    x = pictures.examples().x[:2].numpy()
    expected = told(client, "/reconstruct", x=x.tolist())["x"]
    file = io.BytesIO()
    np.save(file, x)
    text = base64.b64encode(file.getvalue()).decode()
    assert told(client, "/reconstruct", x={"npy": text})["x"] == expected
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    raw = client.post("/reconstruct", content=file.getvalue(), headers=headers)
    assert np.load(io.BytesIO(raw.content), allow_pickle=False).tolist() == expected
    shade = np.rint(x[0, 0] * (255 / 16)).astype(np.uint8)
    shot = io.BytesIO()
    Image.fromarray(shade).save(shot, format="PNG")
    headers = {"Content-Type": "image/png", "Accept": "image/png"}
    answer = client.post("/reconstruct?grid=false", content=shot.getvalue(), headers=headers)
    seen = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert np.rint(seen * (16 / 255)).tolist() == expected[0][0]
    grid = client.post("/sample", json={"n": 4}, headers={"Accept": "image/png"})
    assert Image.open(io.BytesIO(grid.content)).size[0] > 80
    both = [{"png": base64.b64encode(shot.getvalue()).decode()}] * 2
    assert told(client, "/reconstruct", x=both)["x"] == [expected[0]] * 2


def test_the_openapi_describes_every_route(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    verbs = {"/sample", "/score", "/reconstruct", "/encode", "/decode", "/impute", "/predict", "/interpolate"}
    assert set(paths) == verbs | {"/healthz", "/runs", "/examples", "/metrics", "/film"}
    assert "seed" in paths["/sample"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_of_the_page_work(client: httpx.Client, tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "serving.md").read_text()
    commands = re.findall(r"^curl .*$", page, re.M)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "picture.png")
    (tmp_path / "rows.csv").write_text("age,sex,town,pay\n40,F,Bern,50.50\n")
    address = f"{client.base_url.host}:{client.base_url.port}"
    assert len(commands) > 8
    for command in commands:
        words = shlex.split(command.replace("localhost:8080", address))
        words[1:1] = ["--silent", "--fail-with-body", "--noproxy", "*"]
        found = subprocess.run(words, capture_output=True, cwd=tmp_path)
        assert found.returncode == 0, (command, found.stdout)
    assert Image.open(tmp_path / "grid.png").size[0] > 300


def test_metrics_count_requests_and_batches(client: httpx.Client) -> None:
    told(client, "/sample", n=3)
    text = client.get("/metrics").text
    assert 'jensen_requests_total{route="/sample",status="200"}' in text
    assert 'jensen_batch_examples_count{work="sample"}' in text
    assert "jensen_queue_requests 0.0" in text


# ---------------------------------------------------------------------------------------------- bits


def test_a_crowd_draws_what_each_member_draws_alone() -> None:
    members = [(3, 8), (5, 2), (3, 0)]
    for draw in (normal_per_example, uniform_per_example):
        alone = torch.cat([draw(derived_seed(seed, 9), [number], (4,), 1) for seed, number in members])
        assert torch.equal(draw(derived_seed(Crowd.of(members), 9), range(3), (4,), 1), alone)
    of_crowd = generator(Crowd.of(members), Stream.BINARISATION, 1)
    assert of_crowd.initial_seed() == generator(5, Stream.BINARISATION, 2).initial_seed()


def test_a_crowd_is_refused_where_a_whole_batch_shares_its_noise() -> None:
    with pytest.raises(InputError, match="seed"):
        derived_seed(int(Crowd.of([(1, 2)])))


REQUESTS = [
    *[("/sample", {"n": 1 + seed % 3, "seed": seed}) for seed in range(8)],
    *[("/sample", {"run": "labelled", "n": 1 + seed % 2, "seed": seed}) for seed in range(6)],
    *[("/sample", {"run": "people", "n": 2, "seed": seed}) for seed in range(6)],
    *[("/decode", {"z": [[seed / 7, 1, -1, 0.3]]}) for seed in range(8)],
    *[("/score", {"run": "people", "x": ROWS, "seed": seed}) for seed in range(6)],
    *[("/score", {"x": [[[[seed + (k % 3) for k in range(8)]] * 8]], "seed": seed}) for seed in range(6)],
    *[("/score", {"run": "labelled", "x": [[[[seed] * 8] * 8]], "seed": seed}) for seed in range(3)],
    *[("/encode", {"x": [[[[seed] * 8] * 8]]}) for seed in range(6)],
]


def test_the_bits_of_an_answer_do_not_depend_on_the_company(client: httpx.Client, server: Server) -> None:
    alone = [client.post(path, json=fields).content for path, fields in REQUESTS]
    gathered: list[int] = []
    observe = server.service.queue._observe
    server.service.queue._observe = lambda name, rows, seconds: gathered.append(rows)
    start = threading.Barrier(len(REQUESTS))

    def ask(request: tuple[str, dict]) -> bytes:
        start.wait()
        return client.post(request[0], json=request[1]).content

    try:
        with ThreadPoolExecutor(len(REQUESTS)) as clients:
            together = list(clients.map(ask, REQUESTS))
    finally:
        server.service.queue._observe = observe
    assert together == alone
    assert max(gathered) > 3  # there was company


def test_the_sizes_of_blocks_agree_bit_for_bit(server: Server) -> None:
    """A batch of one often rounds otherwise than a batch of many: then it is no size of a block."""
    for served in server.service.runs.values():
        for work, rows in served._probed():
            sizes = served.sizes[work.name]
            assert len({tuple(_bits(work, rows[::3], size)) for size in sizes}) == 1, (served.name, work.name, sizes)
