"""The page of a server, in Chromium: every widget by clicks and keys, on real runs."""

import base64
import csv
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import serving

import jensen
from jensen.recipe.diffusion.settings import DiffusionRecipe
from jensen.recipe.vae.settings import VAERecipe
from jensen.serve.limits import Limits
from jensen.serve.server import Address, server

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("there is no chromium on the PATH", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect
expect.set_options(timeout=30_000)
BRIEF = {"steps": 20, "batch_size": 64, "validate_every": 20, "ema_decay": None}
HOSTILE = "<img src=x onerror=alert(1)>"


def people(count: int = 120) -> str:
    """Rows of CSV with numbers, categories, gaps, and a category whose name would be a danger if it were HTML."""
    source = np.random.default_rng(0)
    lines = ["age,town,pay"]
    for _ in range(count):
        age, town = source.integers(18, 60), source.choice(["Bern", "Thun, upper", HOSTILE])
        pay = "" if source.random() < 0.2 else f"{source.lognormal(7, 0.5):.2f}"
        lines.append(f'{age},"{town}",{pay}')
    return "\n".join(lines)


def recipe_of(name: str, table: Path) -> Any:
    """A small recipe: a VAE or a diffusion model of digits, or a VAE of a table."""
    vae = {"latent_dims": 2, "network": "mlp", "hidden": [16]}
    noise = {"network": "mlp", "width": 16, "depth": 1, "chain_steps": 20, "bound_terms": 4}
    rows = {"width": 16, "depth": 1, "latent_dims": 2, "fit_steps": 2}
    if name == "noise":
        return DiffusionRecipe.model_validate({"model": noise, "training": BRIEF})
    data = {"data": str(table), "model": rows} if name == "people" else {"model": vae}
    return VAERecipe.model_validate({**data, "training": BRIEF})


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a VAE of digits."""
    folder = tmp_path_factory.mktemp("runs")
    return jensen.train(recipe_of("digits", folder), folder / "digits").folder


@pytest.fixture(scope="module")
def folders(digits: Path) -> list[Path]:
    """The folders of a VAE and a diffusion model of digits and of a VAE of a table."""
    table = digits.with_name("people.csv")
    table.write_text(people())
    others = [jensen.train(recipe_of(name, table), digits.with_name(name)).folder for name in ("noise", "people")]
    return [digits, *others]


@contextmanager
def opened(folders: list[Path], token: str | None = None) -> Iterator[str]:
    """The address of a server of these runs."""
    where = Address(port=0, token=token.encode() if token else None)
    with serving(server([jensen.load(folder) for folder in folders], where, Limits(), histogram=40)) as client:
        yield f"{client.base_url}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@contextmanager
def visiting(browser: Any, address: str, run: str | None = None, **options: Any) -> Iterator[Any]:
    """A page of a new visitor. At the end, nothing may have been logged, and nothing asked of another origin.

    A refused request is logged by Chromium itself; a visit on which one is expected says so by `refused`.
    """
    refused = options.pop("refused", False)
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page = context.new_page()
    logged: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.on("dialog", lambda dialog: logged.append("a dialog"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    if run is not None:
        page.get_by_label("Model").select_option(run)
        expect(page.get_by_role("heading", level=1)).to_have_text(run)
    yield page
    context.close()
    assert [text for text in logged if not (refused and "Failed to load resource" in text)] == []
    assert {url for url in asked if not url.startswith((address, "data:", "blob:"))} == set()


def panel(page: Any, title: str) -> Any:
    """The section of that heading."""
    return page.get_by_role("region", name=title, exact=True)


def pixels(image: Any) -> np.ndarray:
    """The pixels of an image element."""
    header, content = image.get_attribute("src").split(",", 1)
    assert header == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def number(text: str) -> float:
    """The first number of a text, which may have a true minus sign."""
    found = re.search(r"[-−]?[\d,]+(\.\d+)?", text)
    assert found
    return float(found[0].replace("−", "-").replace(",", ""))


def draw(page: Any, count: int = 4) -> Any:
    """Draw samples of seed 3; returns their tiles."""
    samples = panel(page, "Samples")
    samples.get_by_label("Number").fill(str(count))
    samples.get_by_label("Seed", exact=True).fill("3")
    samples.get_by_role("button", name="Draw samples").click()
    expect(samples.get_by_role("status")).to_contain_text("samples in")
    tiles = samples.get_by_role("button", name="of seed 3")
    expect(tiles).to_have_count(count)
    return tiles


# ---------------------------------------------------------------------------------------------- one quick test


def test_samples_are_drawn_by_a_click(browser: Any, digits: Path) -> None:
    with opened([digits]) as address, visiting(browser, address) as page:
        expect(page.get_by_role("heading", level=1)).to_have_text("digits")
        for mean in (False, True):
            page.get_by_label("means, without the noise of p(x|z)").set_checked(mean)
            tiles = draw(page)
            expected = jensen.sample(jensen.load(digits), 4, seed=3, mean=mean).x[:, 0]
            for tile, x in zip(tiles.locator("img").all(), expected, strict=True):
                assert np.array_equal(pixels(tile), np.rint(x / 16 * 255))


# ---------------------------------------------------------------------------------------------- pictures


@pytest.fixture(scope="module")
def address(folders: list[Path]) -> Iterator[str]:
    with opened(folders) as address:
        yield address


@pytest.mark.slow
def test_a_sample_is_scored_and_reconstructed(browser: Any, address: str, digits: Path) -> None:
    with visiting(browser, address, "digits") as page:
        draw(page).nth(1).click()
        picture = panel(page, "One picture")
        expect(picture.get_by_role("status")).to_contain_text("Answered in")
        run = jensen.load(digits)
        x = jensen.sample(run, 2, seed=3).x[1:]
        assert number(picture.locator(".key b").first.inner_text()) == pytest.approx(
            jensen.score(run, x).bound.item(), 0.05
        )
        expect(picture.get_by_role("img", name="Its reconstruction")).to_be_visible()
        rebuilt = jensen.reconstruct(run, x).reconstruction[0, 0]
        assert np.array_equal(
            pixels(picture.get_by_role("img", name="Its reconstruction")), np.rint(rebuilt / 16 * 255)
        )


@pytest.mark.slow
def test_the_score_lies_in_the_histogram_of_the_test_split(browser: Any, address: str) -> None:
    with visiting(browser, address, "digits") as page:
        picture = panel(page, "One picture")
        picture.get_by_role("button", name="Test example").click()
        histogram = picture.get_by_role("img", name=re.compile("Histogram of .* with a mark at"))
        for _ in range(40):
            expect(picture.get_by_role("status")).to_contain_text("Answered in")
            if histogram.count():
                break
            page.wait_for_timeout(500)
            picture.get_by_role("button", name="Score and reconstruct").click()
        score, share = (number(key.inner_text()) for key in picture.locator(".key b").all())
        assert 0 <= share <= 100
        name = histogram.get_attribute("aria-label")
        assert number(name.split("mark at")[1]) == pytest.approx(score, abs=0.06)
        runs = page.evaluate("fetch('runs').then((one) => one.json())")
        known = next(run["histogram"] for run in runs if run["name"] == "digits")
        bars = [float(bar.get_attribute("x")) for bar in histogram.locator("rect").all()]
        edges = known["edges"]
        assert len(bars) == len(known["counts"])
        width = (bars[-1] - bars[0]) / (edges[-2] - edges[0])
        mark = float(histogram.locator("line").get_attribute("x1"))
        assert mark == pytest.approx(bars[0] + width * (score - edges[0]), abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_of_another_size_is_scaled(browser: Any, address: str, tmp_path: Path, way: str) -> None:
    wide = np.zeros((80, 120), np.uint8)
    wide[:, 60:] = 255  # after the crop to 80 x 80, the right half is white
    Image.fromarray(wide).save(tmp_path / "half.png")
    content = base64.b64encode((tmp_path / "half.png").read_bytes()).decode()
    with visiting(browser, address, "digits") as page:
        picture = panel(page, "One picture")
        if way == "choose":
            picture.get_by_label("The picture: choose a file").set_input_files(tmp_path / "half.png")
        else:
            page.evaluate(DELIVER, [way, content])
        expect(picture).to_contain_text("half.png, scaled from 120 × 80 to 8 × 8")
        expect(picture.get_by_role("status")).to_contain_text("Answered in")
        seen = pixels(picture.get_by_role("img", name=re.compile("The picture: half.png")))
        assert seen.shape[:2] == (8, 8)
        assert (seen[:, :3, 0] < 20).all()
        assert (seen[:, 5:, 0] > 235).all()


DELIVER = """async ([way, content]) => {
  const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "half.png", { type: "image/png" }));
  const target = way === "drop" ? document.querySelector(".drop") : document;
  const event = way === "drop"
    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  target.dispatchEvent(event);
}"""


@pytest.mark.slow
def test_what_is_no_picture_is_said(browser: Any, address: str, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no picture")
    with visiting(browser, address, "digits") as page:
        picture = panel(page, "One picture")
        picture.get_by_label("The picture: choose a file").set_input_files(tmp_path / "no.png")
        expect(picture.get_by_role("alert")).to_have_text(
            "no.png: expected a picture that this browser can read; give a PNG or JPEG"
        )


# ---------------------------------------------------------------------------------------------- a painted mask


def masked(page: Any, fill: Any) -> np.ndarray:
    """The mask that the page sends when it is asked to fill in; True is observed."""
    with page.expect_request(lambda request: request.url.endswith("/impute")) as sent:
        fill.get_by_role("button", name="Fill in").click()
    return np.array(sent.value.post_data_json["mask"])[0]


def center(canvas: Any, row: float, column: float) -> tuple[float, float]:
    """The place on the screen of the middle of a pixel of an 8 x 8 canvas."""
    box = canvas.bounding_box()
    return box["x"] + (column + 0.5) * box["width"] / 8, box["y"] + (row + 0.5) * box["height"] / 8


@pytest.mark.slow
@pytest.mark.parametrize("run", ["digits", "noise"])
def test_a_mask_painted_by_the_mouse_is_filled_in(browser: Any, address: str, run: str) -> None:
    with visiting(browser, address, run) as page:
        draw(page).first.click()
        expect(panel(page, "One picture").get_by_role("status")).to_contain_text("Answered in")
        fill = panel(page, "Fill in what is hidden")
        canvas = fill.locator("canvas")
        fill.get_by_role("button", name="Nothing").click()
        canvas.scroll_into_view_if_needed()
        page.mouse.move(*center(canvas, 2, 1))
        page.mouse.down()
        page.mouse.move(*center(canvas, 2, 5), steps=3)
        page.mouse.up()
        page.mouse.move(*center(canvas, 2, 3))  # a click on what is hidden shows it again
        page.mouse.down()
        page.mouse.up()
        mask = masked(page, fill)
        expected = np.ones((8, 8), bool)
        expected[2, [1, 2, 4, 5]] = False
        assert np.array_equal(mask, expected)
        expect(fill.get_by_role("status")).to_contain_text("Filled in 3 times")
        original = pixels(fill.get_by_role("img", name="Original"))
        for k in (1, 2, 3):
            drawn = pixels(fill.get_by_role("img", name=f"Filled in, draw {k}"))
            assert np.array_equal(drawn[mask], original[mask])


@pytest.mark.slow
def test_a_mask_is_painted_by_keys_alone(browser: Any, address: str) -> None:
    with visiting(browser, address, "digits") as page:
        draw(page).first.click()
        expect(panel(page, "One picture").get_by_role("status")).to_contain_text("Answered in")
        fill = panel(page, "Fill in what is hidden")
        fill.get_by_role("button", name="Nothing").focus()
        page.keyboard.press("Enter")
        fill.locator("canvas").focus()
        page.keyboard.press("ArrowUp")  # from row 4, column 4
        page.keyboard.press("Space")
        page.keyboard.press("Shift+ArrowLeft")
        page.keyboard.press("ArrowDown")
        expect(fill.locator("[aria-live]")).to_have_text("Row 5, column 4: shown. 2 of 64 pixels hidden.")
        mask = masked(page, fill)
        assert np.argwhere(~mask).tolist() == [[3, 3], [3, 4]]


@pytest.mark.slow
def test_a_finger_paints_and_the_page_does_not_scroll_sideways(browser: Any, address: str) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with visiting(browser, address, "digits", **phone) as page:
        draw(page).first.tap()
        fill = panel(page, "Fill in what is hidden")
        fill.get_by_role("button", name="Nothing").tap()
        canvas = fill.locator("canvas")
        canvas.scroll_into_view_if_needed()
        page.touchscreen.tap(*center(canvas, 6, 6))
        assert np.argwhere(~masked(page, fill)).tolist() == [[6, 6]]
        assert page.evaluate("document.documentElement.scrollWidth") == 360


# ---------------------------------------------------------------------------------------------- paths and films


@pytest.mark.slow
def test_a_slider_goes_from_one_picture_to_another(browser: Any, address: str) -> None:
    with visiting(browser, address, "digits") as page:
        path = panel(page, "From one picture to another")
        slider = path.get_by_role("slider", name="Place on the path")
        expect(slider).to_be_disabled()
        for button in path.get_by_role("button", name="Sample").all():
            button.click()
        expect(path.get_by_role("status")).to_contain_text("13 pictures")
        slider.focus()
        seen = []
        page.keyboard.press("Home")
        for place in range(13):
            assert slider.get_attribute("aria-valuetext") == f"{round(100 * place / 12)} % of the way"
            seen.append(pixels(path.get_by_role("img", name=re.compile("of the way"))))
            page.keyboard.press("ArrowRight")
        steps = [float(np.abs(one.astype(float) - seen[0]).sum()) for one in seen]
        assert steps[0] == 0 < steps[6] < steps[12]
        assert len({one.tobytes() for one in seen}) > 3


@pytest.mark.slow
def test_the_film_ends_with_the_sample(browser: Any, address: str, folders: list[Path]) -> None:
    with visiting(browser, address, "noise") as page:
        film = panel(page, "From noise to data")
        film.get_by_label("Seed", exact=True).fill("3")
        film.get_by_role("button", name="Start the film").click()
        expect(film.get_by_role("status")).to_contain_text("pictures in")
        last = pixels(film.get_by_role("img", name="The sample"))
        expected = jensen.sample(jensen.load(folders[1]), 1, seed=3).x[0, 0]
        assert np.abs(last - np.rint(expected / 16 * 255)).max() <= 1
        slider = film.get_by_role("slider")
        slider.focus()
        page.keyboard.press("Home")
        assert not np.array_equal(pixels(film.get_by_role("img", name="The sample")), last)
        film.get_by_role("button", name="Play again").click()
        expect(film.get_by_role("button", name="Pause")).to_be_visible()
        expect(film.get_by_role("button", name="Play again")).to_be_visible()
        assert np.array_equal(pixels(film.get_by_role("img", name="The sample")), last)


@pytest.mark.slow
def test_motion_is_not_shown_to_those_who_want_none(browser: Any, address: str) -> None:
    with visiting(browser, address, "noise", reduced_motion="reduce") as page:
        film = panel(page, "From noise to data")
        page.evaluate(COUNT_CHANGES)
        film.get_by_role("button", name="Start the film").click()
        expect(film.get_by_role("status")).to_contain_text("The slider shows them one by one")
        assert page.evaluate("window.changes") == 1


COUNT_CHANGES = """() => {
  window.changes = 0;
  const count = (records) => { window.changes += records.filter((one) => one.addedNodes.length).length; };
  new MutationObserver(count).observe(document.querySelector(".screen"), { childList: true });
}"""


# ---------------------------------------------------------------------------------------------- tables


def rows_of(table: Any) -> list[list[str]]:
    """The cells of the body of a table, as soon as it is there."""
    expect(table).to_be_visible()
    return [[cell.inner_text() for cell in row.locator("td").all()] for row in table.locator("tbody tr").all()]


@pytest.mark.slow
def test_rows_are_drawn_by_given_columns_and_downloaded(browser: Any, address: str) -> None:
    with visiting(browser, address, "people") as page:
        samples = panel(page, "Samples")
        samples.get_by_label("Number of rows").fill("7")
        samples.get_by_label("town").select_option(HOSTILE)
        samples.get_by_label("age").fill("40")
        samples.get_by_role("button", name="Draw rows").click()
        shown = rows_of(samples.get_by_role("region", name="Rows drawn"))
        assert [row[:2] for row in shown] == [["40", HOSTILE]] * 7
        with page.expect_download() as download:
            samples.get_by_role("button", name="Download CSV").click()
        assert download.value.suggested_filename == "people-samples.csv"
        with Path(download.value.path()).open(newline="") as file:
            assert list(csv.reader(file)) == [["age", "town", "pay"], *shown]


@pytest.mark.slow
def test_own_rows_are_scored_and_their_empty_cells_filled(browser: Any, address: str) -> None:
    with visiting(browser, address, "people") as page:
        own = panel(page, "Your rows")
        page.evaluate(PASTE, 'pay,age,town\n,33,"Thun, upper"\n900.5,44,Bern\n')
        expect(own.get_by_label("age, row 1")).to_have_value("33")
        expect(own.get_by_label("town, row 1")).to_have_value("Thun, upper")
        own.get_by_role("button", name="Score").click()
        scores = rows_of(own.get_by_role("region", name="Scores of your rows"))
        assert [row[0] for row in scores] == ["1", "2"]
        assert all("±" in row[1] for row in scores)
        own.get_by_label("town, row 2").fill("")
        own.get_by_role("button", name="Fill empty cells").click()
        expect(own.get_by_role("status")).to_contain_text("2 cells filled")
        filled = own.get_by_role("region", name="Your rows, filled in")
        assert filled.locator(".filled").count() == 2
        (first, second) = rows_of(filled)
        assert first[:2] == ["33", "Thun, upper"]
        assert re.fullmatch(r"[\d.]+\s*filled in\s*[\d.]+ to [\d.]+", first[2])
        assert second[0] == "44"
        assert second[1].split("\n")[0].strip() in ("Bern", "Thun, upper", HOSTILE)
        assert second[2] == "900.5"


PASTE = """(text) => {
  const data = new DataTransfer();
  data.setData("text/plain", text);
  const cell = document.querySelector(".sheet input");
  cell.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
}"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1,2\n", "rows of 2 cells without names of columns: expected 3 cells; give fitting rows, or"),
        ("age,town,pay\n", "no row: expected rows of CSV; give the names of the columns and a row below"),
        ("age\n" + "33\n" * 51, "51 rows: expected at most 50 on this page; send more over the HTTP interface"),
    ],
)
def test_rows_that_do_not_fit_are_refused_in_one_line(browser: Any, address: str, text: str, problem: str) -> None:
    with visiting(browser, address, "people") as page:
        page.evaluate(PASTE, text)
        expect(panel(page, "Your rows").get_by_role("alert")).to_contain_text(problem)


