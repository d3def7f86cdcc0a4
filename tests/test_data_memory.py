"""Data in memory: read as files of the same arrays are, trained on, given again; and data that have moved."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import byte_images, saved

import jensen
from jensen.cli import main
from jensen.data.check import check
from jensen.data.load import load_again, load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.errors import InputError
from jensen.recipe.vae.settings import VAESettings
from jensen.training.settings import TrainingSettings

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 3
PAIRS = {"x_train": byte_images(40), "y_train": Y[:40], "x_test": byte_images(20, 1), "y_test": Y[40:]}


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": X},
        {"x": X.astype(np.float16)},
        {"x": byte_images(30)},
        {"x": byte_images(30, shape=(3, 5, 6)).astype(np.int64)},
        {"x": np.asfortranarray(X)[::2]},
        {"x": X, "y": Y},
        {"x": X, "y": np.array(["dog", "cat", "eel"] * 20)},
        {"images": X, "targets": X[:, :2].astype(np.float64)},
        PAIRS,
    ],
    ids=lambda arrays: " ".join(f"{name} {array.dtype}" for name, array in arrays.items()),
)
def test_arrays_in_memory_are_read_as_their_file_is(tmp_path: Path, arrays: dict[str, np.ndarray]):
    """The same specification but for its place, the same splits, labels and targets; as arrays and as tensors."""
    single = list(arrays) == ["x"]
    file = load_data(saved(tmp_path / f"x.{'npy' if single else 'npz'}", **arrays))
    tensors = {name: torch.from_numpy(a.copy()) if a.dtype.kind != "U" else a for name, a in arrays.items()}
    for given in (arrays["x"], tensors["x"]) if single else (arrays, tensors):
        memory = load_data(given)
        assert memory.spec.source == "memory"
        assert memory.spec.kind == ("array in memory" if single else "arrays in memory")
        unplaced = {"source": "", "kind": "array"}
        assert memory.spec.model_copy(update=unplaced) == file.spec.model_copy(update=unplaced)
        for split in ("train", "validation", "test"):
            ours, theirs = getattr(memory, split), getattr(file, split)
            assert torch.equal(ours.x, theirs.x)
            assert list(ours.names) == list(theirs.names)
            for mine, other in ((ours.labels, theirs.labels), (ours.targets, theirs.targets)):
                assert (mine is None and other is None) or torch.equal(mine, other)
        report = check(given)
        assert report.good
        assert report.source == "memory"
        assert report.spec == memory.spec


def test_half_precision_tensors_are_read_exactly():
    brain = torch.from_numpy(X).bfloat16().requires_grad_()
    assert torch.equal(load_data(brain).train.x, load_data(brain.detach().float()).train.x)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (
            [[1.0, 2.0]] * 30,
            "memory: is of type list; expected a path, a NumPy array, a tensor, a dict of arrays or a DataFrame",
        ),
        (3, "memory: is of type int"),
        (None, "memory: is of type NoneType"),
        ({"x": [[1.0]] * 30}, "memory: x: is of type list"),
        ({"x": X, "y": list(Y)}, "memory: y: is of type list"),
        ({1: X}, "memory: has the key 1; expected strings such as x and y"),
        ({}, "memory: holds no array; give one named x"),
        ({"y": Y}, "memory: holds only labels, 'y'; add the examples, named x"),
        ({"a": X, "b": X}, "memory: which array holds the examples"),
        ({"x": X, "y": Y[1:]}, "60 examples but 59 labels"),
        (np.array([[object()]] * 30), "memory: holds Python objects; expected plain numbers"),
        ({"x": X, "y": np.array([None] * 60)}, "memory: y: holds Python objects"),
        (np.zeros(30, [("a", "f4")]), "expected plain numbers"),
        (np.zeros((0, 3)), r"memory: has shape \(0, 3\)"),
        (np.array(3.0), r"memory has shape \(\)"),
        (np.ma.masked_array(X, X > 1), "memory: is a masked array; fill it"),
        (torch.zeros(30, 3).to_sparse(), "memory: is a sparse, quantised or meta tensor"),
        (torch.zeros(30, 3, dtype=torch.complex64), "holds complex64"),
        (torch.full((30, 3), float("nan")), "are NaN"),
    ],
)
def test_what_is_no_array_is_refused_in_a_line(given: object, says: str, tmp_path: Path):
    """By loading, by checking and by training, which leaves nothing behind."""
    with pytest.raises(InputError, match=says) as caught:
        load_data(given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(caught.value) in check(given).problems  # type: ignore[arg-type]
    with pytest.raises(InputError, match=says):
        jensen.train(jensen.VAERecipe(data=given), tmp_path / "run")  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_options_of_reading_apply_to_arrays_in_memory():
    named = load_data({"a": X, "b": X + 1, "c": Y}, ReadOptions(array="b", labels="c"))
    assert torch.equal(torch.cat([named.train.x, named.validation.x, named.test.x]).sum(), torch.tensor(X + 1).sum())
    assert named.spec.classes == 3
    assert load_data(byte_images(30), ReadOptions(layout="vector")).spec.shape == (20,)
    for options, says in (
        ({"labels": "y"}, "--labels is for .* but DATA is a single array in memory"),
        ({"array": "x"}, "--array is for .* but DATA is a single array in memory"),
        ({"stream": "always"}, "--stream is for .* but DATA is a single array in memory"),
        ({"size": (4, 4)}, "--size is for .* but DATA is a single array in memory"),
    ):
        with pytest.raises(InputError, match=says):
            load_data(X, ReadOptions(**options))


def test_other_data_in_memory_are_read_under_a_runs_rules():
    spec = load_data({"x": X, "y": Y}).spec
    other = read_examples({"x": X[:9] + 1, "y": Y[:9]}, spec)
    assert torch.equal(other.x, torch.from_numpy(X[:9] + 1))
    assert torch.equal(other.labels, torch.from_numpy(Y[:9]))
    assert other.names[8] == "row 8"
    with pytest.raises(InputError, match=r"^memory: has shape \(2,\) but the run was trained on shape \(3,\)"):
        read_examples(X[:, :2], spec)
    with pytest.raises(InputError, match=r"^memory: label 9 .* is not a class of the run; its classes are 0, 1, 2"):
        read_examples({"x": X, "y": Y + 7 * (Y > 1)}, spec, only_known_y=True)


# ---------------------------------------------------------------------------------------------- runs


def recipe(data: object) -> jensen.VAERecipe:
    small = VAESettings(latent_dims=2, hidden=(8,))
    return jensen.VAERecipe(data=data, model=small, training=TrainingSettings(steps=20))  # type: ignore[arg-type]


def test_a_recipe_holds_arrays_beside_its_fields():
    made = recipe({"x": X, "y": Y})
    assert made.data == "memory"
    assert made.source["x"] is X
    assert json.loads(made.model_dump_json())["data"] == "memory"
    assert made == made.model_copy()
    assert made != recipe({"x": X, "y": Y})
    assert made.model_copy(update={"seed": 3}).source["y"] is Y
    assert recipe("digits").source == "digits"
    assert recipe(Path("a.npz")).source == "a.npz"


def test_a_run_of_arrays_in_memory(tmp_path: Path):
    """Trains to the weights of the same file, records no path, and wants its data again when they are not at hand."""
    arrays = {"x": torch.from_numpy(X), "y": Y}
    run = jensen.train(recipe(arrays), tmp_path / "memory")
    npz = saved(tmp_path / "x.npz", x=X, y=Y)
    same = jensen.train(recipe(npz), tmp_path / "file")
    for ours, theirs in zip(run.model.state_dict().values(), same.model.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    for name in ("recipe.json", "data.json"):
        written = json.loads((tmp_path / "memory" / name).read_text())
        assert written["data" if name == "recipe.json" else "source"] == "memory"
    assert len(run.examples()) == 6
    assert len(run.examples(X[:9])) == 9
    assert run.spec.fingerprint == same.spec.fingerprint

    opened = jensen.load(tmp_path / "memory")
    for use in (opened.examples, lambda: opened.dataset, lambda: jensen.resume(tmp_path / "memory")):
        with pytest.raises(InputError, match=r"were arrays in memory; give them again, as in jensen.load\(RUN, data"):
            use()
    with pytest.raises(InputError, match="the data differ from those of the run"):
        jensen.load(tmp_path / "memory", data={"x": X + 1, "y": Y})
    again = jensen.load(tmp_path / "memory", data=arrays)
    assert torch.equal(again.examples().x, same.examples().x)
    assert torch.equal(jensen.resume(tmp_path / "memory", data=arrays).examples().x, same.examples().x)
    with pytest.raises(InputError, match="were arrays in memory"):
        jensen.load(tmp_path / "memory").examples()

    found = opened.with_data(npz)  # a file of the same arrays is the same data; from now on the run knows it
    assert found.spec.source == jensen.load(tmp_path / "memory").spec.source == str(npz.resolve())
    assert torch.equal(jensen.load(tmp_path / "memory").examples().x, same.examples().x)


def test_a_run_knows_the_labels_without_training_examples(tmp_path: Path):
    run = jensen.train(recipe({**PAIRS, "y_test": np.arange(20) % 5}), tmp_path / "run")
    assert run.unseen_labels == (3, 4)
    assert jensen.train(recipe("digits"), tmp_path / "digits").unseen_labels == ()


def test_a_changed_array_is_not_taken_for_the_runs_data(tmp_path: Path):
    x = X.copy()
    run = jensen.train(recipe(x), tmp_path / "run")
    x[7, 1] += 1
    with pytest.raises(InputError, match="memory: the data differ from those of the run"):
        run.examples()


def test_the_recipe_of_a_run_in_memory_asks_for_its_data(tmp_path: Path):
    jensen.train(recipe(X), tmp_path / "run")
    with pytest.raises(InputError, match="memory: these data were arrays in memory"):
        jensen.train(jensen.VAERecipe.from_file(tmp_path / "run" / "recipe.json"), tmp_path / "other")


# ---------------------------------------------------------------------------------------------- moved


@pytest.mark.parametrize("command", ["resume", "info"])
def test_moved_data_are_found_again(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = str(tmp_path / "run")
    old = saved(tmp_path / "old.npz", x=X, y=Y)
    jensen.train(recipe(old), run)
    expected = jensen.load(run).examples()
    new = old.rename(tmp_path / "new.npz")
    with pytest.raises(InputError, match=r"old.npz: the run's own data are no longer there; .* jensen info RUN --data"):
        jensen.load(run).examples()
    other = saved(tmp_path / "other.npz", x=X + 1, y=Y)
    assert main([command, run, "--data", str(other)]) == 2
    assert "other.npz: the data differ from those of the run" in capsys.readouterr().err
    assert main([command, run, "--data", str(new)]) == 0
    found = jensen.load(run)  # without a word: it was recorded
    assert found.spec.source == str(new.resolve())
    assert torch.equal(found.examples().x, expected.x)
    assert main(["resume", run]) == 0


def test_the_place_of_data_is_all_that_moving_changes(tmp_path: Path):
    spec = load_data(saved(tmp_path / "x.npz", x=X)).spec
    moved = load_again(spec, source=saved(tmp_path / "x.npy", x=X)).spec
    assert moved.kind == "array"
    assert moved.model_copy(update={"source": spec.source, "kind": spec.kind}) == spec
