"""The HTML of a report: one page that needs nothing but itself; what is plain text is escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --soft: #5d6068; --line: #dddcd6; --paper: #ffffff; --mark: #b5521b; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7e6e3; --soft: #a3a6ad; --line: #3b3c40; --paper: #141414; --mark: #e59a5f; }
  img.chart { filter: invert(.922) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
html { background: var(--paper); }
body { max-width: 44rem; margin: 0 auto; padding: 3.5rem 1.25rem 5rem; color: var(--ink); background: var(--paper);
  font: 1.03rem/1.6 Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; font-weight: 600; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 3.2rem 0 .6rem; font-weight: 600; }
h3 { font-size: 1.05rem; margin: 1rem 0 .5rem; font-weight: 600; overflow-wrap: anywhere; }
p { margin: .7rem 0; overflow-wrap: anywhere; }
.lead { color: var(--soft); margin-top: 0; }
.key { display: flex; flex-wrap: wrap; gap: 1.2rem 2.8rem; margin: 2rem 0; padding: 1.1rem 0;
  border-block: 1px solid var(--line); }
.key b { display: block; font-size: 1.6rem; font-weight: 500; line-height: 1.3; }
.key b, .number, .error { font-variant-numeric: tabular-nums lining-nums; white-space: nowrap; }
.key span, figcaption, .small { font-size: .87rem; line-height: 1.5; color: var(--soft); }
.warning { margin: 1rem 0; padding: .1rem 0 .1rem 1rem; border-left: 3px solid var(--mark); }
figure { margin: 1.6rem 0 2rem; }
figcaption { margin-top: .5rem; }
img { display: block; width: 100%; height: auto; }
img.pixels { image-rendering: pixelated; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1.2rem; }
.labelled { display: grid; grid-template-columns: max-content 1fr; column-gap: .5rem; font-size: .8rem;
  line-height: 1.2; color: var(--soft); }
.rows { display: grid; grid-auto-rows: 1fr; align-items: center; justify-items: end; }
.rows span { max-width: 7rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.below { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; text-align: center; padding-top: .3rem;
  font-variant-numeric: tabular-nums lining-nums; }
.corner { padding-top: .3rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.4rem, 1fr)); gap: 1.1rem; }
.tiles figcaption { margin-top: .25rem; font-size: .8rem; line-height: 1.35; }
.beside > figure, .tiles figure { margin: 0; }
.beside figure { margin: .6rem 0 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; margin: 1rem 0; }
th, td { text-align: left; padding: .28rem .8rem .28rem 0; vertical-align: baseline; }
thead > tr > * { font-weight: 400; font-size: .87rem; color: var(--soft); border-bottom: 1px solid var(--line); }
sub { line-height: 0; }
tbody th { font-weight: 400; white-space: nowrap; }
tbody th.heading { padding-top: 1.1rem; font-style: italic; }
.number { text-align: right; padding-right: .35rem; }
.error { color: var(--soft); }
.formula { color: var(--soft); font-size: .87rem; min-width: 13rem; }
dl { display: grid; grid-template-columns: 9rem 1fr; gap: .25rem 1rem; margin: 1rem 0; font-size: .95rem; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { overflow-x: auto; padding: .9rem 1rem; border: 1px solid var(--line); border-radius: 4px; font-size: .82rem;
  line-height: 1.45; }
pre.columns { columns: 17rem; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
@media print { body { max-width: none; padding: 0; } figure, table { break-inside: avoid; } }
"""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the browser itself refuses any request


def page(title: str, body: str) -> str:
    """The whole document; `title` is plain text, `body` is HTML."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def key(numbers: Mapping[str, str]) -> str:
    """The numbers to remember: what they are in plain text, and what is written large in HTML."""
    items = "".join(f"<div><b>{value}</b><span>{escape(name)}</span></div>" for name, value in numbers.items())
    return f'<div class="key">{items}</div>'


def section(title: str, *parts: str) -> str:
    """A heading in plain text and the HTML below it."""
    return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(parts) + "\n</section>"


def part(title: str, *parts: str) -> str:
    """A part of a section, under a smaller heading in plain text."""
    return f"<div>\n<h3>{escape(title)}</h3>\n" + "\n".join(parts) + "\n</div>"


def image(path: Path, alt: str, kind: str) -> str:
    """A PNG inside the page; `kind` is chart, pixels (small images, shown as squares) or photograph."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img class="{kind}" alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def figure(content: str, caption: str) -> str:
    """HTML content over its caption, HTML as well."""
    return f"<figure>\n{content}\n<figcaption>{caption}</figcaption>\n</figure>"


def group(kind: str, figures: Sequence[str]) -> str:
    """Figures in a grid: `beside` for two, `tiles` for many."""
    return f'<div class="{kind}">\n' + "\n".join(figures) + "\n</div>"


def labelled(content: str, rows: Sequence[str], below: Sequence[str] = (), corner: str = "") -> str:
    """HTML of an image with a name, plain text, beside each of its rows and below each of its columns."""
    beside = "".join(f"<span>{escape(name)}</span>" for name in rows)
    under = "".join(f"<span>{escape(name)}</span>" for name in below)
    foot = f'\n<div class="corner">{escape(corner)}</div><div class="below">{under}</div>' if below else ""
    return f'<div class="labelled"><div class="rows">{beside}</div>\n{content}{foot}</div>'


def columns(heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A table of HTML cells, a column for each head; the names of the rows are plain text."""
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    lines = [
        f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, cells in rows.items()
    ]
    body = "\n".join(lines)
    return f'<div class="wide"><table>\n<thead><tr><td></td>{top}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def definitions(items: Mapping[str, str]) -> str:
    """Names and what they are, both plain text."""
    rows = "\n".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in items.items())
    return f"<dl>\n{rows}\n</dl>"


def preformatted(text: str, kind: str = "") -> str:
    """Plain text as it stands; of kind `columns`, in as many as there is room for."""
    return f'<pre class="{kind}">{escape(text)}</pre>'
