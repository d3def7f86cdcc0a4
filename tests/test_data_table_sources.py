"""Tables of every source, new rows by the columns of a run, and wishes about types."""

import json
import sys
from datetime import date, time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from data_files import days, read_all, refused, saved, text, written
from test_data_tables import LEFT_OUT, TYPES

from jensen.cli import main
from jensen.data.load import load_again, load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.data.spec import DataSpec
from jensen.data.stored import Stored
from jensen.data.table.frames import like
from jensen.data.table.matrix import decode, encode
from jensen.data.table.write import write_table
from jensen.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
N = 600

# ---------------------------------------------------------------------------------------------- sources with types

FRAME = pandas.DataFrame(
    {
        "int8": RNG.integers(-100, 100, N).astype(np.int8),
        "int64": RNG.integers(0, 10**6, N),
        "float32": RNG.normal(size=N).astype(np.float32),
        "float64": RNG.normal(size=N),
        "gaps": np.where(RNG.uniform(size=N) < 0.1, np.nan, RNG.normal(size=N)),
        "nullable": pandas.array(np.where(np.arange(N) % 8, RNG.integers(0, 200, N), 0), "Int64"),
        "bool": RNG.integers(0, 2, N) == 1,
        "category": pandas.Categorical(RNG.choice(["b", "a"], N), categories=["b", "a", "unused"]),
        "ordered": pandas.Categorical(RNG.choice(["low", "mid"], N), categories=["low", "mid", "top"], ordered=True),
        "text": RNG.choice(["x", "y", "z"], N),
        "day": pandas.Timestamp("2020-02-27") + pandas.to_timedelta(RNG.integers(0, 999, N), "D"),
        "moment": pandas.Timestamp("2020-02-27", tz="Europe/Zurich")
        + pandas.to_timedelta(RNG.integers(0, 10**7, N), "s"),
    }
)
FRAME.loc[3:5, "nullable"] = pandas.NA
FRAME.loc[7:9, "text"] = None


def test_a_source_without_rows_is_refused(tmp_path):
    for frame in (FRAME.iloc[:0], polars.DataFrame({"a": [], "b": []}), pyarrow.table({"a": [], "b": []})):
        with pytest.raises(InputError, match="memory: holds no cells; expected rows"):
            load_data(frame)
    spec = load_data(FRAME).spec
    FRAME.iloc[:0].to_parquet(tmp_path / "a.parquet")
    for source in (FRAME.iloc[:0], tmp_path / "a.parquet"):
        with pytest.raises(InputError, match="holds no cells; expected rows"):
            read_examples(source, spec)


def test_a_data_frame_comes_back_with_its_types():
    reading = load_data(FRAME)
    table = reading.spec.table
    assert [column.name for column in table.columns] == list(FRAME)
    back = like(decode(encode(pyarrow.Table.from_pandas(FRAME), table), table), FRAME)
    pandas.testing.assert_frame_equal(back, FRAME)
    assert table.columns[8].values == ("low", "mid", "top")
    assert [column.type for column in table.columns] == [
        "integer", "integer", "continuous", "continuous", "continuous", "integer", "boolean", "categorical", "ordinal",
        "categorical", "datetime", "datetime",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["pandas", "polars", "pyarrow", "parquet", "arrow", "csv"])
