"""The site, built without running its blocks: links lead somewhere, and a stranger finds the way in three clicks."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builder import cells, check, execute, stage

import jensen

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def build(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "builder", *options, "--out", str(out), "--work", str(out.with_name("work"))]
    done = subprocess.run(command, cwd=ROOT / "docs", capture_output=True, text=True)
    done.stdout = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)  # zensical's colours
    return done


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site without outputs. Its build fails on a link or an anchor that leads nowhere, and on a misspelt word."""
    out = tmp_path_factory.mktemp("site") / "site"
    done = build(out, "--no-run")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out.resolve()


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("docs/tutorials/scoring.html", "jensen score runs/wine --data new.csv"),
        ("docs/tutorials/imputation.html", "jensen impute runs/whole --data damaged.npy --mask scratch.png"),
        ("docs/tutorials/many_gpus.html", "torchrun --standalone --nproc-per-node 8 -m jensen resume"),
    ],
)
def test_three_clicks_from_the_front_page(site: Path, page: str, words: str) -> None:
    """By the menus, and by links in the texts of the first pages, too."""
    pages = check.read(site)
    assert check.clicks(pages, site / "index.html")[site / page] <= 3
    assert words in pages[site / page].words
    texts = [(ROOT / first).read_text() for first in ("README.md", "docs/start.md", "docs/README.md")]
    assert all(page.removeprefix("docs/").replace(".html", ".md") in text for text in texts)


def test_every_page_of_the_repository_can_be_reached(site: Path) -> None:
    reached = check.clicks(check.read(site), site / "index.html")
    for page in stage.pages():
        name = "index.html" if page.name == "README.md" else f"{page.stem}.html"
        assert site / page.parent / name in reached, page


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    assert sorted(stage.public_names()) == sorted(jensen.__all__)
    page = check.Page((site / "docs/reference/jensen.html").read_text())
    assert {f"jensen.{name}" for name in jensen.__all__} <= page.anchors
    for chapter in stage.chapters():
        assert (site / f"docs/reference/{chapter}.html").exists(), chapter


def test_faults_of_a_site_are_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="other.html#there">right</a><a href="other.html#nowhere">no anchor</a><a href="gone.html">no page</a>'
        '<a href="https://example.org/">a link to elsewhere is no fault</a><script src="https://example.org/x.js"></script>'
    )
    (tmp_path / "other.html").write_text('<h2 id="there">There</h2><img src="gone.png">')
    assert [fault.split(":", 1)[1].strip() for fault in check.faults(tmp_path)] == [
        "no anchor other.html#nowhere",
        "no page gone.html",
        "<script> is fetched from https://example.org/x.js",
        "no page gone.png",
    ]
    (tmp_path / "page.md").write_text("We recieve words.\n")
    assert "recieve ==> receive" in check.misspelt([tmp_path / "page.md"])[0]


def test_a_page_shows_what_its_blocks_print_and_draw(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n```python\nfrom matplotlib import pyplot\n\nfigure, axis = pyplot.subplots(num='A line')\n"
        "axis.plot([1, 2])\nprint('printed')\n```\n\n"
        "<!-- not run: needs a machine -->\n```python\nraise SystemExit\n```\n\n"
        "```python\nfrom pathlib import Path\nPath('made.csv').write_text('a,b\\n1,2\\n')\n```\n\n"
        "<!-- show: made.csv | -->\n"
    )
    made = execute.run(page)
    assert "``` { .text .output }\nprinted\n```" in made.markdown
    assert "![A line](made/page-1.png)" in made.markdown
    assert "|a|b|\n|---|---|\n|1|2|" in made.markdown
    assert made.pictures["page-1.png"].startswith(b"\x89PNG")
    page.write_text("```python\n1 / 0\n```\n")
    with pytest.raises(RuntimeError, match=r"page\.md: ZeroDivisionError"):
        execute.run(page)


def test_a_script_of_the_gallery_becomes_text_and_code() -> None:
    for script in (ROOT / "docs" / "gallery").glob("*.py"):
        parts = cells.cells(script)
        assert parts[0].text.startswith("# ")
        assert {part.kind for part in parts} == {"text", "python"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()


@pytest.mark.slow
def test_the_search_works_from_a_folder_without_a_network(site: Path) -> None:
    browsers = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_context(offline=True).new_page()
        failed: list[str] = []
        page.on("requestfailed", lambda request: failed.append(request.url))
        page.goto(f"file://{site}/index.html")
        page.keyboard.press("Control+k")
        page.wait_for_timeout(1000)
        page.keyboard.type("eight GPUs")
        page.get_by_text("Resume on eight GPUs").first.wait_for(timeout=30_000)
        assert failed == []
        browser.close()


@pytest.mark.slow
def test_every_block_and_example_of_the_site_runs(tmp_path: Path) -> None:
    done = build(tmp_path / "site")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    gallery = sorted((ROOT / "docs" / "gallery").glob("*.py"))
    assert len(gallery) >= 10
    pages = check.read(tmp_path / "site")
    for script in gallery:
        page = pages[tmp_path / "site" / "docs" / "gallery" / f"{script.stem}.html"]
        assert any(tag == "img" for tag, _, _ in page.refers), f"{script.name} shows no picture"


def test_a_record_of_a_benchmark_holds_its_tables() -> None:
    sys.path.insert(0, str(ROOT / "benchmarks" / "results"))
    try:
        from record import parted
    finally:
        sys.path.pop(0)
    printed = ["torch 2", "| a | b \\| c |", "|---|---|", "| 1 | 2 |", "<!-- 3 s -->", "| 3 | 4 |", "", "done"]
    tables, others = parted(printed)
    assert tables == [{"columns": ["a", "b \\| c"], "rows": [["1", "2"], ["3", "4"]]}]
    assert others == ["torch 2", "done"]
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        record = json.loads(path.read_text())
        assert all(len(row) == len(table["columns"]) for table in record["tables"] for row in table["rows"]), path
