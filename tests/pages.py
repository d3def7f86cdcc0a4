"""A page of HTML as a test sees it."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "img", "br"}
HOSTILE = '"><script>alert(1)</script>'


@dataclass
class Page(HTMLParser):
    """A parsed page: its tags must be balanced."""

    text: str
    images: list[dict[str, str]] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    addresses: list[str] = field(default_factory=list)
    shown: str = ""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.tags.add(tag)
        self.addresses += [found[name] for name in ("src", "href", "srcset", "action", "data") if name in found]
        assert not any(name.startswith("on") for name in found)
        if tag == "img":
            self.images.append(found)
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.shown += data