def test_every_source_of_a_table_gives_the_same_rows(tmp_path, kind):
    """The same splits and numbers whether the rows are in memory or in a file; CSV has no types, but the same laws."""
    plain = FRAME.drop(columns=["category", "ordered", "moment"])
    arrow = pyarrow.Table.from_pandas(plain, preserve_index=False)
    expected = load_data(arrow)
    source = {"pandas": plain, "polars": polars.from_arrow(arrow), "pyarrow": arrow}.get(kind, tmp_path / f"a.{kind}")
    if isinstance(source, Path):
        if kind == "csv":
            plain.to_csv(source, index=False)
        else:
            write_table(arrow, source, expected.spec.table)
    found = load_data(source)
    assert found.spec.kind == "table"
    for split in ("train", "validation", "test"):
        np.testing.assert_allclose(getattr(found, split).x, getattr(expected, split).x, rtol=1e-6)
    assert [field.law for field in found.spec.table.fields] == [field.law for field in expected.spec.table.fields]
    assert load_again(found.spec, source=source).spec.fingerprint == found.spec.fingerprint


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_on_disk_has_the_rows_of_one_in_memory(tmp_path, monkeypatch, kind):
    """The same columns, fingerprint, preparation and rows, and the same refusals, in blocks of two rows."""
    monkeypatch.setattr("jensen.data.readers.tables.NUMBERS_AT_ONCE", 2 * len(FRAME.columns))
    arrow = pyarrow.Table.from_pandas(FRAME.head(60), preserve_index=False)
    path = tmp_path / f"a.{kind}"
    write_table(arrow, path, load_data(arrow).spec.table)
    memory, disk = (load_data(path, ReadOptions(stream=stream)) for stream in ("never", "always"))
    assert isinstance(disk.train.x, Stored)
    told = {"options": memory.spec.options}
    assert disk.spec.model_copy(update=told) == memory.spec
    np.testing.assert_array_equal(disk.train.x[:], memory.train.x)
    assert load_again(disk.spec).spec == disk.spec
    if kind == "csv":
        path.write_text(path.read_text() + "1,2\n")
        refused(path, "row 62 has 2 cells but there are 12 columns", stream="always")


