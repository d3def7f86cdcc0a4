"""Single examples: reconstructions, the latent plane, and which examples the model finds unlikely."""

from typing import Any

import torch

from jensen.bound import Estimate
from jensen.data.examples import counted
from jensen.evaluation.exhibits import Shown
from jensen.evaluation.measure import typeset
from jensen.report import charts
from jensen.report.album import Album, Picture
from jensen.report.columns import unlikely_rows
from jensen.report.render import Section
from jensen.report.results import Results

# ---------------------------------------------------------------------------------------------- reconstructions


def reconstruction_section(results: Results, album: Album) -> Section | None:
    """Examples and their reconstructions; None if a reconstruction equals its example."""
    pairs = results.exhibits.pairs
    if pairs is None or pairs.reconstructions is None:
        return None
    values: dict[str, Any] = {"image": results.image, "words": results.words.reconstructions}
    if results.image:
        both = results.pictures(torch.cat([pairs.x, pairs.reconstructions]))
        values["picture"] = album.grid("reconstructions", both, len(pairs.x), "Examples above their reconstructions")
    else:
        values["picture"] = _profile_chart(results, album, "reconstructions", pairs)
    return Section("Reconstructions", "reconstructions", values)


def _profile_chart(results: Results, album: Album, name: str, shown: Shown) -> Picture:
    both = [shown.x] if shown.reconstructions is None else [shown.x, shown.reconstructions]
    lines = [values.flatten(1).numpy() for values in both]
    titles = [f"{charts.plain_text(results.name(row))}\n{_score(results, row)} nats" for row in shown.rows.tolist()]
    return album.chart(name, charts.profiles(lines, titles), "Examples over their dimensions")


# ---------------------------------------------------------------------------------------------- latent space


def latent_section(results: Results, album: Album) -> Section | None:
    """A picture of the examples' latent representations."""
    codes, rows = results.exhibits.codes, results.exhibits.encoded
    if codes is None or rows is None:
        return None
    labels = None if results.labels is None else results.labels[rows]
    names, symbols, key = results.spec.label_names, None, []
    if labels is not None:
        symbols = charts.label_symbols(int(labels.max()) + 1, names)
        if symbols and names and list(names) != symbols:
            key = [f"{symbol} = {name}" for symbol, name in zip(symbols, names, strict=False)]
    alt = "Examples in the plane of the first two principal components of their latent representations"
    values = {
        "picture": album.chart("latent", charts.latent_plane(codes, labels, symbols), alt),
        "count": counted(len(codes)),
        "dimensions": f"{codes.shape[1]:,}",
        "words": results.words.codes,
        "drawn_as_labels": bool(symbols),
        "key": ", ".join(key),
    }
    return Section("Latent space", "latent", values)


# ---------------------------------------------------------------------------------------------- example by example


def example_section(results: Results, album: Album) -> Section | None:
    """The distribution of the examples' bounds, and the examples of the lowest bounds; None if no bound is finite."""
    lowest, bound = results.exhibits.lowest, results.scores.bound
    if lowest is None:
        return None
    chart = charts.histogram(bound, results.evaluation.elbo.nats.mean)
    values: dict[str, Any] = {
        "histogram": album.chart("bounds", chart, "Histogram of the examples' bounds"),
        "reconstructed": lowest.reconstructions is not None,
        "words": results.words.reconstructions,
        "image": results.image,
        "tiles": [],
    }
    values["unlikely"] = unlikely_rows(results)
    values["table"] = results.spec.table is not None
    if results.image:
        values["tiles"] = [_tile(results, album, place, lowest) for place in range(len(lowest.rows))]
    elif results.spec.table is None:
        values["picture"] = _profile_chart(results, album, "lowest", lowest)
    return Section("Example by example", "examples", values)


def _tile(results: Results, album: Album, place: int, lowest: Shown) -> dict[str, Any]:
    row = int(lowest.rows[place])
    both = [lowest.x] if lowest.reconstructions is None else [lowest.x, lowest.reconstructions]
    pictures = results.pictures(torch.stack([values[place] for values in both]))
    name, label = results.name(row), results.label(row)
    alt = f"{name}, label {label}" if label else name
    picture = album.grid(f"lowest-{place + 1:02d}", pictures, len(both), alt)
    return {"picture": picture, "name": name, "label": label, "score": _score(results, row)}


def _score(results: Results, row: int) -> str:
    scores = results.scores
    return typeset(Estimate(scores.bound[row].item(), scores.standard_error[row].item(), 1))