@pytest.mark.slow
def test_csv_is_read_as_python_reads_it(browser: Any, address: str) -> None:
    hard = [["a", 'say "b"', "c,d"], ["", "two\nlines", "é"], ["1", " x ", '"']]
    with visiting(browser, address) as page:
        for delimiter in ",;\t":
            stream = io.StringIO()
            csv.writer(stream, delimiter=delimiter).writerows([["k", "l", "m"], *hard])
            read = page.evaluate("(text) => import('/page/csv.js').then((csv) => csv.parse(text))", stream.getvalue())
            assert read == [["k", "l", "m"], *hard]


# ---------------------------------------------------------------------------------------------- errors, tokens, access


@pytest.mark.slow
def test_an_error_of_the_server_is_one_line_in_a_live_region(browser: Any, address: str) -> None:
    with visiting(browser, address, "digits", refused=True) as page:
        samples = panel(page, "Samples")
        samples.get_by_label("Number").fill("100000")
        samples.get_by_role("button", name="Draw samples").click()
        expect(samples.get_by_role("alert")).to_have_text(
            "100,000 examples: expected at most 1,024 a request; send several requests"
        )
        draw(page)  # the line goes when a request succeeds
        expect(samples.get_by_role("alert")).to_be_empty()


@pytest.mark.slow
def test_a_token_is_asked_for_and_kept_in_memory_only(browser: Any, digits: Path) -> None:
    token = "a-token-of-a-test-of-the-page"
    with opened([digits], token) as address, visiting(browser, address, refused=True) as page:
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Token").fill("wrong")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("This is not the token")
        dialog.get_by_label("Token").fill(token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text("digits")
        draw(page)
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        page.reload()
        expect(dialog).to_be_visible()


def axe(page: Any) -> list[str]:
    """What axe-core finds against WCAG 2.2 AA and its own best practice."""
    spec = find_spec("axe_playwright_python")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("axe-playwright-python, which brings axe-core, is not installed")
    page.evaluate((Path(spec.submodule_search_locations[0]) / "axe.min.js").read_text())
    rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = page.evaluate("(rules) => axe.run(document, { runOnly: rules })", rules)
    assert found["passes"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


def use(page: Any, run: str) -> None:
    """Use every widget of the page, so that its results are there."""
    if run == "people":
        panel(page, "Samples").get_by_role("button", name="Draw rows").click()
        own = panel(page, "Your rows")
        page.evaluate(PASTE, "age,town,pay\n33,Bern,\n44,Bern,9\n")
        own.get_by_role("button", name="Fill empty cells").click()
        expect(own.get_by_role("status")).to_contain_text("1 cell filled")
        own.get_by_role("button", name="Score").click()
        expect(own.get_by_role("status")).to_contain_text("2 rows scored")
        return
    draw(page).first.click()
    expect(panel(page, "One picture").get_by_role("status")).to_contain_text("Answered")
    panel(page, "Fill in what is hidden").get_by_role("button", name="Fill in").click()
    expect(panel(page, "Fill in what is hidden").get_by_role("status")).to_contain_text("Filled in 3 times")
    if run == "noise":
        panel(page, "From noise to data").get_by_role("button", name="Start the film").click()
        expect(panel(page, "From noise to data").get_by_role("status")).to_contain_text("pictures in")
        return
    for button in panel(page, "From one picture to another").get_by_role("button", name="Sample").all():
        button.click()
    expect(panel(page, "From one picture to another").get_by_role("status")).to_contain_text("13 pictures")


@pytest.mark.slow
@pytest.mark.parametrize("run", ["digits", "noise", "people"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 360)])
def test_axe_finds_nothing(browser: Any, address: str, run: str, scheme: str, width: int) -> None:
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}, "bypass_csp": True}
    with visiting(browser, address, run, **look) as page:
        assert axe(page) == []
        use(page, run)
        assert axe(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_the_tab_key_reaches_everything_in_order_and_focus_is_seen(browser: Any, address: str) -> None:
    with visiting(browser, address, "digits") as page:
        total = (
            page.locator("a[href], button:enabled, input:enabled, select:enabled, canvas")
            .locator("visible=true")
            .count()
        )
        seen = []
        for _ in range(total):
            page.keyboard.press("Tab")
            seen.append(page.evaluate(FOCUS))
        assert len({place for place, _ in seen}) == total
        assert [place for place, _ in seen] == sorted(place for place, _ in seen)
        assert all(outlined for _, outlined in seen)


FOCUS = """() => {
  const all = [...document.querySelectorAll("*")];
  const one = document.activeElement;
  const shown = [one, one.closest("label.drop, label.button")].filter(Boolean);
  return [all.indexOf(one), shown.some((part) => getComputedStyle(part).outlineStyle !== "none")];
}"""