HUNDRED = range(100)
ODD = {
    "periods": (pandas.period_range("2020-01", periods=100, freq="M"), "cells of the type extension"),
    "durations": (pandas.to_timedelta(HUNDRED, "h"), "cells of the type duration"),
    "intervals": (pandas.cut(RNG.normal(size=100), 5), "cells of the type dictionary"),
    "lists": ([[1, 2]] * 100, "cells of the type list"),
    "bytes": ([b"x", b"y"] * 50, "cells of the type binary"),
    "several types": ([1, "a"] * 50, "refused"),
    "objects": ([object()] * 100, "refused"),
    "complex numbers": (RNG.normal(size=100) + 1j, "refused"),
    "infinite numbers": ([np.inf, 1.5] * 50, "refused"),
    "decimals": ([Decimal("1.50"), Decimal("2.25"), None, Decimal("4.75")] * 25, "ordinal"),
    "times": ([time(i % 24, i % 60) for i in HUNDRED], "datetime"),
    "days": ([date(2020, 1, 1 + i % 28) for i in HUNDRED], "datetime"),
    "booleans with gaps": (pandas.array([True, None, False, True] * 25, "boolean"), "boolean"),
    "categories of numbers": (pandas.Categorical([3, 1, 2, 1] * 25), "categorical"),
    "categories of dates": (pandas.Categorical(pandas.to_datetime(["2020-01-01", "2020-01-02"] * 50)), "datetime"),
    "unsigned numbers beyond int64": (RNG.integers(2**63, 2**64 - 1, 100, dtype=np.uint64), "continuous"),
    "short floats": (RNG.normal(size=100).astype(np.float16), "continuous"),
    "nanoseconds": (pandas.Timestamp("2020-01-01") + pandas.to_timedelta([*HUNDRED], "s").as_unit("ns"), "datetime"),
    "times of many centuries": (np.array(["0001-01-01", "9999-12-31"] * 50, dtype="datetime64[us]"), "datetime"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_columns_of_a_frame_are_read_or_named(name):
    cells, expected = ODD[name]
    frame = pandas.DataFrame({"odd": cells, "other": RNG.normal(size=100)})
    if expected == "refused":
        with pytest.raises(InputError, match=r"^memory: |^the DataFrame"):
            load_data(frame)
        return
    data = load_data(frame)
    table = data.spec.table
    if expected.startswith("cells"):
        assert table.left_out[0].why.startswith(expected)
        return
    assert table.columns[0].type == expected
    arrow = decode(data.train.x.numpy(), table)
    np.testing.assert_array_equal(encode(arrow, table), data.train.x)
    given = frame["odd"].iloc[[int(row) for row in data.train.names.rows]].reset_index(drop=True)
    if name != "unsigned numbers beyond int64":  # which float64 rounds
        pandas.testing.assert_series_equal(like(arrow, frame)["odd"], given)


@pytest.mark.parametrize("library", [pandas, polars])
def test_words_become_the_booleans_that_a_frame_has(library):
    """A CSV file has the words, and a reader of CSV makes booleans of them, which are not all true."""
    arrow = pyarrow.table({"a": ["true", "false", "False"], "b": ["yes", "no", "no"], "c": ["true", None, "false"]})
    frame = library.DataFrame({"a": [True, False], "b": [True, False], "c": [True, False]})
    back = like(arrow, frame)
    assert back["a"].to_list() == [True, False, False]
    assert back["b"].to_list() == ["yes", "no", "no"]  # a guess could be wrong
    assert back["c"].to_list() == [True, None, False]


def test_enumerations_of_polars_come_back():
    frame = polars.DataFrame({"a": ["x", "y"] * 50, "b": ["low", "high"] * 50, "c": HUNDRED}).cast(
        {"a": polars.Categorical, "b": polars.Enum(["low", "mid", "high"])}
    )
    table = load_data(frame, ReadOptions(columns={"c": "integer"})).spec.table
    assert [column.type for column in table.columns] == ["categorical", "ordinal", "integer"]
    back = like(decode(encode(pyarrow.table(frame), table), table), frame)
    assert back.equals(frame)


def test_named_columns_in_a_npz_and_a_dict_and_a_matrix(tmp_path):
    arrays = {"age": RNG.integers(0, 90, N), "sex": RNG.choice(["f", "m"], N), "pay": RNG.normal(size=N)}
    np.savez(tmp_path / "a.npz", **arrays)
    file, memory = load_data(tmp_path / "a.npz"), load_data(arrays)
    assert file.spec.fingerprint == memory.spec.fingerprint
    assert [column.type for column in file.spec.table.columns] == ["integer", "categorical", "continuous"]
    matrix = np.stack([arrays["age"], arrays["pay"]], axis=1)
    found = load_data(matrix, ReadOptions(layout="table")).spec.table
    assert [(column.name, column.type) for column in found.columns] == [("x0", "integer"), ("x1", "continuous")]
    assert load_data(matrix).spec.layout == "vector"
    file = load_data(saved(tmp_path / "x.npz", x=matrix, y=arrays["age"] % 3), ReadOptions(layout="table")).spec
    assert [column.name for column in file.table.columns] == ["x0", "x1", "y"]
    assert read_examples({"x": matrix[:4], "y": np.zeros(4)}, file).x[:, 1].tolist() == matrix[:4, 1].tolist()
    with pytest.warns(UserWarning, match="there is no column 'y', so its cells count as missing"):
        assert read_examples(matrix[:4], file, missing=True).x[:, 2].isnan().all()
    with pytest.raises(InputError, match="its columns have several lengths"):
        load_data({**arrays, "age": arrays["age"][1:]})


def test_an_array_of_a_format_whose_new_data_would_not_be_read_is_no_table(tmp_path: Path) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "x.mat", {"x": RNG.normal(size=(50, 3))})
    with pytest.raises(InputError, match=r"--layout table is for CSV, Parquet, Arrow and NumPy; write the array as"):
        load_data(tmp_path / "x.mat", ReadOptions(layout="table"))


def test_scikit_learns_data_sets_are_frames_in_memory():
    from sklearn.datasets import load_iris, load_wine

    iris = load_data(load_iris(as_frame=True).frame).spec.table
    assert [column.type for column in iris.columns] == ["integer"] * 5  # tenths of centimetres, and three codes
    assert iris.fields[-1].law == "codes"
    assert len(load_data(load_wine(as_frame=True).frame).spec.table.columns) == 14


@pytest.mark.parametrize("kind", ["csv", "parquet", "frame"])
def test_without_pyarrow_a_table_says_what_to_install(tmp_path, monkeypatch, kind):
    path = written(tmp_path / "a.csv", a=text(range(40)))
    if kind == "parquet":
        path = tmp_path / "a.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"a": [0.5] * 40}), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pyarrow, which is not installed; pip install 'jensen\[tables\]'"):
        load_data(FRAME if kind == "frame" else path)


