"""Codes: encode and decode invert each other, paths follow their formula, files give the same numbers back."""

import math
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.commands.code_files import read_codes
from jensen.inference.codes import InterpolationPath, between, decode_codes, interpolate_codes
from jensen.recipe.diffusion.settings import DiffusionSettings
from jensen.recipe.latent.settings import LatentRecipe, LatentSettings
from jensen.recipe.vae.settings import VAESettings
from jensen.vae.coupling_prior import CouplingPrior

BRIEF = {"steps": 30, "batch_size": 32, "validate_every": 30, "ema_decay": None}
TINY = DiffusionSettings(network="mlp", width=16, depth=1, noise_schedule="linear-beta", chain_steps=50, bound_terms=5)
SPHERE, LINE = InterpolationPath.SPHERICAL, InterpolationPath.STRAIGHT
KINDS = ("vae", "diffusion", "latent")


def images() -> np.ndarray:
    """80 images of 6 x 6 pixels and 16 levels, bright in one of three rows."""
    x = np.random.default_rng(0).integers(0, 5, (80, 6, 6), dtype=np.uint8)
    x[np.arange(80), 2 * (np.arange(80) % 3)] += 10
    return x


def people() -> pd.DataFrame:
    source = np.random.default_rng(0)
    age = source.integers(20, 60, 120)
    return pd.DataFrame(
        {
            "id": [f"p{number}" for number in range(120)],
            "age": age,
            "sex": np.where(source.random(120) < 0.4, "F", "M"),
            "pay": np.where(source.random(120) < 0.1, np.nan, (30 * age + source.normal(0, 50, 120)).round(2)),
        }
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, jensen.Run]:
    """A run of each family on images in a folder's file, and a VAE of a table."""
    folder = tmp_path_factory.mktemp("codes")
    np.save(folder / "x.npy", images())
    people().to_csv(folder / "people.csv", index=False)
    own = {"data": str(folder / "x.npy"), "read": {"levels": 16}, "training": BRIEF}
    vae = VAESettings(latent_dims=4, hidden=(16,))
    latent = LatentSettings(vae=vae, prior=TINY, vae_steps=10, prior_steps=20)
    table = {"width": 16, "depth": 1, "latent_dims": 2, "fit_steps": 2}
    rows = {"data": str(folder / "people.csv"), "model": table, "training": {**BRIEF, "steps": 15}}
    recipes = {
        "vae": jensen.VAERecipe(model=vae, **own),
        "diffusion": jensen.DiffusionRecipe(model=TINY, **own),
        "latent": LatentRecipe(model=latent, **own),
        "table": jensen.VAERecipe.model_validate(rows),
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*columns left out: 'id'")  # the identifiers are the names of the codes
        return {name: jensen.train(recipe, folder / name) for name, recipe in recipes.items()}


# ---------------------------------------------------------------------------------------------- encode and decode


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_those_of_the_model(runs: dict[str, jensen.Run], kind: str) -> None:
    run = runs[kind]
    found, examples = jensen.encode(run), run.examples()
    x = run.spec.preparation(examples.x[:])
    assert list(found.names) == list(examples.names)
    assert found.labels is None
    np.testing.assert_allclose(found.z, run.model.encode(x), atol=1e-5)
    if kind == "diffusion":
        assert found.sigma is None
    else:
        np.testing.assert_allclose(found.sigma, run.model.infer(x).scale.detach(), rtol=1e-4)


def test_the_flow_gives_the_examples_of_a_diffusion_model_back(runs: dict[str, jensen.Run]) -> None:
    run = runs["diffusion"]
    raw = run.examples().x
    assert np.array_equal(jensen.decode(run, jensen.encode(run).z).x, raw.numpy())  # 16 levels; the ODE errs by 1e-4
    prepared = jensen.decode(run, jensen.encode(run).z).prepared
    torch.testing.assert_close(prepared, run.spec.preparation(raw), rtol=0, atol=2e-3)


def test_a_vae_decodes_the_mean(runs: dict[str, jensen.Run]) -> None:
    run = runs["vae"]
    x = run.spec.preparation(run.examples().x[:])
    found = jensen.decode(run, torch.from_numpy(jensen.encode(run).z))
    torch.testing.assert_close(found.prepared, run.model.reconstruct(x))


def test_units_not_in_use_are_counted_as_the_report_counts_them(runs: dict[str, jensen.Run]) -> None:
    run = runs["vae"]
    x = run.spec.preparation(run.examples().x[:])
    used = run.model.diagnostics(x)["active units"]
    assert 4 - len(jensen.encode(run).idle) == used
    assert jensen.encode(runs["diffusion"]).idle == ()


@pytest.mark.parametrize(
    ("kind", "ending"), [("vae", ".parquet"), ("vae", ".csv"), ("vae", ".npz"), ("diffusion", ".csv")]
)
def test_a_file_of_codes_holds_their_bits_and_names(
    runs: dict[str, jensen.Run], tmp_path: Path, kind: str, ending: str
) -> None:
    run, path = runs[kind], tmp_path / f"codes{ending}"
    assert main(["encode", str(run.folder), "--split", "validation", "--out", str(path)]) == 0
    found, read = jensen.encode(run, split="validation"), read_codes(path)
    assert np.array_equal(read.z.astype(np.float32), found.z)
    assert list(read.names) == list(found.names)
    assert read.weights == (None if ending == ".csv" else run.weights)
    assert main(["decode", str(run.folder), str(path), "--out", str(tmp_path / "x.npz")]) == 0
    back = np.load(tmp_path / "x.npz")
    assert np.array_equal(back["x"], jensen.decode(run, found.z).x)
    assert back["name"].tolist() == list(found.names)


def test_codes_become_pictures(runs: dict[str, jensen.Run], tmp_path: Path) -> None:
    found = jensen.decode(runs["vae"], np.zeros((3, 4)))
    found.save(tmp_path / "grid.png")
    found.save(tmp_path / "folder")
    assert [path.name for path in sorted((tmp_path / "folder").iterdir())] == ["000000.png", "000001.png", "000002.png"]


def test_codes_of_a_table_become_rows(runs: dict[str, jensen.Run], tmp_path: Path) -> None:
    run, codes, rows = runs["table"], tmp_path / "codes.csv", tmp_path / "rows.csv"
    assert main(["encode", str(run.folder), "--out", str(codes)]) == 0
    assert main(["decode", str(run.folder), str(codes), "--out", str(rows)]) == 0
    back, given = pd.read_csv(rows), pd.read_csv(codes)
    assert list(back.columns) == ["name", "age", "sex", "pay"]
    assert list(back.name) == list(given.name)
    assert set(given.name) <= set(people().id)  # the names are the identifiers
    assert not back.isna().any().any()
    assert set(back.sex) <= {"F", "M"}
    assert jensen.decode(run, given[["z_0", "z_1"]].to_numpy()).frame(people()).equals(back.drop(columns="name"))


def test_what_a_code_cannot_be(runs: dict[str, jensen.Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs["vae"]
    with pytest.raises(jensen.InputError, match=r"codes of shape \(2, 3\): expected \(count, 4\)"):
        jensen.decode(run, np.zeros((2, 3)))
    with pytest.raises(jensen.InputError, match="code 1 is not finite"):
        jensen.decode(run, np.array([[0.0] * 4, [0, 1, np.nan, 0]]))
    bad = {
        "gap.csv": ("name,z_0,z_2\na,1,2\n", "it has no column 'z_1'"),
        "none.csv": ("name,x\na,1\n", "expected the columns z_0, z_1"),
        "words.csv": ("name,z_0\na,1\nb,two\n", "column 'z_0' holds other cells than numbers"),
        "broken.npz": ("PK\x03\x04 nothing", "is not a sound .npz file"),
        "broken.parquet": ("PAR1 nothing", "damaged"),
    }
    for name, (content, told) in bad.items():
        (tmp_path / name).write_text(content)
        assert main(["decode", str(run.folder), str(tmp_path / name), "--out", str(tmp_path / "x.npz")]) == 2
        assert told in capsys.readouterr().err, name
    assert main(["encode", str(run.folder), "--out", str(tmp_path / "codes.txt")]) == 2
    assert "expected .parquet or .csv or .npz" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")
def test_codes_of_other_weights_get_a_note(
    runs: dict[str, jensen.Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jensen.encode(runs["latent"]).save(tmp_path / "codes.parquet")
    words = ["decode", str(runs["vae"].folder), str(tmp_path / "codes.parquet"), "--out", str(tmp_path / "x.npz")]
    assert main(words) == 0
    assert "was made with other weights" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- paths


def test_a_great_circle_keeps_the_length_and_turns_evenly() -> None:
    first, last = torch.tensor([2.0, 0, 0]).double(), torch.tensor([0, 1.2, 1.6]).double()  # both of length 2
    path = between(first, last, torch.linspace(0, 1, 5).double(), SPHERE)
    torch.testing.assert_close(path.norm(dim=1), torch.full((5,), 2.0).double())
    angles = torch.arccos((path[1:] * path[:-1]).sum(1) / 4)
    torch.testing.assert_close(angles, torch.full((4,), math.pi / 8).double())
    torch.testing.assert_close(path[[0, -1]], torch.stack([first, last]))


def test_a_straight_line_leaves_the_sphere_on_which_draws_lie() -> None:
    """The point in the middle has a mean square of 1 on a great circle, and of 1/2 on a line (White 2016)."""
    draws = torch.randn(2, 10_000, generator=torch.Generator().manual_seed(0)).double()
    square = {way: between(*draws, torch.tensor([0.5]).double(), way).square().mean().item() for way in (SPHERE, LINE)}
    # the standard error of both is sqrt(2 / 10,000), at most; 5 of them: false alarms below 1 in a million
    assert square[SPHERE] == pytest.approx(1, abs=0.07)
    assert square[LINE] == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("factor", [2.0, -1.0])
def test_a_circle_through_one_direction_or_opposite_ones_is_a_line(factor: float) -> None:
    first = torch.tensor([1.0, 2.0]).double()
    path = between(first, factor * first, torch.linspace(0, 1, 3).double(), SPHERE)
    torch.testing.assert_close(path[1], (1 + factor) / 2 * first)


def test_a_latent_run_goes_along_its_prior(runs: dict[str, jensen.Run]) -> None:
    """In the coordinates of N(0, I), the path of a latent run is a great circle; its ends are the given z."""
    model = runs["latent"].model
    ends = torch.tensor([[2.0, 0, 0, 0.5], [0, 2, 0.5, 0]])
    z = interpolate_codes(model, ends[0], ends[1], 4)
    torch.testing.assert_close(z[[0, -1]], ends, rtol=0, atol=5e-3)
    normal = model.to_normal(ends).double()
    expected = between(normal[0], normal[1], torch.linspace(0, 1, 4).double(), SPHERE)
    torch.testing.assert_close(model.to_normal(z).double(), expected, rtol=0, atol=5e-3)
    line = interpolate_codes(model, ends[0], ends[1], 4, LINE)
    assert (z[1] - line[1]).norm() > 0.1


def test_a_flow_as_prior_has_coordinates_of_its_own() -> None:
    torch.manual_seed(0)
    prior = CouplingPrior(4, [torch.nn.Linear(4, 8), torch.nn.Linear(4, 8)])
    u = torch.randn(5, 4)
    torch.testing.assert_close(prior.to_normal(prior.from_normal(u)), u)
    assert not torch.allclose(prior.from_normal(u), u, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_interpolate(runs: dict[str, jensen.Run], tmp_path: Path, kind: str) -> None:
    run = runs[kind]
    names, raw = list(run.examples().names), run.examples().x.numpy()
    found = jensen.interpolate(run, names[1], names[3], 5)
    assert found.x.shape == (5, 1, 6, 6)
    assert found.names == [names[1], "0.25 of the way", "0.5 of the way", "0.75 of the way", names[3]]
    ends = jensen.decode(run, jensen.encode(run).z[[1, 3]]).prepared
    torch.testing.assert_close(found.decoded.prepared[[0, -1]], ends, rtol=0, atol=0.02)
    itself = jensen.interpolate(run, raw[1], raw[3], 5)
    torch.testing.assert_close(itself.decoded.prepared, found.decoded.prepared, rtol=0, atol=1e-4)
    np.save(tmp_path / "one.npy", raw[1])
    words = [str(tmp_path / "one.npy"), names[3], "--steps", "5", "--out", str(tmp_path / "p.npz")]
    assert main(["interpolate", str(run.folder), *words]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "p.npz")["z"], found.z, atol=1e-4)
    assert main(["interpolate", str(run.folder), *words[:-1], str(tmp_path / "p.png")]) == 0


def test_interpolate_rows_of_a_table(runs: dict[str, jensen.Run], tmp_path: Path) -> None:
    run = runs["table"]
    names = list(jensen.encode(run).names)
    out = tmp_path / "path.parquet"
    assert main(["interpolate", str(run.folder), names[0], names[4], "--steps", "4", "--out", str(out)]) == 0
    assert pd.read_parquet(out).shape == (4, 4)
    frame = people().set_index("id", drop=False)
    found = jensen.interpolate(run, frame.loc[[names[0]]], frame.loc[[names[4]]], 4)
    assert found.decoded.frame().drop_columns("pay").to_pylist()[0].keys() == {"age", "sex"}
    np.testing.assert_allclose(found.z, jensen.interpolate(run, names[0], names[4], 4).z, atol=1e-6)


def test_what_an_end_cannot_be(runs: dict[str, jensen.Run], tmp_path: Path) -> None:
    run = runs["vae"]
    with pytest.raises(jensen.InputError, match=r"nobody: no example of .* has this name, and there is no such file"):
        jensen.interpolate(run, "nobody", "row 0")
    np.save(tmp_path / "two.npy", images()[:2])
    with pytest.raises(jensen.InputError, match="holds 2 examples, expected one"):
        jensen.interpolate(run, tmp_path / "two.npy", tmp_path / "two.npy")
    name = next(iter(run.examples().names))
    with pytest.raises(jensen.InputError, match="1 steps: expected at least 2"):
        jensen.interpolate(run, name, name, 1)


def test_codes_do_not_depend_on_the_batch(runs: dict[str, jensen.Run]) -> None:
    z = torch.from_numpy(jensen.encode(runs["diffusion"]).z)
    together = decode_codes(runs["diffusion"].model, z)
    alone = torch.cat([decode_codes(runs["diffusion"].model, row[None]) for row in z[:3]])
    torch.testing.assert_close(together[:3], alone, rtol=0, atol=1e-4)
