"""Lay out the pages of the site: those of the repository, at their places, and those that are made from code.

Links lead where they lead in the repository. A link to a file that is no page leads to a page that shows the file, and
a link into `src/jensen` leads to the reference of that chapter.
"""

import ast
import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = Path("docs/reference")
LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\]\()([^)\s#]+)(#[^)\s]*)?\)")
CODE = re.compile(r"^```.*?^```$", re.S | re.M)
LANGUAGES = {".py": "python", ".toml": "toml"}


def pages() -> list[Path]:
    """The Markdown pages of the repository, relative to its root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md"]
    return sorted(path.relative_to(ROOT) for path in found)


class Stage:
    """The folder of pages from which the site is built."""

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder
        self.chapters = chapters()
        self._shown: set[Path] = set()

    def write(self, page: Path, text: str) -> None:
        """Write a page (its path in the repository) with its links led to pages of the site."""
        target = self.folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self._led(page, text), encoding="utf-8")

    def copy(self, file: Path) -> None:
        """Copy a picture or a style sheet."""
        (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / file, self.folder / file)

    def _led(self, page: Path, text: str) -> str:
        """The text with links to pages of the site; blocks of code are left alone."""
        parts, end = [], 0
        for code in [*CODE.finditer(text), None]:
            parts.append(LINK.sub(lambda link: self._link(page, link), text[end : code and code.start()]))
            if code:
                parts.append(code[0])
                end = code.end()
        return "".join(parts)

    def _link(self, page: Path, link: re.Match[str]) -> str:
        before, target, anchor = link[1], link[2], link[3] or ""
        if re.match(r"[a-z]+:", target):
            return link[0]
        path = Path(os.path.normpath(ROOT / page.parent / target))
        if not path.is_relative_to(ROOT) or not path.exists():
            return link[0]  # a page that is made, or a mistake, which the check of the site reports
        led = self._page_of(path.relative_to(ROOT))
        return f"{before}{os.path.relpath(self.folder / led, (self.folder / page).parent)}{anchor})"

    def _page_of(self, path: Path) -> Path:
        """The page that shows a file or folder of the repository."""
        if path.suffix in (".md", ".png"):
            return path
        if path.parts[:2] == ("src", "jensen") and len(path.parts) > 2 and Path(path.parts[2]).stem in self.chapters:
            return REFERENCE / f"{Path(path.parts[2]).stem}.md"
        if path.suffix == ".ipynb" or (path.parts[:2] == ("docs", "gallery") and path.suffix == ".py"):
            return path.with_suffix(".md")  # these are run, and shown with their outputs
        if (ROOT / path / "README.md").exists():
            return path / "README.md"
        page = path.with_name(f"{path.name}.md") if (ROOT / path).is_file() else path / "files.md"
        if page not in self._shown:
            self._shown.add(page)
            self.write(page, _file(path) if (ROOT / path).is_file() else _folder(path))
        return page


def _file(path: Path) -> str:
    text = (ROOT / path).read_text(encoding="utf-8").strip()
    return f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{text}\n````\n"


def _folder(path: Path) -> str:
    files = sorted(file.name for file in (ROOT / path).iterdir() if file.is_file())
    return f"# {path}\n\n" + "".join(f"- [{name}]({name})\n" for name in files)


def chapters() -> list[str]:
    """The chapters of `jensen` in reading order: the layers of the import law, the lowest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "reading-order")
    return [name for layer in reversed(layers) for name in layer.split(" | ") if name != "__main__"]


def public_names() -> list[str]:
    """The names of `jensen.__all__`, read without importing anything."""
    lists = (node.value for node in _parsed("__init__").body if isinstance(node, ast.Assign) and _is_all(node))
    return list(ast.literal_eval(next(lists)))


def reference() -> Iterator[tuple[Path, str]]:
    """The pages of the reference: the names of `jensen`, and a page per chapter with its public names."""
    headed = "    options:\n      show_root_heading: true\n      show_root_toc_entry: true\n"
    names = "".join(f"\n::: jensen.{name}\n{headed}" for name in sorted(public_names(), key=str.lower))
    opening = (
        "# Reference\n\nEvery command is a function of a run, and every function is fetched when it is first used: "
        "`import jensen` loads none of them.\nThe chapters come in the order of the lecture.\n\n"
    )
    listed = "".join(f"- [`jensen.{chapter}`]({chapter}.md): {_first_line(chapter)}\n" for chapter in chapters())
    yield REFERENCE / "README.md", f"{opening}- [The names of `jensen`](jensen.md)\n{listed}"
    yield REFERENCE / "jensen.md", f"# jensen\n\nEvery name of `jensen.__all__`.\n{names}"
    for chapter in chapters():
        yield REFERENCE / f"{chapter}.md", f"# jensen.{chapter}\n\n::: jensen.{chapter}\n{_members(chapter)}"


def _parsed(chapter: str) -> ast.Module:
    folder = ROOT / "src" / "jensen"
    file = folder / chapter / "__init__.py" if (folder / chapter).is_dir() else folder / f"{chapter}.py"
    return ast.parse(file.read_text(encoding="utf-8"))


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets)


def _first_line(chapter: str) -> str:
    return (ast.get_docstring(_parsed(chapter)) or "").splitlines()[0]


def _members(chapter: str) -> str:
    """The option that shows the sections of a chapter, if the chapter itself offers no names."""
    sections = (ROOT / "src" / "jensen" / chapter).is_dir() and not any(map(_is_all, _parsed(chapter).body))
    return "    options:\n      show_submodules: true\n" if sections else ""
