"""The verbs on tables: what comes out has the columns and the cells of what went in."""

import csv
import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch

import jensen
from jensen.cli import main
from jensen.data.examples import Examples
from jensen.data.load import load_data
from jensen.data.readers.read import read_cells
from jensen.errors import InputError
from jensen.evaluation.columns import IndependentColumns, column_bounds
from jensen.evaluation.table_baselines import best_mixture, table_baselines
from jensen.inference.predict_column import predict_numbers, target_column
from jensen.inference.row_scores import RowScores, score_cells
from jensen.inference.rows import seen_rows
from jensen.recipe.vae.settings import VAERecipe
from jensen.report.further import further_records, further_sections

pytestmark = pytest.mark.filterwarnings("default")  # of columns left out, of atoms, of few draws
NAMES = ["age", "sex", "town", "pay", "since"]
GIVEN = {"age": 40, "sex": "F"}


def people(count: int = 150) -> pandas.DataFrame:
    """Rows with a number, dates, categories with missing cells, a real number with an atom, and a column of keys."""
    rng = np.random.default_rng(0)
    age = rng.integers(18, 60, count)
    pay = np.where(rng.random(count) < 0.2, 0, (rng.lognormal(7, 0.5, count) * age).round(2))
    return pandas.DataFrame(
        {
            "key": [f"k{number:04d}" for number in range(count)],
            "age": age,
            "sex": rng.choice(["F", "M"], count),
            "town": rng.choice(["Bern", "Thun", None], count, p=[0.5, 0.3, 0.2]),
            "pay": pay,
            "since": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(rng.integers(0, 99, count), "D"),
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> jensen.Run:
    folder = tmp_path_factory.mktemp("people")
    people().to_csv(folder / "people.csv", index=False)
    training = {"steps": 15, "batch_size": 32, "validate_every": 15}
    model = {"width": 16, "depth": 1, "latent_dims": 2, "fit_steps": 2}
    recipe = VAERecipe.model_validate({"data": str(folder / "people.csv"), "model": model, "training": training})
    return jensen.train(recipe, folder / "run")


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def told(words: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    """The single line with which a command refuses."""
    assert main([str(word) for word in words]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("jensen: ")
    return line


# ---------------------------------------------------------------------------------------------- sample


def test_samples_are_rows_like_those_of_the_training_file(
    run: jensen.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for ending in ("csv", "tsv", "parquet", "arrow"):
        assert main(["sample", str(run.folder), "--n", "40", "--out", str(tmp_path / f"more.{ending}")]) == 0
    more = pandas.read_csv(tmp_path / "more.csv")
    said = capsys.readouterr()
    assert "more.csv: 40 rows" in said.out
    assert "the rows do not have the columns that were left out: 'key' (identifier" in said.err
    assert list(more.columns) == NAMES
    assert set(more.sex) == {"F", "M"}
    assert set(more.town.dropna()) == {"Bern", "Thun"}
    assert more.town.isna().any()
    assert (more.pay == 0).any()
    assert more.age.between(18, 59).all()
    assert more.since.str.fullmatch(r"\d{4}-\d\d-\d\d").all()
    for other in (pandas.read_parquet(tmp_path / "more.parquet"), pandas.read_csv(tmp_path / "more.tsv", sep="\t")):
        assert (other.age == more.age).all()
    source = read_cells(tmp_path / "more.csv")
    assert source.form is not None
    assert source.form.delimiter == ","


def test_a_frame_has_the_types_of_a_given_one_and_no_row_depends_on_others(run: jensen.Run) -> None:
    own = people().drop(columns="key")
    whole, part = jensen.sample(run, 20).frame(like=own), jensen.sample(run, 5, first=10).frame(like=own)
    assert (whole.dtypes == own.dtypes).all()
    pandas.testing.assert_frame_equal(whole[10:15].reset_index(drop=True), part)


def test_given_cells_are_kept_and_rows_stay_pure_functions_of_their_index(run: jensen.Run) -> None:
    rows = jensen.sample(run, 20, given={**GIVEN, "town": None}).frame().to_pandas()
    assert (rows.age == 40).all()
    assert (rows.sex == "F").all()
    assert rows.town.isna().all()
    assert rows.pay.nunique() > 5
    part = jensen.sample(run, 5, first=10, given={**GIVEN, "town": None}).frame().to_pandas()
    pandas.testing.assert_frame_equal(rows[10:15].reset_index(drop=True), part)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("ages=40", "there is no column 'ages'; expected one of 'age', 'sex'"),
        ("key=k0001", "column 'key' was left out (identifier"),
        ("sex=X", "holds 'X', which no training row has; expected one of F, M"),
        ("age=forty", "holds 'forty', expected a number"),
        ("sex=", "no training row has an empty cell in this column"),
        ("since=soon", "expected a date of the format"),
        ("sex", "expected COLUMN=CELL"),
    ],
)
def test_impossible_cells_are_refused_in_a_line(
    run: jensen.Run, given: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problem in told(["sample", run.folder, "--given", given, "--out", tmp_path / "a.csv"], capsys)
    assert not (tmp_path / "a.csv").exists()


def test_files_that_cannot_hold_a_table_are_refused(
    run: jensen.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (
        ["sample", "--out", "a.png"],
        ["score", "--out", "a.npz"],
        ["impute", "--mask", "random:0.3", "--out", "a"],
    ):
        line = told([words[0], run.folder, *words[1:-1], tmp_path / words[-1]], capsys)
        assert "the run was trained on a table; give a file that ends in .csv, .tsv, .parquet, .arrow" in line
    assert "cells of a table have no common mean" in told(
        ["sample", run.folder, "--mean", "--out", tmp_path / "a.csv"], capsys
    )
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------- impute


@pytest.fixture
def gaps(tmp_path: Path) -> Path:
    """Ten rows with empty cells in three columns, one of them without any in training, and a column of remarks."""
    frame = people()[:10].assign(remark=[f'a, "b" {number}' for number in range(10)])
    frame.loc[[1, 4], "pay"] = None
    frame.loc[[2], "since"] = None
    frame.loc[[3, 4], "sex"] = None
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    return tmp_path / "gaps.csv"


def test_empty_cells_are_filled_and_all_others_stay_as_they_stand(run: jensen.Run, gaps: Path) -> None:
    out = gaps.with_name("filled.csv")
    assert main(["impute", str(run.folder), "--data", str(gaps), "--draws", "9", "--out", str(out)]) == 0
    before, after = (list(csv.reader(path.read_text().splitlines())) for path in (gaps, out))
    assert all(all(cell for cell in row) for row in after)
    assert [
        [new if old == "" else old for old, new in zip(*rows, strict=True)] for rows in zip(before, after, strict=True)
    ] == after
    whole = [line for line in gaps.read_text().splitlines() if ",," not in line]
    assert len(whole) > 2
    assert set(whole) < set(out.read_text().splitlines())
    cells = read(out.with_name("filled-cells.csv"))
    empty = sum(cell == "" for row in before for cell in row)
    assert len(cells) == empty
    assert {cell["name"] for cell in cells if cell["column"] == "pay"} == {"k0001", "k0004"}
    for cell in cells:
        ends = [cell[name] for name in ("low_95", "low_80", "high_80", "high_95")]
        if cell["column"] in ("sex", "town"):
            assert ends == [""] * 4
            assert float(cell["share_of_draws"]) * 9 == pytest.approx(
                round(float(cell["share_of_draws"]) * 9), abs=0.01
            )
        elif cell["column"] == "pay":
            assert sorted(map(float, ends)) == [float(end) for end in ends]
        else:
            assert sorted(ends) == ends  # dates as 2020-01-31


def test_a_text_file_becomes_a_typed_one_with_the_same_cells(run: jensen.Run, gaps: Path) -> None:
    out = gaps.with_name("typed.parquet")
    beyond = pandas.read_csv(gaps)
    beyond.loc[0, ["age", "since"]] = [77, "2031-05-01"]
    beyond.to_csv(gaps, index=False)
    assert main(["impute", str(run.folder), "--data", str(gaps), "--draws", "3", "--out", str(out)]) == 0
    typed = pandas.read_parquet(out)
    assert typed.age.tolist() == beyond.age.tolist()
    known = beyond.since.notna()
    assert (typed.since.astype(str)[known] == beyond.since[known]).all()
    assert typed.remark.tolist() == beyond.remark.tolist()


def test_frames_of_polars_go_in_and_come_out(run: jensen.Run) -> None:
    polars = pytest.importorskip("polars")
    frame = polars.from_pandas(people()[:8]).with_columns(
        polars.col("sex").cast(polars.Categorical), polars.col("since").cast(polars.Date)
    )
    gaps = frame.with_columns(pay=polars.lit(None, polars.Float64), sex=polars.lit(None, frame.schema["sex"]))
    (whole,) = jensen.impute(run, gaps, draws=3).frames(like=gaps)
    assert whole.schema == gaps.schema
    assert whole["pay"].null_count() == whole["sex"].null_count() == 0
    assert whole["key"].to_list() == frame["key"].to_list()
    assert jensen.score(run, frame, explained=1).names == frame["key"].to_list()


def test_empty_cells_of_unknown_columns_are_counted(run: jensen.Run, gaps: Path) -> None:
    frame = pandas.read_csv(gaps, parse_dates=["since"])
    frame.loc[[1, 2], "remark"] = None
    frame.loc[3, "key"] = None
    frame.to_csv(gaps, index=False)
    for data in (gaps, frame):
        found = jensen.impute(run, data, draws=2)
        with pytest.warns(UserWarning, match=r"3 empty cells stay empty, in .* not know: 'key' \(1\), 'remark' \(2\)"):
            found.frames()


def test_frames_of_pandas_keep_their_index(run: jensen.Run) -> None:
    frame = people()[::20].assign(pay=np.nan).set_index(pandas.Index(list("abcdefgh")))
    found = jensen.impute(run, frame, draws=2)
    assert found.frames(like=frame)[0].index.tolist() == list("abcdefgh")
    assert found.frames(like=frame[:3])[0].index.tolist() == list(range(8))
    assert jensen.sample(run, 8).frame(like=frame).index.tolist() == list(range(8))


def test_each_draw_fills_a_file_of_its_own(run: jensen.Run, gaps: Path) -> None:
    out = gaps.with_name("many.parquet")
    assert (
        main(["impute", str(run.folder), "--data", str(gaps), "--fill", "draw", "--draws", "3", "--out", str(out)]) == 0
    )
    frames = [pandas.read_parquet(gaps.with_name(f"many-{number}.parquet")) for number in (1, 2, 3)]
    known = pandas.read_csv(gaps)
    for frame in frames:
        assert not frame.isna().any().any()
        kept = known.pay.notna()
        assert (frame.pay[kept] == known.pay[kept]).all()
    assert len({float(frame.pay[1]) for frame in frames}) > 1
    found = jensen.impute(run, known.assign(since=pandas.to_datetime(known.since)), draws=3, fill="draw")
    assert [float(frame["pay"][1].as_py()) for frame in found.frames()] == [float(frame.pay[1]) for frame in frames]


def test_the_mask_of_a_table_hides_whole_dates_and_is_calibrated(
    run: jensen.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = jensen.impute(run, mask="random:0.4", draws=5)
    places = run.spec.table.places()[NAMES.index("since")]
    assert (found.observed[:, places[0]] == found.observed[:, places[1]]).all()
    assert found.calibration().entries > 5
    assert "--fill" in told(["impute", run.folder, "--fill", "middle", "--out", tmp_path / "a.csv"], capsys)


# ---------------------------------------------------------------------------------------------- score


def test_scores_say_which_columns_make_a_row_unlikely(run: jensen.Run, tmp_path: Path) -> None:
    odd = people()[:30]
    odd.loc[7, "pay"] = 1e9
    odd.loc[[7, 9], "age"] = 140
    odd.loc[8, "since"] = pandas.Timestamp("2031-05-01")
    odd.to_csv(tmp_path / "odd.csv", index=False)
    assert (
        main(
            [
                "score",
                str(run.folder),
                "--data",
                str(tmp_path / "odd.csv"),
                "--explained",
                "4",
                "--out",
                str(tmp_path / "s.csv"),
            ]
        )
        == 0
    )
    rows = pandas.read_csv(tmp_path / "s.csv")
    assert list(rows.columns[:5]) == ["example", "name", "bound_nats", "standard_error_nats", "least_likely"]
    assert list(rows.columns[5:]) == [f"nats: {name}" for name in NAMES]
    lowest = rows.loc[rows.bound_nats.idxmin()]
    assert lowest["name"] == "k0007"
    assert lowest.least_likely.startswith("age 140 (beyond the range); pay -")
    assert rows.least_likely[8].startswith("since 2031-05-01 (beyond the range)")
    assert rows.least_likely[9].startswith("age 140 (beyond the range)")
    scored = rows["nats: age"].notna()
    assert scored.sum() == 4
    assert rows.bound_nats[scored].max() <= rows.bound_nats[~scored].min()
    for cell in re.findall(r"(-?[\d.]+) \(usually (-?[\d.]+)\)", " ".join(rows.least_likely.dropna())):
        assert float(cell[0]) <= float(cell[1])


def test_an_empty_cell_in_a_column_without_gaps_is_integrated_out(run: jensen.Run) -> None:
    """The bound is one on the log-probability of the other cells, by quadrature over z, and no far one."""
    rows = people()[:6]
    rows["pay"], rows["sex"] = None, None
    rows.loc[::2, "age"] = None
    found = jensen.score(run, rows, draws=500, explained=2)
    raw = run.examples(rows, gaps=True).x[:]
    axis = torch.linspace(-6, 6, 241)
    z = torch.cartesian_prod(axis, axis)
    x = seen_rows(raw, run.spec, torch.arange(6), 0)
    with torch.no_grad():
        terms = run.model.decode(z[:, None]).log_prob(x).double()
    prior = -z.double().square().sum(1) / 2 - math.log(2 * math.pi) + 2 * math.log(12 / 240)
    exact = (terms + prior[:, None]).logsumexp(0) + run.spec.preparation.log_volume_of(raw)
    assert (found.bound <= exact + 4 * found.standard_error).all()  # fails by chance once in 5,000 runs of 6 rows
    assert (found.bound > exact - 0.5).all()
    assert found.columns.log_prob[:, [1, 3]].isnan().all()  # sex and pay, which no row has
    with pytest.raises(InputError, match="there is no column 'sex'"):
        jensen.score(run, rows.drop(columns="sex"))


def test_a_cell_that_is_more_likely_than_usual_is_not_named() -> None:
    log_prob = torch.tensor([[-1.29, -9.0, math.nan, -4.0]])
    scores = RowScores(("x", "age", "town", "pay"), log_prob, 0 * log_prob, torch.tensor([-1.38, -3.0, -1.0, -3.5]))
    assert [cell.column for cell in scores.unusual(0)] == ["age", "pay"]


def test_a_score_of_a_column_is_the_density_that_predict_gives(run: jensen.Run) -> None:
    rows, field = torch.arange(15), target_column(run.spec.table, "pay")
    found = predict_numbers(run.model, run.examples(), run.spec, field, draws=50, index=rows)
    scores = score_cells(run.model, run.examples().x[rows], run.spec, draws=50, index=rows)
    torch.testing.assert_close(found.log_density, scores.log_prob[:, NAMES.index("pay")])


# ---------------------------------------------------------------------------------------------- evaluate


def test_the_terms_of_the_columns_add_up_to_the_reconstruction(run: jensen.Run, tmp_path: Path) -> None:
    settings = jensen.EvaluationSettings(draws=3, further_examples=2, samples=4)
    found = jensen.evaluate(run, settings=settings)
    columns = found.evaluation.columns
    assert [column.name for column in columns] == NAMES
    total = sum(column.nats.mean for column in columns)
    assert total == pytest.approx(found.evaluation.terms["reconstruction"].nats.mean, rel=1e-5)
    page = found.save(tmp_path / "page").read_text()
    assert "nats per row" in page
    assert "bits per dimension, at most" not in page
    assert "usually" in page
    assert (tmp_path / "page/pictures/columns.png").exists()
    assert json.loads((tmp_path / "page/evaluation.json").read_text())["columns"][0]["name"] == "age"


def test_the_model_of_independent_columns_is_a_distribution(run: jensen.Run) -> None:
    train, preparation = run.dataset.train, run.spec.preparation
    model, fields = IndependentColumns.fit(train, preparation), run.spec.table.fields
    raw = train.x[:1].double()
    for place, field in enumerate(fields):
        if field.levels is None:
            continue
        rows = raw.repeat(field.levels + 1, 1)
        rows[:-1, place] = torch.arange(field.levels)
        rows[-1, place] = torch.nan
        total = model.log_prob(rows)[:, place].exp()
        assert float(total[:-1].sum() + (total[-1] if field.missing else 0)) == pytest.approx(1, abs=1e-9)
    place = next(place for place, field in enumerate(fields) if field.law == "real")
    grid = torch.logspace(-6, 12, 400_001, dtype=torch.float64)
    rows = raw.repeat(len(grid), 1)
    rows[:, place] = torch.cat([-grid.flip(0)[::2], grid[::2]])[: len(grid)]
    density = model.log_prob(rows)[:, place].exp()
    atoms = model.masses[place][:-1].exp().sum()
    dense = torch.trapezoid(torch.where(rows[:, place] == 0, 0, density), rows[:, place])
    assert float(dense + atoms) == pytest.approx(1, abs=2e-3)


def test_the_mixture_of_classes_is_a_distribution_and_finds_the_classes() -> None:
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, 600)
    frame = {
        "a": np.where(rng.random(600) < 0.9, kind, 1 - kind).astype(str),
        "b": np.where(rng.random(600) < 0.9, kind, 1 - kind).astype(str),
        "c": rng.poisson(3 + 20 * kind),
        "d": rng.normal(6 * kind, 1),
    }
    data = load_data(frame)
    mixture = best_mixture(data.spec.preparation(data.train.x[:]).double(), data.spec.preparation)
    assert len(mixture.log_weights) == 2  # the dependences are strong; BIC errs with probability below 1e-6
    levels = [data.spec.table.fields[place].levels for place in range(3)]
    assert all(levels)
    grid = torch.cartesian_prod(*(torch.arange(float(level)) for level in levels))
    rows = torch.cat([grid, torch.zeros(len(grid), 1)], 1)
    steps = torch.linspace(-8, 8, 200, dtype=torch.float64)
    total = sum(
        mixture.log_prob(torch.cat([rows[:, :3], value.expand(len(rows), 1)], 1).double()).exp().sum()
        for value in steps
    )
    assert float(total * (steps[1] - steps[0])) == pytest.approx(1, abs=0.02)  # less the probability of missing cells


def test_simple_models_stand_beside_a_run(run: jensen.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    train = rng.normal(size=(400, 2)) @ np.array([[1.0, 0.9], [0.0, 0.5]])
    data = load_data({"x": train[:, 0], "y": train[:, 1]})
    found = table_baselines(data.train, data.test.x[:], data.spec.preparation)
    assert list(found)[:2] == ["independent columns", "Gaussian"]
    # 0.5 log(1 / (1 - r²)) = 0.72 nats for r = 0.87; the sd of the mean over 40 rows is about 0.2
    assert 0.2 < float((found["Gaussian"] - found["independent columns"]).mean()) < 1.3
    jensen.evaluate(run, settings=jensen.EvaluationSettings(draws=2, further_examples=2, samples=4)).save()
    assert main(["compare", str(run.folder), "--baselines", "--out", str(tmp_path / "compared")]) == 0
    told_table = capsys.readouterr().out
    assert "independent columns" in told_table
    assert "bits" not in told_table
    assert "expected at least two runs" in told(["compare", run.folder, "--out", tmp_path / "other"], capsys)


def test_the_mean_bound_of_a_table_has_an_error_in_nats_per_row(run: jensen.Run, tmp_path: Path, capsys) -> None:
    data, out = tmp_path / "more.csv", tmp_path / "out"
    people().to_csv(data, index=False)
    assert main(["evaluate", str(run.folder), "--data", str(data), "--error", "9", "--out", str(out)]) == 0
    found = json.loads((out / "mean_bound.json").read_text())
    assert found["unit"] == "nats per row"
    assert 0.1 < found["nats"]["standard_error"] <= 9
    assert "bits" not in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- predict


def test_any_column_is_predicted_in_the_units_of_the_table(run: jensen.Run, tmp_path: Path) -> None:
    words = ["predict", str(run.folder), "--draws", "30", "--examples", "8"]
    assert main([*words, "--target", "town", "--out", str(tmp_path / "town.csv")]) == 0
    rows = read(tmp_path / "town.csv")
    assert {row["label"] for row in rows} <= {"Bern", "Thun", ""}
    for row in rows:
        assert float(row["p(Bern)"]) + float(row["p(Thun)"]) == pytest.approx(1, abs=1e-4)
        assert row["name"].startswith("k0")
    assert main([*words, "--target", "age", "--out", str(tmp_path / "age.csv")]) == 0
    for row in read(tmp_path / "age.csv"):
        ends = [float(row[name]) for name in ("low_95", "low_80", "low_50", "high_50", "high_80", "high_95")]
        assert ends == sorted(ends)
        assert 18 <= ends[0] <= float(row["mean"]) <= ends[-1] <= 59
        assert float(row["target"]) in set(people().age)
    for name in (
        "predictions-town.json",
        "predictions-town.html",
        "target-predictions-age.json",
        "predictions-age.html",
    ):
        assert (run.folder / name).exists()
    assert not (run.folder / "predictions.html").exists()
    further = further_records(run.folder, run.weights)
    assert {one.column for one in (*further.predictions, *further.targets)} == {"town", "age"}
    headings = {section.title for section in further_sections(run.folder, further) if section}
    assert headings == {"Prediction of town", "Prediction of age"}


def test_the_target_may_be_unknown_and_must_be_a_column(
    run: jensen.Run, gaps: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pandas.read_csv(gaps)
    data["sex"] = np.where(np.arange(10) == 3, None, data.sex)
    found = jensen.predict(run, data.assign(since=pandas.to_datetime(data.since)), target="sex", draws=20)
    assert found.predictions.labels.tolist().count(-1) == 2
    assert found.record.examples == 8
    words = ["predict", run.folder, "--out", gaps.with_name("p.csv")]
    assert "name the column to predict: --target COLUMN" in told(words, capsys)
    assert "there is no column 'ages'; expected one of 'age'" in told([*words, "--target", "ages"], capsys)
    assert "column 'key' was left out (identifier" in told([*words, "--target", "key"], capsys)
    assert "predicted by jensen impute" in told([*words, "--target", "since"], capsys)


def test_predictions_are_written_in_the_form_of_the_source(run: jensen.Run, tmp_path: Path) -> None:
    table = run.spec.table.model_copy(update={"delimiter": ";", "decimal": ","})
    german = dataclasses.replace(run, spec=run.spec.model_copy(update={"table": table}))
    for target in ("pay", "sex"):
        found = jensen.predict(run, people()[:6], target=target, draws=4)
        found.save(tmp_path / f"{target}.parquet")
        expected = pandas.read_parquet(tmp_path / f"{target}.parquet")
        dataclasses.replace(found, run=german).save(tmp_path / f"{target}.csv")
        written = pandas.read_csv(tmp_path / f"{target}.csv", sep=";", decimal=",")
        pandas.testing.assert_frame_equal(written, expected, check_dtype=False)
        assert expected.standard_error.dtype == float


def test_known_cells_are_compared_without_the_training_data(
    run: jensen.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved, gone = tmp_path / "run", str(tmp_path / "gone.csv")
    shutil.copytree(run.folder, moved)
    for name in ("recipe.json", "data.json"):
        (moved / name).write_text((moved / name).read_text().replace(str(run.folder.with_name("people.csv")), gone))
    people()[:12].to_csv(tmp_path / "new.csv", index=False)
    for target, doubted in (("sex", "accuracy"), ("pay", "error of pay")):
        words = ["predict", moved, "--data", tmp_path / "new.csv", "--draws", "9", "--target", target]
        assert main([*map(str, words), "--out", str(tmp_path / f"{target}.csv")]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "no constant prediction to compare with: the training data of the run could not be read again" in said
        assert "linear" not in said
        assert doubted in said


def test_a_column_is_compared_with_its_law_among_independent_columns(run: jensen.Run) -> None:
    for target in ("pay", "age"):
        record = jensen.predict(run, people(), target=target, draws=2).record
        alone = IndependentColumns.fit(run.dataset.train, run.spec.preparation)
        field = target_column(run.spec.table, target)
        expected = alone.log_prob(run.examples(people()).x)[:, field].mean()  # no cell is missing
        assert record.always.log_density.mean == pytest.approx(float(expected), abs=1e-6)
        assert record.always.errors[0].mean == pytest.approx(people()[target].std(), rel=0.05)
        for one in record.always.coverage:  # within 5 errors: false alarm 6 x 6e-7
            assert abs(one.share.mean - one.nominal) < 5 * one.share.standard_error


# ---------------------------------------------------------------------------------------------- features check


def test_samples_are_checked_by_columns_beside_training_rows(run: jensen.Run) -> None:
    found = jensen.features_check(run, 40, target="sex", k=2)
    assert found.metrics.features == "columns"
    table = found.metrics.table
    assert (table.target, table.score) == ("sex", "accuracy")
    assert set(table.samples.columns) == set(NAMES)
    for of in (table.samples, table.floor):
        for interval in (of.shapes, of.pairs, of.detection):
            assert 0 <= interval.value <= 1
    with pytest.raises(InputError, match="have no pixels"):
        jensen.features_check(run, 40, in_pixels=True)
    with pytest.raises(InputError, match="no column 'ages'"):
        jensen.features_check(run, 40, target="ages")


def test_verbs_of_other_data_are_refused_in_a_line(
    run: jensen.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb, out in (("reconstruct", "a.npz"), ("compress", "a.jensen")):
        assert f"{verb}: the run was trained on a table" in told([verb, run.folder, "--out", tmp_path / out], capsys)
    assert not any(tmp_path.iterdir())


def test_columns_of_other_runs_are_not_asked_for(run: jensen.Run) -> None:
    examples = Examples(run.examples().x[:2])
    found = column_bounds(run.model, examples, None, run.spec, torch.arange(2), draws=2, seed=0)
    assert all(column.independent is None for column in found)
    assert not any(math.isnan(column.nats.mean) for column in found)