def test_shards_with_splits_and_columns_that_cannot_be_used(tmp_path):
    write = pyarrow.parquet.write_table
    arrow = pyarrow.table({"a": RNG.normal(size=60), "b": ["x", "y"] * 30, "c": [[1]] * 60})
    write(arrow.drop(["c"]).slice(0, 40), tmp_path / "train-0.parquet")
    write(arrow.drop(["c"]).slice(40), tmp_path / "test-0.parquet")
    data = load_data(tmp_path)
    assert data.spec.counts["test"] == 20
    assert data.test.names[0] == "test-0.parquet row 0"
    assert load_again(data.spec).spec == data.spec
    write(pyarrow.table({"a": arrow["a"], "b": [{"x": 1}] * 60}), tmp_path / "train-0.parquet")
    (tmp_path / "test-0.parquet").unlink()
    assert "cells of the type struct" in load_data(tmp_path).spec.table.left_out[0].why


# ---------------------------------------------------------------------------------------------- new data


@pytest.fixture
def run(tmp_path) -> DataSpec:
    """The specification of a run on a table of 200 rows, without missing cells."""
    path = written(
        tmp_path / "run.csv",
        id=text(range(200)),
        age=text(RNG.integers(20, 60, 200)),
        pay=text(np.round(RNG.normal(size=200), 4)),
        town=text(RNG.choice(["Bern", "Thun"], 200)),
        born=days(200, "%d.%m.%Y"),
    )
    return load_data(path).spec


ROW = {"town": ["Thun"], "pay": ["0.5"], "age": ["33"], "born": ["05.03.2019"], "more": ["x"]}


def test_new_rows_are_read_by_the_columns_of_the_run(tmp_path, run):
    """In any order of columns, with further columns, without those that were left out."""
    examples = read_examples(written(tmp_path / "new.csv", **ROW), run)
    low = run.table.columns[0].low
    assert examples.x.tolist() == [[33 - low, 0.5, 1, 0, 1]]
    assert examples.names[0] == "row 2"
    frame = pandas.DataFrame({"town": ["Thun"], "pay": [0.5], "age": [33], "born": [pandas.Timestamp("2019-03-05")]})
    assert read_examples(frame, run).x.tolist() == examples.x.tolist()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"age": None}, "there is no column 'age', which the run was trained on; add it"),
        ({"age": None, "pay": None}, "there is no column 'age' and 1 more"),
        ({"town": ["Basel"]}, "row 2, column 'town': holds 'Basel', which no training row has; expected one of Bern, "),
        ({"age": ["old"]}, "row 2, column 'age': holds 'old', expected a number"),
        ({"born": ["2019-03-05"]}, "row 2, column 'born': holds '2019-03-05', expected a date of the format %d.%m.%Y"),
        ({"age": ["NA"]}, "row 2, column 'age': is missing, but no training row has a missing cell there"),
    ],
)
def test_new_rows_that_do_not_fit_are_named(tmp_path, run, change, says):
    columns = {name: cells for name, cells in (ROW | change).items() if cells is not None}
    with pytest.raises(InputError, match=says) as caught:
        read_examples(written(tmp_path / "new.csv", **columns), run)
    assert str(caught.value).startswith(f"{tmp_path / 'new.csv'}: ")
    assert "\n" not in str(caught.value)


def test_a_row_of_a_table_on_disk_is_named(tmp_path, run, monkeypatch):
    new = written(tmp_path / "new.csv", **{name: cells * 9 for name, cells in (ROW | {"town": ["Thun"]}).items()})
    new.write_text(new.read_text() + "Basel,0.5,33,05.03.2019,x\n")
    monkeypatch.setattr("jensen.data.options.LARGE", 0)
    monkeypatch.setattr("jensen.data.readers.tables.NUMBERS_AT_ONCE", 2 * len(run.table.fields))
    with pytest.raises(InputError, match="row 11, column 'town': holds 'Basel'"):
        read_examples(new, run)


