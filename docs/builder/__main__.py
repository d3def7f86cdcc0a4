"""Build the site: `python -m builder [--no-run] [--out site]`, with docs/ on PYTHONPATH; `make docs` does."""

import argparse
import hashlib
import importlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from builder import check, execute, numbers, stage
from builder.stage import ROOT, Stage

RUN = ("docs/start.md", "docs/tutorials/*.md", "docs/gallery/*.py", "notebooks/*.ipynb")
PROCESSES = 2


def main() -> int:
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "docs")])
    os.environ["PYTHONPATH"] = paths  # of the processes that are started, wherever they work: jensen, builder.doctests
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--no-run", action="store_true", help="build without running blocks: no outputs, no pictures")
    options.add_argument("--out", type=Path, default=ROOT / "site", help="the folder of the site; it is replaced")
    options.add_argument("--work", type=Path, default=ROOT / "build" / "docs", help="where pages are laid out")
    given = options.parse_args()
    return build(given.out.resolve(), given.work.resolve(), run=not given.no_run)


def build(out: Path, work: Path, *, run: bool) -> int:
    """Lay out the pages, build the site, check it; the exit status."""
    spelt = check.misspelt([*(ROOT / page for page in stage.pages()), *_executed(), ROOT / "src"])
    laid = Stage(work / "pages")
    for page in stage.pages():
        laid.write(page, (ROOT / page).read_text(encoding="utf-8"))
    for file in [*(ROOT / "docs").glob("images/*.png"), ROOT / "docs" / "builder" / "site.css"]:
        laid.copy(file.relative_to(ROOT))
    made = _made(laid, work / "cache", run)
    for page, text in stage.reference():
        laid.write(page, text)
    laid.write(numbers.PAGE, numbers.benchmark_page())
    _write_gallery(laid, made)
    config = _configure(work)
    if _zensical(config):
        return 1
    without_network(work / "site")
    wrong = [*spelt, *check.faults(work / "site")]
    print("\n".join([*wrong, f"{len(wrong)} faults" if wrong else "links, anchors and spelling are right"]))
    shutil.rmtree(out, ignore_errors=True)
    shutil.move(work / "site", out)
    print(f"{out}/index.html")
    return 1 if wrong else 0


def _executed() -> list[Path]:
    return [path for pattern in RUN for path in sorted(ROOT.glob(pattern)) if path.name != "README.md"]


def _made(laid: Stage, cache: Path, run: bool) -> dict[Path, execute.Made]:
    """Run the pages that are executed, some at a time, each in a process of its own, and lay them out."""
    paths, found, failed = _executed(), {}, []
    if run:
        import matplotlib

        matplotlib.use("agg")
        importlib.import_module("jensen.run")  # and torch with it, once: before the processes part
        os.environ |= {"COLUMNS": "100", "NO_COLOR": "1", "MPLCONFIGDIR": matplotlib.get_configdir()}
        code = "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(ROOT.glob("src/**/*.py")))
        with multiprocessing.get_context("fork").Pool(PROCESSES, maxtasksperchild=1) as pool:
            tasks = [pool.apply_async(execute.made, (path, cache, code)) for path in paths]
            for path, task in zip(paths, tasks, strict=True):
                try:
                    found[path] = task.get()
                    print(f"{path.relative_to(ROOT)}: {found[path].seconds:.0f} s", flush=True)
                except Exception as error:  # of any page: all are run, and all errors shown
                    failed.append(str(error))
                    print(error, flush=True)
        if failed:
            raise SystemExit(f"{len(failed)} pages failed")
    else:
        found = {path: execute.shown(path) for path in paths}
    for path, made in found.items():
        page = path.relative_to(ROOT).with_suffix(".md")
        laid.write(page, made.markdown)
        for name, picture in made.pictures.items():
            target = laid.folder / page.parent / "made" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(picture)
    return found


def _write_gallery(laid: Stage, made: dict[Path, execute.Made]) -> None:
    """The page of the gallery: what docs/gallery/README.md says, and a card for every example."""
    cards = []
    for path, page in made.items():
        if path.parent.name != "gallery":
            continue
        title, said = re.match(r"# (.+)\n+((?:.+\n)+)", page.markdown).groups()  # type: ignore[union-attr]
        picture = f"[![{title}](made/{path.stem}-1.png)]({path.stem}.md)\n" if page.pictures else ""
        first = said.replace("\n", " ").split(". ")[0].rstrip(". ")
        cards.append(f"<div markdown>\n{picture}\n**[{title}]({path.stem}.md)**\n\n{first}.\n</div>\n")
    readme = Path("docs/gallery/README.md")
    text = (ROOT / readme).read_text(encoding="utf-8")
    laid.write(readme, f'{text}\n<div class="gallery" markdown>\n{"".join(cards)}</div>\n')


def _configure(work: Path) -> Path:
    """Write the configuration of zensical, with the pages of each folder where a line ends in *."""

    def listed(line: re.Match[str]) -> str:
        folder = work / "pages" / line[1]
        names = sorted((file.name for file in folder.glob("*.md")), key=lambda name: (name != "README.md", name))
        order = ["README.md", "jensen.md", *(f"{chapter}.md" for chapter in stage.chapters())]
        names = order if line[1].endswith("reference") else names
        return ", ".join(f'"{line[1]}/{name}"' for name in names)

    def other(_: re.Match[str]) -> str:
        """The pages of docs/ that the configuration does not name: new ones, until they get their place."""
        found = sorted(page for page in stage.pages() if page.parent == Path("docs") and f'"{page}"' not in text)
        return ", ".join(f'"{page}"' for page in found)

    text = (ROOT / "docs" / "site.toml").read_text(encoding="utf-8").replace('"src"', f'"{ROOT / "src"}"')
    text = re.sub(r'"([\w/]+)/\*"', listed, text)
    target = work / "zensical.toml"
    target.write_text(re.sub(r'"OTHER"', other, text), encoding="utf-8")
    return target


def _zensical(config: Path) -> int:
    """Run zensical, strictly; its exit status."""
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(config)]
    return subprocess.run(command, cwd=config.parent).returncode


def without_network(site: Path) -> None:
    """Let the search work from a folder of files, where a browser starts no worker from a file and fetches nothing."""
    worker = next((site / "assets" / "javascripts" / "workers").glob("search.*.js"))
    text = worker.read_text(encoding="utf-8").replace("\\", "\\\\").replace("`", "\\`").replace("${", "\\${")
    program = (ROOT / "docs" / "builder" / "worker.js").read_text(encoding="utf-8").replace("PROGRAM", f"`{text}`")
    (site / "assets" / "javascripts" / "worker.js").write_text(program, encoding="utf-8")
    for page in site.glob("**/*.html"):
        html = page.read_text(encoding="utf-8")
        up = os.path.relpath(site, page.parent)
        page.write_text(
            html.replace("https://unpkg.com/iframe-worker/shim", f"{up}/assets/javascripts/worker.js"), encoding="utf-8"
        )


if __name__ == "__main__":
    sys.exit(main())
