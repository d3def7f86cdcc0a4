"""HTML pages from templates: values are escaped, formulas and terms are explained, and a page needs no other file."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jensen.records import write_file
from jensen.report.glossary import FORMULAS, TERMS

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the browser itself refuses any request
TAG = re.compile(r"(<[^>]*>)")
QUOTED = {"a", "code", "pre", "h1", "h2", "h3", "dt", "nav", "summary"}  # text in these tags gets no links
BACK = re.compile(r'<p class="back">')  # the place of links to comparisons
MENTIONED = re.compile(
    r"\((?P<formula>\d\.\d+)\)|\b(?P<term>" + "|".join(map(re.escape, sorted(TERMS, key=len, reverse=True))) + r")\b"
)


@dataclass(frozen=True)
class Section:
    """A part of a page: the heading in plain text, the template of the content, and the values in the template."""

    title: str
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def render(self) -> str:
        """The content as HTML."""
        return environment().get_template(f"{self.template}.html.j2").render(self.values)


def write_page(path: Path, title: str, top: Section, sections: Sequence[Section | None]) -> Path:
    """Write a page of sections below the `top`, and make the folder of the page if needed. Returns the page's path."""
    used: set[str] = set()
    shown = [section for section in sections if section]
    parts = [(section.title, _explained(section.render(), used)) for section in shown]
    heading = _explained(top.render(), used)
    formulas = {number: text for number, text in FORMULAS.items() if number in used}
    terms = {name: text for name, text in TERMS.items() if name in used}
    values = {"title": title, "policy": POLICY, "heading": heading, "parts": parts}
    base = environment().get_template("base.html.j2")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, base.render(values, formulas=formulas, terms=terms).encode())
    return path


@cache
def environment() -> "Environment":
    """The templates, which escape every value except HTML of our own, marked in a template by the filter `safe`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    found = Environment(
        loader=PackageLoader("jensen.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["minus"] = minus
    found.filters["anchor"] = anchor
    return found


def minus(text: str) -> str:
    """Numbers with a proper minus sign.

    >>> minus("dpm-solver: -0.5")
    'dpm-solver: −0.5'
    """
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", text)


def anchor(text: str) -> str:
    """The address of a heading within the page.

    >>> anchor("Where the bits go")
    'where-the-bits-go'
    """
    return re.sub(r"\W+", "-", text.lower()).strip("-") or "section"


def _explained(html: str, used: set[str]) -> str:
    """HTML in which every formula number, and every term once, links to an explanation, whose name is added to `used`.

    Users' texts in `html` are escaped, so that text between < and > is always a tag.
    """
    depth, seen, parts = 0, set[str](), []

    def linked(found: re.Match[str]) -> str:
        name, text = found["formula"] or found["term"], found[0]
        known = FORMULAS if found["formula"] else TERMS
        if name not in known or (found["term"] and name in seen):
            return text
        seen.add(name)
        used.add(name)
        return f'<a class="term" href="#{anchor(name)}" title="{_plain(known[name])}">{text}</a>'

    for part in TAG.split(html):
        if part.startswith("<"):
            depth += _quotes(part)
            parts.append(part)
        else:
            parts.append(part if depth else MENTIONED.sub(linked, part))
    return "".join(parts)


def _quotes(tag: str) -> int:
    """1 for the start of an element whose text gets no links (`QUOTED`), -1 for its end, else 0."""
    name = re.match(r"</?(\w+)", tag)
    if not name or name[1] not in QUOTED:
        return 0
    return -1 if tag.startswith("</") else 1


def _plain(html: str) -> str:
    """An explanation as the text of an attribute."""
    return TAG.sub("", html).replace('"', "&quot;")


def address_from(folder: Path, target: Path) -> str:
    """The address of a file for a page in `folder`: relative, so that the whole tree can be moved."""
    return quote(Path(os.path.relpath(target.resolve(), folder.resolve())).as_posix())


def back_link(address: str) -> str:
    """The link from a run's report to a page that compares the run with other runs, as HTML; `address` is quoted."""
    return f'<a href="{escape(address)}">← Comparison with other models</a> '