def test_cells_beyond_the_range_are_counted_in_a_note(tmp_path, run):
    rows = {name: cells * 5 for name, cells in ROW.items()}
    new = written(tmp_path / "new.csv", **(rows | {"age": ["99", "99", *ROW["age"], "99", "99"]}))
    note = r"column 'age': 4 of 5 cells \(row 2, row 3, row 5, ...\) lie beyond the range of the training rows"
    with pytest.warns(UserWarning, match=note):
        examples = read_examples(new, run)
    assert examples.x[0, 0] == run.table.fields[0].levels - 1


def test_a_missing_cell_is_read_where_it_is_asked_for(tmp_path, run):
    new = written(tmp_path / "new.csv", **(ROW | {"age": ["?"], "town": [""], "born": ["NA"]}))
    assert np.isnan(read_examples(new, run, missing=True).x.numpy()).tolist() == [[True, False, True, True, True]]


def test_changed_cells_change_the_fingerprint(tmp_path, run):
    path = Path(run.source)
    path.write_text(path.read_text().replace("Bern", "Biel"))
    assert load_data(path).spec.fingerprint != run.fingerprint  # of the same numbers with other meanings
    with pytest.raises(InputError, match="holds 'Biel'"):
        load_again(run)
    path.write_text(path.read_text().replace("Biel", "Thun", 1).replace("Biel", "Bern"))
    with pytest.raises(InputError, match="the data have changed since the run"):
        load_again(run)


# ---------------------------------------------------------------------------------------------- wishes


def test_the_types_that_data_check_writes_may_be_changed_and_given(tmp_path, capsys):
    path = written(tmp_path / "a.csv", **{name: cells for name, (cells, *_) in (TYPES | LEFT_OUT).items()})
    types = tmp_path / "types.toml"
    assert main(["data", "check", str(path), "--write-columns", str(types)]) == 0
    shown = capsys.readouterr().out
    assert "codes 1 and 2            categorical  " in shown
    assert "customer_id              left out     " in shown
    assert main(["data", "check", str(path), "--write-columns", str(types)]) == 2
    assert f"--write-columns: {types} exists and would be lost" in capsys.readouterr().err
    found = load_data(path).spec.table
    given = load_data(path, ReadOptions(columns=str(types))).spec
    assert [column.type for column in given.table.columns] == [column.type for column in found.columns]
    assert [one.name for one in given.table.left_out] == [one.name for one in found.left_out]
    text = types.read_text()
    assert given.options.columns == text  # by content: the file may change or go
    types.write_text(text.replace('"street" = "leave out"', '"street" = "categorical"'))
    changed = load_data(path, ReadOptions(columns=str(types))).spec
    types.unlink()
    assert load_again(changed).spec == changed
    assert next(column for column in changed.table.columns if column.name == "street").type == "categorical"
    assert DataSpec.model_validate_json(json.dumps(changed.model_dump(mode="json"))) == changed


