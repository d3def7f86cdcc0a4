"""Check the built site: every link and anchor leads somewhere, nothing is fetched from elsewhere, words are spelt."""

import os
import re
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from functools import cached_property
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from builder.stage import ROOT

TAG = re.compile(r"<([a-z]\w*)((?:\s+[^\s=>/]+(?:=(?:\"[^\"]*\"|'[^']*'|[^\s>]+))?)*)\s*/?>")
ATTRIBUTE = re.compile(r"""(href|src|rel)=["']?([^"'\s>]*)""")
ANCHOR = re.compile(r"""\b(?:id|name)=["']?([^"'\s>]+)""")
SCRIPT = re.compile(r"(<script\b[^>]*>).*?</script>", re.S)
FETCHED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href")}


@dataclass(frozen=True)
class Page:
    """What a page of HTML refers to (tag, attribute, value), and the names of its anchors."""

    html: str

    @cached_property
    def refers(self) -> list[tuple[str, str, str]]:
        found = []
        for tag, attributes in self._tags:
            values = dict(ATTRIBUTE.findall(attributes))
            if tag != "link" or values.get("rel") in ("stylesheet", "icon", "preload"):
                found += [(tag, name, unescape(values[name])) for name in ("href", "src") if values.get(name)]
        return found

    @cached_property
    def anchors(self) -> set[str]:
        return {unescape(name) for _, attributes in self._tags for name in ANCHOR.findall(attributes)}

    @cached_property
    def _tags(self) -> list[tuple[str, str]]:
        return TAG.findall(SCRIPT.sub(r"\1", self.html))

    @property
    def words(self) -> str:
        """The text of the page without its tags."""
        return unescape(re.sub(r"<[^>]*>", "", self.html))


def read(site: Path) -> dict[Path, Page]:
    """All pages of a site, by their resolved paths."""
    return {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.resolve().glob("**/*.html"))}


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


def clicks(pages: dict[Path, Page], front: Path) -> dict[Path, int]:
    """The number of clicks from the front page to every page that can be reached."""
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
