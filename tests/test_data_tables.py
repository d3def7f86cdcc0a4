"""Tables: the types of columns, the matrix and back, sources with types, new data by a run's columns, wishes."""

import csv
import json
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from data_files import read_all, refused, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jensen.cli import main
from jensen.data.check import check
from jensen.data.load import load_again, load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.data.spec import DataSpec
from jensen.data.table.column import Table
from jensen.data.table.frames import like
from jensen.data.table.matrix import decode, encode
from jensen.data.table.write import write_table
from jensen.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
N = 600


def text(values) -> list[str]:
    return [str(value) for value in values]


def written(path: Path, **columns: list[str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def days(count: int, form: str) -> list[str]:
    return [day.strftime(form) for day in pandas.Timestamp("2019-03-04") + pandas.to_timedelta(range(count), "D")]


POISSON = RNG.poisson(RNG.gamma(0.5, 6, N))
TYPES = {
    "real": (text(np.round(RNG.normal(size=N), 5)), "continuous", "real"),
    "float64 in full": (text(RNG.normal(size=N)), "continuous", "real"),
    "exponents": ([f"{value:.3e}" for value in RNG.lognormal(0, 9, N)], "continuous", "real"),
    "whole": (text(RNG.integers(100, 900, N)), "integer", "whole"),
    "whole as 1.0": ([f"{value}.0" for value in RNG.integers(100, 900, N)], "integer", "whole"),
    "tenths, repeated": (text(np.round(RNG.normal(37, 1, N), 1)), "integer", "whole"),
    "hundreds": (text(100 * RNG.integers(1, 90, N)), "integer", "whole"),
    "codes 1 to 5": (text(RNG.integers(1, 6, N)), "integer", "codes"),
    "codes 1 and 2": (text(RNG.integers(1, 3, N)), "categorical", "codes"),
    "0 and 1": (text(RNG.integers(0, 2, N)), "boolean", "codes"),
    "a very wide range": (text(RNG.integers(-(10**9), 10**9, N)), "integer", "real"),
    "counts with many zeros": (text(POISSON), "count", "count"),
    "whole but for mistakes": (text([1.1, *RNG.integers(0, 60, N - 1).astype(float)]), "ordinal", "whole"),
    "few uneven numbers": (text(RNG.choice([0.021277, 0.5, 0.744681, 1.0], N)), "ordinal", "codes"),
    "far apart": (text(RNG.choice([1, 17, 94103, 10_001], N)), "ordinal", "codes"),
    "yes and no": (text(RNG.choice(["yes", "no"], N)), "boolean", "codes"),
    "True and False": (text(RNG.integers(0, 2, N) == 1), "boolean", "codes"),
    "words": (text(RNG.choice(["red", "green", "none"], N)), "categorical", "codes"),
    "codes with zeros before": ([f"{value:05}" for value in RNG.integers(0, 40, N)], "categorical", "codes"),
    "1 to 4+": (text(RNG.choice(["1", "2", "3", "4+"], N, p=[0.5, 0.3, 0.15, 0.05])), "categorical", "codes"),
    "a scale": (text(RNG.choice(["Low", "Medium", "High"], N)), "ordinal", "codes"),
    "weekdays": (text(RNG.choice(["Tue", "Mon", "Fri"], N)), "ordinal", "codes"),
    "one value or nothing": (text(RNG.choice(["x", ""], N)), "categorical", "codes"),
    "days": (days(N, "%Y-%m-%d"), "datetime", "whole codes"),
    "days first": (days(N, "%d/%m/%Y"), "datetime", "whole codes"),
    "eight digits": (days(N, "%Y%m%d"), "datetime", "whole codes"),
    "months in words": (days(N, "%d %b %Y"), "datetime", "whole codes"),
    "minutes": ([f"{day}T12:{i % 60:02}:00Z" for i, day in enumerate(days(N, "%Y-%m-%d"))], "datetime",
                "whole codes whole"),
    "half days": ([f"{day} {'11:30 PM' if i % 3 else '6:05 AM'}" for i, day in enumerate(days(N, "%-m/%-d/%Y"))],
                  "datetime", "whole codes whole"),
    "years": (text(RNG.integers(1990, 2010, N)), "integer", "codes"),
}  # fmt: skip
LEFT_OUT = {
    "constant": (["7"] * N, "constant: every cell is 7"),
    "constant text": (["a"] * N, "constant: every cell is 'a'"),
    "empty": (["", "NA", "nan"] * (N // 3), "every cell is missing"),
    "counts up": (text(range(5, N + 5)), "identifier: counts the rows from 5 to 604"),
    "in any order": (text(RNG.permutation(N)), "identifier: counts the rows"),
    "customer_id": (text(RNG.permutation(10 * N)[:N]), "identifier: a different number in every row"),
    "name": ([f"w{i * 7}" for i in range(N)], "identifier: a different text in every row"),
    "comment": ([f"this is the {i}th comment" for i in range(N)], "free text: 600 different values"),
    "street": ([f"s{i // 2}" for i in range(N)], "text: 300 different values on 600 rows, too few rows of each"),
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("gaps", [False, True])
def test_the_type_is_the_one_that_a_statistician_would_choose(tmp_path, name, gaps):
    """With missing cells the type is the same; what is written is the file that was read, cell by cell."""
    cells, kind, laws = TYPES[name]
    blank = "NA" if "" not in cells else ""
    cells = [blank if gaps and i % 9 == 4 else cell for i, cell in enumerate(cells)]
    path = written(tmp_path / "a.csv", column=cells, other=["a", "b"] * (N // 2))
    reading = read_all(path)
    table = reading.table
    column = table.columns[0]
    assert (column.type, " ".join(table.fields[place].law for place in table.fields_of(0))) == (kind, laws), column.why
    assert column.missing == (blank in cells)
    assert Table.model_validate_json(table.model_dump_json()) == table
    write_table(decode(reading.values, table), tmp_path / "b.csv", table)
    assert (tmp_path / "b.csv").read_text() == path.read_text()


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_cannot_be_modelled_is_left_out_by_name(tmp_path, name):
    cells, why = LEFT_OUT[name]
    path = written(tmp_path / "a.csv", **{name: cells}, other=["a", "b"] * (N // 2))
    spec = load_data(path).spec
    assert spec.table.left_out[0].name == name
    assert spec.table.left_out[0].why.startswith(why)
    assert spec.doubts[0].startswith(f"columns left out: {name!r} ({why}")
    assert load_data(path, ReadOptions(columns=f'"{name}" = "leave out"')).spec.table.left_out[0].why == "by --columns"


def test_the_matrix_has_the_stated_codes(tmp_path):
    """The four laws and the parts of a datetime, computed by hand."""
    path = written(
        tmp_path / "a.csv",
        step=text([10, 30, 20, 50, 40] * 40),
        word=["b", "a", "", "b", "c"] * 40,
        real=text([0.5, -1.25, 3, 7.75, 2] * 40),
        when=["1970-01-01 06:00", "1970-01-05 00:00", "1970-01-04 23:00", "1971-01-01 12:00", "1970-01-01 06:00"] * 40,
    )
    reading = read_all(path, columns='real = "continuous"')
    assert [field.name for field in reading.table.fields] == [
        "step", "word", "real", "when: week", "when: weekday", "when: second of day"
    ]  # fmt: skip
    np.testing.assert_array_equal(
        reading.values[:5],
        [  # 1970-01-01 was a Thursday; times are in hours
            [0, 1, 0.5, 0, 3, 6],
            [2, 0, -1.25, 1, 0, 0],
            [1, np.nan, 3, 0, 6, 23],
            [4, 1, 7.75, 52, 4, 12],
            [3, 2, 2, 0, 3, 6],
        ],
    )
    assert [field.levels for field in reading.table.fields] == [5, 3, None, 53, 7, 24]
    assert [field.missing for field in reading.table.fields] == [False, True, False, False, False, False]


# ---------------------------------------------------------------------------------------------- written and read again

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zs", "Zl", "Zp", "Cn", "Co"]), max_size=5)
CATEGORIES = st.lists(WORDS.filter(lambda word: word.strip() == word and word), min_size=2, max_size=4, unique=True)


@st.composite
def columns(draw) -> list[str]:
    """A column of 40 cells of any kind, some of them missing."""
    kind = draw(st.sampled_from(["numbers", "text", "dates"]))
    if kind == "numbers":
        places, width = draw(st.integers(0, 4)), draw(st.integers(1, 7))
        values = draw(st.lists(st.integers(-(10**width), 10**width), min_size=3, max_size=40))
        cells = [f"{value / 10**places:.{places}f}" for value in values]
        if draw(st.booleans()):
            cells = [f"{float(cell):g}" if abs(float(cell)) < 1e6 else cell for cell in cells]
    elif kind == "dates":
        form = draw(st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y %H:%M", "%Y-%m-%dT%H:%M:%S", "%d %B %Y"]))
        cells = [moment.strftime(form) for moment in draw(st.lists(st.datetimes(pandas.Timestamp(1950, 1, 1),
                 pandas.Timestamp(2040, 1, 1)), min_size=3, max_size=40))]  # fmt: skip
    else:
        cells = draw(CATEGORIES) + draw(st.sampled_from([[","], ['say "x"'], ["a\nb"], [";"], ["é"]]))
    gap = draw(st.sampled_from([None, "", "NA", "nan", "?"]))
    return [gap if gap is not None and i % 7 == 3 else cells[i % len(cells)] for i in range(40)]


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=st.lists(columns(), min_size=1, max_size=4))
def test_a_written_table_read_again_is_the_same_table(tmp_path, cells):
    path = written(tmp_path / "a.csv", **{f"c{i}": column for i, column in enumerate(cells)})
    try:
        reading = read_all(path)
    except InputError:  # numbers among words
        return
    write_table(decode(reading.values, reading.table), tmp_path / "b.csv", reading.table)
    again = read_all(tmp_path / "b.csv")
    plain = {"left_out": (), "delimiter": ","}  # of a single column without the others, the delimiter may be none
    assert again.table.model_copy(update=plain) == reading.table.model_copy(update=plain)
    np.testing.assert_array_equal(again.values, reading.values)


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


def test_scikit_learns_data_sets_are_frames_in_memory():
    from sklearn.datasets import load_iris, load_wine

    iris = load_data(load_iris(as_frame=True).frame).spec.table
    assert [column.type for column in iris.columns] == ["integer"] * 5  # tenths of centimetres, and three codes
    assert iris.fields[-1].law == "codes"
    assert len(load_data(load_wine(as_frame=True).frame).spec.table.columns) == 14


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


def test_cells_beyond_the_range_are_counted_in_a_note(tmp_path, run):
    new = written(tmp_path / "new.csv", **(ROW | {"age": ["99"]}))
    with pytest.warns(UserWarning, match="column 'age': 1 of 1 cells lie beyond the range of the training rows"):
        examples = read_examples(new, run)
    assert examples.x[0, 0] == run.table.fields[0].levels - 1


def test_a_missing_cell_is_read_where_it_is_asked_for(tmp_path, run):
    new = written(tmp_path / "new.csv", **(ROW | {"age": ["?"], "town": [""], "born": ["NA"]}))
    assert np.isnan(read_examples(new, run, missing=True).x.numpy()).tolist() == [[True, False, True, True, True]]


def test_changed_cells_change_the_fingerprint(tmp_path, run):
    path = Path(run.source)
    path.write_text(path.read_text().replace("Bern", "Biel"))
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
    assert main(["data", "check", str(path), "--write-columns", str(types)]) == 2  # the file exists
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
    assert [column.type for column in table.columns] == [
        "categorical", "ordinal", "categorical", "datetime", "continuous"
    ]  # fmt: skip
    assert table.columns[1].values == ("C", "B", "A")
    assert table.columns[2].missing
    assert table.columns[3].format == "%d/%m/%Y"


@pytest.mark.parametrize(
    ("wish", "says"),
    [
        ("nowhere.toml", "--columns nowhere.toml: cannot be read"),
        ("a = integer", "--columns: is not TOML"),
        ('a = "number"', "--columns: a is of the unknown type 'number'; expected one of continuous, integer"),
        ("a = 3", "--columns: a = 3 is not understood"),
        ('a = { format = "%Q" }', "--columns: the format of a is '%Q'"),
        ('a = ["x", "x"]', "--columns: values of a is ..x., .x..; expected a list of different texts"),
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


# ---------------------------------------------------------------------------------------------- six real tables

REAL = {
    "beijing": "integer integer integer integer integer integer ordinal ordinal categorical integer count count",
    "credit_g": "categorical integer categorical categorical integer categorical categorical integer categorical "
    "categorical integer categorical integer categorical categorical integer categorical categorical categorical "
    "boolean categorical",
    "default": "ordinal categorical integer integer integer " + "integer " * 18 + "boolean",
    "electricity": "ordinal integer ordinal continuous continuous continuous continuous continuous categorical",
    "kc1": "ordinal ordinal ordinal ordinal ordinal continuous integer continuous continuous continuous integer "
    "continuous count count count count ordinal ordinal ordinal ordinal ordinal boolean",
    "phoneme": "continuous continuous continuous continuous continuous categorical",
}


@pytest.mark.parametrize("name", REAL)
def test_real_tables_have_the_types_that_a_statistician_would_choose(tmp_path, shared_data, name):
    path = shared_data / "tables" / f"{name}.csv"
    if not path.exists():
        pytest.skip("the six tables are not here")
    reading = read_all(path)
    table = reading.table
    assert [column.type for column in table.columns] == REAL[name].split()
    assert [one.name for one in table.left_out] == (["No"] if name == "beijing" else [])
    write_table(decode(reading.values, table), tmp_path / "b.csv", table)
    if name != "beijing":
        assert (tmp_path / "b.csv").read_bytes() == path.read_bytes().replace(b"\r\n", b"\n")


def test_the_lines_of_a_check(tmp_path):
    path = written(tmp_path / "a.csv", a=text(RNG.normal(size=50)), b=["x", "", "y", "none", "x"] * 10, c=["1"] * 50)
    report = check(path)
    assert report.lines()[1:4] == [
        "kind         table", "rows         50", "types        1 continuous, 1 categorical; 1 left out; 10.0% of all "
        "cells are missing",
    ]  # fmt: skip
    assert "             b  categorical  20.0% missing  text with 3 different values" in report.lines()
    assert "             c  left out                    constant: every cell is 1" in report.lines()
    assert any("'none' is taken for a value" in note for note in report.notes)
