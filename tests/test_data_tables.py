"""Tables: the types of columns, the matrix and back, sources with types, new data by a run's columns, wishes."""

import datetime

import numpy as np
import pytest
from data_files import days, read_all, text, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jensen.data.check import check
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.data.table.column import Table
from jensen.data.table.matrix import decode
from jensen.data.table.write import write_table
from jensen.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")

RNG = np.random.default_rng(0)
N = 600


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
    "times": ([f"{i * 7 % 24:02}:{i % 60:02}" for i in range(N)], "datetime", "whole"),
    "an hour from Greenwich": ([f"{day}T10:00:00+01:00" for day in days(N, "%Y-%m-%d")], "datetime",
                               "whole codes whole"),
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
    "discount": ([f"{i}%" for i in range(N)], "numbers with '%', such as '0%': write the numbers alone"),
    "price": ([f"$ {i}.50" for i in range(N)], "numbers with '$', such as '$ 0.50': write the numbers alone"),
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
    assert reading.doubts == ()
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


def test_no_cell_is_written_below_0_unless_the_source_has_one(tmp_path):
    rng = np.random.default_rng(0)
    money = 2760 + 10 * rng.integers(0, 10**8, N)
    path = written(
        tmp_path / "a.csv", money=text(money), real=text(rng.random(N)), debt=text(rng.normal(size=N)),
        day=[f"2020-01-{1 + number % 28:02}" for number in range(N)],
    )  # fmt: skip
    table = load_data(path).spec.table
    assert [field.law for field in table.fields[:3]] == ["real"] * 3
    row = decode(np.array([[-50_712.0, -0.5, -0.5, -3.0, 2.0]]), table).to_pylist()[0]
    assert row == {"money": 0, "real": 0.0, "debt": -0.5, "day": datetime.date(2020, 1, 1)}
    read = decode(np.array([[-50_710.0, -0.5, -0.5, 0.0, 2.0]]), table, as_read=True).to_pylist()[0]
    assert (read["money"], read["real"]) == (-50_710, -0.5)


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


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
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


def test_the_share_of_missing_cells_counts_a_date_once(tmp_path):
    moments = [f"2020-0{i % 9 + 1}-{i % 28 + 1:02} {i % 24:02}:{i * 7 % 60:02}:00" for i in range(80)]
    path = written(tmp_path / "a.csv", when=moments, size=["", "x", "y", "z"] * 20)
    report = check(path)
    assert len(report.table.fields) > 2
    assert report.facts["types"].endswith("; 12.5% of all cells are missing")


def test_equal_rows_of_few_rounded_columns_are_no_fault(tmp_path):
    """Rows of one to three rounded numbers repeat by chance; those of four do not."""
    columns = {name: text(RNG.integers(0, 3, 400) + 0.5) for name in "abcd"}
    for count in (1, 2, 3, 4):
        notes = check(written(tmp_path / "a.csv", **dict([*columns.items()][:count]))).notes
        assert any("are also training examples" in note for note in notes) == (count == 4)
