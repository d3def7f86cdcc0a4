"""Text files of tables: every form is read, what is malformed is refused in a line with its row and column."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_files import assert_read_or_refused, read_all, refused
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HEADER = "size,weight,colour\n"
ROWS = "".join(f"{i % 7},{i * 37 % 100 / 4},{'red' if i % 3 else 'blue'}\n" for i in range(40))
GOOD = HEADER + ROWS
NONE_LEFT = "no column can be modelled"


def with_row(number: int, line: str) -> str:
    """The good file with another row `number`, counted as a spreadsheet counts."""
    lines = GOOD.splitlines()
    lines[number - 1] = line
    return "\n".join(lines) + "\n"


def word(cell: str) -> tuple[str, str]:
    """The good file with a cell that is no number among the weights, and how it is refused."""
    shown = cell.strip('"').replace("$", r"\$").replace("+", r"\+").replace("*", r"\*").replace(".", r"\.")
    return with_row(15, f"1,{cell},red"), f"row 15, column 'weight': holds '{shown}', but the other cells are numbers"


MALFORMED = {
    "no bytes": ("", "holds no cells; expected a row with the names"),
    "only spaces": ("   \n \n", "holds no cells"),
    "only new lines": ("\n\n\n", "holds no cells"),
    "only delimiters": (",,,\n,,,\n", "holds no cells"),
    "only names": ("a,b,c\n", "holds one row, the names of columns"),
    "only names, the last of them open": ('a,b,"c\n', "row 1 opens a quote that is never closed"),
    "a short row": (with_row(9, "1,2"), "row 9 has 2 cells but there are 3 columns, divided by ','; add the cells"),
    "a long row": (with_row(9, "1,2,red,4"), "row 9 has 4 cells but there are 3 columns.* put cells that hold ','"),
    "a delimiter without quotes": (with_row(12, "1,2,dark, red"), "row 12 has 4 cells"),
    "a decimal comma in a row": (with_row(12, "1,2,5,red"), "row 12 has 4 cells"),
    "an open quote": (with_row(20, '1,2,"red'), "row 20 opens a quote that is never closed"),
    "an open quote at the end": (GOOD + '1,2,"red', "row 42 opens a quote"),
    "a title": ("My data\n" + GOOD, "row 1 has 1 cell and the rows below have 3"),
    "two delimiters": (HEADER + ROWS.replace(",", ";"), "row 1 has 1 cell and the rows below have 3, divided by ';'"),
    "two tables": (GOOD + "\n\nname,total\nx,3\n", "row 44 has 2 cells"),
    "a row of totals": (GOOD + "total,,\n", "row 42, column 'size': holds 'total'"),
    "a word": word("heavy"),
    "a date": word("2020-01-01"),
    "a unit": word("12kg"),
    "a percent sign": word("12%"),
    "a currency": word("$12"),
    "infinity": word("inf"),
    "minus infinity": word("-Infinity"),
    "a hexadecimal number": word("0x1F"),
    "an underscore": word("1_000"),
    "two points": word("1.2.3"),
    "two numbers": word("1 2"),
    "a limit of detection": word("<0.1"),
    "an error of a spreadsheet": word("#DIV/0!"),
    "a formula": word("=A1*B2"),
    "a typographic minus": word("−5"),
    "digits of another script": word("٣"),
    "wide digits": word("１２"),
    "a comma in quotes": word('"1,5"'),
    "a number beyond float64": (with_row(15, "1,1e400,red"), "row 15, column 'weight': holds an infinite number"),
    "a zero byte": (with_row(15, "1,2,re\0d"), "row 15 holds a zero byte"),
    "zero bytes at the end": (GOOD + "\0\0\0", "row 42 holds a zero byte"),
    "no text": (bytes(range(256)) * 4, "is not text in UTF-8 .byte 0x80"),
    "a byte of no character": (with_row(41, "1,2,r").encode()[:-1] + b"\x81\n", "byte 0x81 in row 41"),
    "half a UTF-16 character": (GOOD.encode("utf-16")[:-1], "is not sound UTF-16"),
    "UTF-32": (GOOD.encode("utf-32"), "row 1 holds a zero byte"),
    "HTML": ("<html><body>\n<table><tr><td>1</td></tr></table>\n</html>\n", NONE_LEFT),
    "JSON lines": ('{"a": 1}\n{"a": 2}\n', NONE_LEFT),
    "Markdown": ("| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n", NONE_LEFT),
    "only missing cells": ("a,b\n" + "NA,NA\n" * 9, NONE_LEFT + r" \('a': every cell is missing"),
    "only constants": ("a,b\n" + "1,x\n" * 9, NONE_LEFT + r" \('a': constant: every cell is 1"),
    "only identifiers": ("a,b\n" + "".join(f"{i},w{i * 7}\n" for i in range(40)), NONE_LEFT + ".* counts the rows"),
    "a cell of 200,000 characters": (with_row(15, '1,2,"' + "x\n" * 100_000), "row 15 (is not sound|opens a quote)"),
    "999 of 1,000 cells": (",".join(f"c{i}" for i in range(1000)) + "\n" + "1," * 998 + "1\n", "row 2 has 999 cells"),
    "a day that does not exist": (
        "when\n" + "".join(f"2020-01-{i % 28 + 1:02}\n" for i in range(40)) + "2020-02-30\n",
        "row 42, column 'when': holds '2020-02-30', but the other cells are dates of the format %Y-%m-%d",
    ),
    "a date of another form": (
        "when,x\n" + "".join(f"{i % 28 + 1:02}/{i % 12 + 1:02}/2020,{i % 3}\n" for i in range(40)) + "2020-02-03,1\n",
        "row 42, column 'when': holds '2020-02-03', but the other cells are dates of the format %d/%m/%Y",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_table_is_refused_in_a_line(tmp_path, case):
    content, says = MALFORMED[case]
    (tmp_path / "a.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert refused(tmp_path / "a.csv", says).startswith(f"{tmp_path / 'a.csv'}: ")


def as_read(path: Path, content: str | bytes) -> list[list[float]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_all(path).values.tolist()


FORMS = {
    "tabs": GOOD.replace(",", "\t"),
    "semicolons": GOOD.replace(",", ";"),
    "bars": GOOD.replace(",", "|"),
    "several spaces": GOOD.replace(",", "   "),
    "decimal commas": GOOD.replace(",", ";").replace(".", ","),
    "quotes everywhere": "".join(f"\"{line}\"\n".replace(",", "\",\"") for line in GOOD.splitlines()),
    "spaces around": GOOD.replace(",", " , "),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "UTF-16": GOOD.encode("utf-16"),
    "Windows lines": GOOD.replace("\n", "\r\n"),
    "old Mac lines": GOOD.replace("\n", "\r"),
    "mixed lines": GOOD.replace("\n", "\r\n", 20),
    "no last new line": GOOD[:-1],
    "blank lines": GOOD.replace("\n", "\n\n"),
    "sep": "sep=;\n" + GOOD.replace(",", ";"),
    "comments": "# measured\n# by me\n" + GOOD,
    "a last delimiter": GOOD.replace("\n", ",\n"),
    "a last delimiter below the names": HEADER + ROWS.replace("\n", ",\n"),
    "an index of pandas": "," + HEADER + "".join(f"{i},{line}\n" for i, line in enumerate(ROWS.splitlines())),
    "row names of R": HEADER + "".join(f'"r{i}",{line}\n' for i, line in enumerate(ROWS.splitlines())),
    "no names": ROWS,
    "names in Windows-1252": GOOD.replace("colour", "Größe").encode("cp1252"),
    "two equal names": GOOD.replace("weight", "size"),
    "plus signs": HEADER + "".join(f"+{line}\n" for line in ROWS.splitlines()),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_text_file_is_read(tmp_path, form):
    """The same numbers, whatever the delimiter, the lines, the characters and the cells around them."""
    assert as_read(tmp_path / "a.csv", FORMS[form]) == as_read(tmp_path / "b.csv", GOOD)


@pytest.mark.parametrize(
    ("form", "names", "note"),
    [
        ("no names", ["column 1", "column 2", "column 3"], "the first row holds cells and no names"),
        (
            "two equal names",
            ["size", "size.1", "colour"],
            "two columns are called 'size'; column 2 is read as 'size.1'",
        ),
        ("names in Windows-1252", ["size", "weight", "Größe"], "is read as Windows-1252"),
        ("UTF-16", ["size", "weight", "colour"], "the file is in UTF-16"),
        ("comments", ["size", "weight", "colour"], "2 lines at the top that begin with # are passed over"),
    ],
)
def test_what_was_guessed_is_noted(tmp_path, form, names, note):
    (tmp_path / "a.csv").write_bytes(FORMS[form] if isinstance(FORMS[form], bytes) else FORMS[form].encode())
    reading = read_all(tmp_path / "a.csv")
    assert [column.name for column in reading.table.columns] == names
    assert any(note in line for line in reading.doubts)


def test_blank_lines_count_as_rows(tmp_path):
    (tmp_path / "a.csv").write_text(with_row(15, "1,heavy,red").replace("\n", "\n\n", 5))
    refused(tmp_path / "a.csv", "row 20, column 'weight': holds 'heavy'")
    (tmp_path / "a.csv").write_text(GOOD.replace("\n", "\n\n", 5))
    assert [read_all(tmp_path / "a.csv").names(row) for row in (0, 5)] == ["row 3", "row 12"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('x\n"1,200"\n"1,300"\n900\n', [1200, 1300, 900]),
        ("x;y\n1.200,5;a\n1.300,25;b\n900,5;a\n", [1200.5, 1300.25, 900.5]),
        ('x,y\n"1,5",a\n"2,25",b\n"3",a\n', [1.5, 2.25, 3]),
    ],
)
def test_thousands_and_decimal_commas(tmp_path, text, values):
    (tmp_path / "a.csv").write_text(text)
    reading = read_all(tmp_path / "a.csv", columns='x = "continuous"')
    assert reading.values[:, 0].tolist() == values


@pytest.mark.parametrize(
    ("first", "below", "names"),
    [
        ("country,2010,2011", ["a,1.5,2.5", "b,3.25,0.5"], ["country", "2010", "2011"]),
        ("red,small,1.5", ["blue,large,2.5", "red,small,0.5"], None),
        ("colour,size", ["blue,large", "red,small"], ["colour", "size"]),
        ("red,small", ["blue,large", "red,small"], None),
        ("1.5,2.5", ["0.25,0.5", "4.5,1.25"], None),
        ("a,2", ["1.5,2.5", "0.5,1.25"], ["a", "2"]),
        (",".join(map(str, range(12))), [",".join(["1.5"] * 12), ",".join(["0.5"] * 12)], [*map(str, range(12))]),
    ],
)
def test_the_first_row_is_names_or_cells(tmp_path, first, below, names):
    (tmp_path / "a.csv").write_text("\n".join([first, *below * 20]))
    found = read_all(tmp_path / "a.csv", layout="table").table.columns
    assert [column.name for column in found] == (names or [f"column {place + 1}" for place in range(len(found))])


def test_dates_that_may_be_of_two_forms(tmp_path):
    """The order of the rows decides, where the cells do not."""
    for cells, form, why in (
        ([f"{1 + i // 12:02}/{1 + i % 12:02}/2020" for i in range(120)], "%m/%d/%Y", "taken as %m/%d/%Y, because"),
        ([f"{1 + i % 12:02}/{1 + i // 12:02}/2020" for i in range(120)], "%d/%m/%Y", "taken as %d/%m/%Y, because"),
        ([f"{1 + i * 7 % 12:02}/{1 + i * 5 % 12:02}/2020" for i in range(120)], "%m/%d/%Y", "%m/%d/%Y; --columns"),
        ([f"{1 + i * 7 % 28:02}/{1 + i * 5 % 12:02}/2020" for i in range(120)], "%d/%m/%Y", None),
    ):
        (tmp_path / "a.csv").write_text("when\n" + "\n".join(cells))
        reading = read_all(tmp_path / "a.csv")
        assert reading.table.columns[0].format == form
        assert [why in line for line in reading.doubts] == ([True] if why else [])


def test_cells_in_quotes_hold_delimiters_quotes_and_lines(tmp_path):
    cells = ["a,b", 'say "no"', "two\nlines", " x "] * 10
    quoted = "".join('"' + cell.replace('"', '""') + f'",{i % 4}\n' for i, cell in enumerate(cells))
    (tmp_path / "a.csv").write_text("cell,number\n" + quoted)
    assert sorted(read_all(tmp_path / "a.csv").table.columns[0].values) == ["a,b", 'say "no"', "two\nlines", "x"]
    (tmp_path / "a.csv").write_text("cell,number\n" + quoted + "x,1,2\n")
    refused(tmp_path / "a.csv", "row 42 has 3 cells")  # a spreadsheet counts rows, not lines


def test_a_file_of_names_alone_is_refused_before_pyarrow_reads_it(tmp_path):
    """Its threads abort about half of the processes that end after such a file, so its reader is not even imported."""
    (tmp_path / "a.csv").write_text("a,b,c\n")
    program = (
        "import sys; from pathlib import Path\n"
        "from jensen.data.table.text import read_text; from jensen import errors\n"
        "try: read_text(Path(sys.argv[1]))\n"
        "except errors.InputError as error: print('holds one row' in str(error), 'pyarrow.csv' in sys.modules)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.csv"], capture_output=True, text=True, check=False
    )
    assert (ended.stdout, ended.returncode) == ("True False\n", 0)


def test_a_thousand_columns(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(20, 1000))
    names = ",".join(f"c{i}" for i in range(1000))
    np.savetxt(tmp_path / "a.csv", numbers, "%.6g", ",", header=names, comments="")
    np.testing.assert_allclose(read_all(tmp_path / "a.csv").values, numbers, rtol=1e-5)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    place=st.integers(0, len(GOOD)),
    removed=st.integers(0, 8),
    content=st.one_of(st.binary(max_size=6), st.text('",;\n\r\t#é0.-e ', max_size=6).map(str.encode)),
)
def test_no_damage_ends_in_another_error(tmp_path, place, removed, content):
    damaged = GOOD.encode()[:place] + content + GOOD.encode()[place + removed :]
    (tmp_path / "a.csv").write_bytes(damaged)
    assert_read_or_refused(tmp_path / "a.csv")


@settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text('ab,;"\n\r\t .1', max_size=60))
def test_no_text_ends_in_another_error(tmp_path, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert_read_or_refused(tmp_path / "a.csv")
