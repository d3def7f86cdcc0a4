"""Check the built site: every link and anchor leads somewhere, nothing is fetched from elsewhere, words are spelt."""

import os
import subprocess
import sys
from collections import deque
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.stage import ROOT

FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}


@dataclass
class Page(HTMLParser):
    """What a page of HTML refers to (tag, attribute, value), the names of its anchors, and its words."""

    refers: list[tuple[str, str, str]] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        fetched = tag != "link" or values.get("rel") in ("stylesheet", "icon", "preload")
        self.refers += [(tag, name, values[name]) for name in ("href", "src") if values.get(name) and fetched]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(site: Path) -> dict[Path, Page]:
    """All pages of a site, by their resolved paths."""
    pages = {}
    for path in sorted(site.resolve().glob("**/*.html")):
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    return pages


def _target(page: Path, link: str) -> tuple[Path, str]:
    parts = urlsplit(link)
    path = page if not parts.path else Path(os.path.normpath(page.parent / unquote(parts.path)))
    return (path / "index.html" if path.is_dir() else path), unquote(parts.fragment)


def faults(site: Path) -> list[str]:
    """Links to no page, to no anchor of a page, and whatever a browser would fetch from another machine."""
    pages, found = read(site), []
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for tag, attribute, link in page.refers:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if (tag, attribute) in FETCHED and parts.scheme != "data":
                    found.append(f"{name}: <{tag}> is fetched from {link}")
                continue
            if name.name == "404.html":  # served for any address, so its links begin at the root
                continue
            target, anchor = _target(path, link)
            if not target.exists():
                found.append(f"{name}: no page {link}")
            elif anchor and target in pages and anchor not in pages[target].anchors | {"__top", ""}:
                found.append(f"{name}: no anchor {link}")
    return found


def clicks(site: Path) -> dict[Path, int]:
    """The number of clicks from the front page to every page that can be reached."""
    pages = read(site)
    front = site.resolve() / "index.html"
    found, queue = {front: 0}, deque([front])
    while queue:
        path = queue.popleft()
        links = [link for tag, _, link in pages[path].refers if tag == "a" and not urlsplit(link).scheme]
        for target in (_target(path, link)[0] for link in links):
            if target in pages and target not in found:
                found[target] = found[path] + 1
                queue.append(target)
    return found


def misspelt(files: list[Path]) -> list[str]:
    """The lines of files with words that are common misspellings, by codespell."""
    words = ROOT / "docs" / "builder" / "words.txt"
    command = [sys.executable, "-m", "codespell_lib", "--ignore-words", str(words), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode not in (0, 65) or done.stderr.strip():
        raise RuntimeError(done.stderr)
    return done.stdout.splitlines()
