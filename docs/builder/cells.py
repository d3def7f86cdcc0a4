"""A page as cells: text, Python and commands, from Markdown, from a script of the gallery or from a notebook."""

import ast
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$\n?", re.S | re.M)
LEFT_OUT = re.compile(r"<!-- not run\b(?:(?!the site runs it).)*?-->\s*\Z", re.S)  # by tests/test_docs.py, and here


@dataclass(frozen=True)
class Cell:
    """A part of a page. Text is Markdown; `python` and `commands` are executed; `code` is only shown."""

    kind: Literal["text", "python", "commands", "code"]
    text: str
    language: str = ""

    @property
    def markdown(self) -> str:
        """The cell as it stands on a page."""
        return self.text if self.kind == "text" else f"```{self.language}\n{self.text.strip()}\n```\n"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; what stands after two spaces or # is a remark."""
        whole = re.sub(r"\\\n\s*", "", self.text)
        return [shlex.split(re.split(r"  |#", line)[0]) for line in whole.splitlines() if line.strip()]


def cells(path: Path) -> list[Cell]:
    """The cells of a page, a script or a notebook."""
    text = path.read_text(encoding="utf-8")
    return {".md": _of_markdown, ".py": _of_script, ".ipynb": _of_notebook}[path.suffix](text)


def _of_markdown(text: str) -> list[Cell]:
    found, end = [], 0
    for fence in FENCE.finditer(text):
        before = text[end : fence.start()]
        found += [Cell("text", before), _fenced(fence[1], fence[2], left_out=bool(LEFT_OUT.search(before)))]
        end = fence.end()
    return [*found, Cell("text", text[end:])]


def _fenced(language: str, text: str, left_out: bool) -> Cell:
    if language == "python":
        return Cell("code" if left_out else "python", text, "python")
    if language or left_out or not re.match(r"jensen |torchrun ", text):
        return Cell("code", text, language or ("sh" if re.match(r"[a-z.]+ ", text) else "text"))
    return Cell("commands", text, "sh")


def _of_script(text: str) -> list[Cell]:
    """The docstring, which begins with the title; then code, in parts that begin with `# %%` and a comment as text."""
    tree = ast.parse(text)
    docstring = ast.get_docstring(tree)
    if docstring is None:
        raise ValueError("a script of the gallery begins with a docstring")
    title, _, rest = docstring.partition("\n")
    found = [Cell("text", f"# {title.rstrip('.')}\n{rest}\n\n")]
    code = "\n".join(text.splitlines()[tree.body[0].end_lineno or 0 :])
    for part in re.split(r"^# %%.*\n", code, flags=re.M):
        comment = re.match(r"(?:#.*\n)*", part)
        said = re.sub(r"^# ?", "", comment[0], flags=re.M) if comment else ""
        body = part[len(comment[0]) if comment else 0 :].strip()
        found += [Cell("text", f"\n{said}\n")] if said else []
        found += [Cell("python", body, "python")] if body else []
    return found


def _of_notebook(text: str) -> list[Cell]:
    kinds = {"markdown": "text", "code": "python"}
    parts = [(kinds[cell["cell_type"]], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return [Cell("text", f"{said}\n\n") if kind == "text" else Cell("python", said, "python") for kind, said in parts]