def test_wishes_from_python_and_their_effects(tmp_path):
    path = written(
        tmp_path / "a.csv",
        code=text([1, 2, 3] * 40),
        grade=["C", "A", "B"] * 40,
        size=["1", "unknown", "3.5"] * 40,
        day=["01/02/2020", "03/04/2020", "11/12/2020"] * 40,
        index=text(range(120)),
    )
    columns = {
        "code": "categorical",
        "grade": ["C", "B", "A"],
        "size": {"missing": ["unknown"]},
        "day": {"format": "%d/%m/%Y"},
        "index": "continuous",
    }
    table = load_data(path, ReadOptions(columns=columns)).spec.table
    assert load_data(path, ReadOptions(columns={"code": [3, 1, 2]})).spec.table.columns[0].values == ("3", "1", "2")
    with pytest.raises(InputError, match="'code' holds numbers, which have an order"):
        load_data(pandas.read_csv(path), ReadOptions(columns={"code": [3, 1, 2]}))
    assert [column.type for column in table.columns] == [
        "categorical", "ordinal", "categorical", "datetime", "continuous"
    ]  # fmt: skip
    assert table.columns[1].values == ("C", "B", "A")
    assert table.columns[2].missing
    assert table.columns[3].format == "%d/%m/%Y"


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ("nowhere.toml", "cannot be read"),
        ("a = integer", "is not TOML"),
        ('a = "number"', "a is of the unknown type 'number'; expected one of continuous, integer"),
        ("a = 3", "a = 3 is not understood"),
        ('a = { format = "%Q" }', "the format of a is '%Q'"),
        ('a = ["x", "x"]', "values of a is ..x., .x..; expected a list of different texts"),
        ('z = "integer"', "--columns: there is no column 'z'; the columns are 'a', 'b'"),
        ('b = "integer"', "--columns: 'b' cannot be of type integer, because row 2 holds 'x'; expected numbers"),
        ('a = "count"', "'a' cannot be of type count, which needs whole numbers from 0"),
        ('b = ["x"]', "--columns: 'b' holds 'y' in row 3, which is not among its values"),
        ('b = "datetime"', "'b' cannot be of type datetime, because row 2 holds 'x'; expected dates"),
        ("b = { format = '%Y' }", "because row 2 holds 'x'; expected dates of the format %Y"),
    ],
)  # fmt: skip
def test_a_wish_that_cannot_be_met_is_refused(tmp_path, wish, says):
    path = written(tmp_path / "a.csv", a=["1.5", "-2.25"] * 20, b=["x", "y"] * 20)
    with pytest.raises(ValueError, match=says):
        load_data(path, ReadOptions(columns=wish))


def test_a_file_of_wishes_that_is_no_toml_is_refused_with_one_prefix(tmp_path, capsys):
    path = written(tmp_path / "a.csv", a=["1.5", "-2.25"] * 20, b=["x", "y"] * 20)
    (tmp_path / "t.toml").write_text("a = integer")
    assert main(["data", "check", str(path), "--columns", str(tmp_path / "t.toml")]) == 2
    assert f"columns = '{tmp_path / 't.toml'}': is not TOML" in capsys.readouterr().err


def test_only_columns_that_the_user_did_not_leave_out_are_noted(tmp_path):
    path = written(tmp_path / "a.csv", a=["1.5", "-2.25"] * 20, b=["x", "y"] * 20, c=["1"] * 40)
    spec = load_data(path, ReadOptions(columns={"b": "leave out"})).spec
    assert [one.name for one in spec.table.left_out] == ["b", "c"]
    assert spec.doubts[0].startswith("columns left out: 'c' (constant")
    columns = {"b": "leave out", "c": "leave out"}
    assert not any("left out" in doubt for doubt in load_data(path, ReadOptions(columns=columns)).spec.doubts)


def test_options_that_change_nothing_for_a_table_are_refused(tmp_path):
    path = written(tmp_path / "a.csv", a=text(RNG.normal(size=40)), b=["x", "y"] * 20)
    for options, says in (
        ({"missing": True}, "--missing is for"),
        ({"levels": 9}, "--levels is for"),
        ({"labels": "c"}, "has no column 'c'; --labels may be 'a', 'b'"),
        ({"group": "c"}, "has no column 'c'; --group may be 'a', 'b'"),
    ):
        refused(path, says, **options)
    np.save(tmp_path / "a.npy", RNG.normal(size=(40, 2)))
    refused(tmp_path / "a.npy", "--columns is for a table but DATA is a single array", columns='x0 = "count"')
    assert load_data(path, ReadOptions(labels="b")).spec.classes is None  # a table has no labels beside its columns


def test_pixels_remain_a_matrix(tmp_path):
    pixels = RNG.integers(0, 256, (40, 64))
    np.savetxt(tmp_path / "a.csv", pixels, "%d", ",", header=",".join(f"p{i}" for i in range(64)), comments="")
    reading = read_all(tmp_path / "a.csv")
    assert (reading.layout, reading.levels) == ("vector", 256)
    assert any("taken for pixels; --layout table reads a table" in note for note in reading.notes)
    np.testing.assert_array_equal(reading.values, pixels)
    assert read_all(tmp_path / "a.csv", layout="table").table is not None
