"""Samples of a model beside real data, sorted by label if the model has labels."""

import torch

from jensen.data.examples import counted
from jensen.evaluation.exhibits import PER_CLASS
from jensen.report import charts
from jensen.report.album import Album, Picture
from jensen.report.render import Section
from jensen.report.results import Results

Grid = dict[str, object]  # a picture, the names of its rows, and its kind


def sample_section(results: Results, album: Album) -> Section | None:
    """Samples of one model: images as grids, other data as histograms and pairs of dimensions.

    Returns None for a table, because another section shows its columns.
    """
    if results.spec.table is not None:
        return None
    if not results.image:
        return _chart_section(results, album)
    grids = [sample_grid(results, album), mean_grid(results, album), real_grid(results, album)]
    values = {
        "grids": [grid for grid in grids if grid],
        "words": results.words,
        "recognition": agreement(results),
        "means": results.exhibits.sample_means is not None,
    }
    return Section("Samples", "samples", values)


def sample_grid(results: Results, album: Album) -> Grid:
    """A grid of samples; one row per label if the model has labels."""
    exhibits = results.exhibits
    assert exhibits.samples is not None
    shown = exhibits.shown_labels
    return {
        "kind": "samples",
        "words": results.words.samples,
        "picture": album.grid(
            "samples", results.pictures(exhibits.samples), PER_CLASS if shown else None, "Samples of the model"
        ),
        "rows": [results.label_name(label) for label in shown],
        "left_out": len(exhibits.labels) - len(shown),
    }


def mean_grid(results: Results, album: Album) -> Grid | None:
    """A grid of the samples' means; None if the means equal the samples."""
    means = results.exhibits.sample_means
    if means is None:
        return None
    picture = album.grid("sample-means", results.pictures(means), None, "Means of the model's samples")
    return {"kind": "means", "words": results.words.means, "picture": picture, "rows": [], "left_out": 0}


def real_grid(results: Results, album: Album) -> Grid | None:
    """A grid of real examples, arranged like the samples."""
    exhibits = results.exhibits
    if exhibits.real is None:
        return None
    shown, labels = exhibits.shown_labels, results.labels
    by_label = False
    if shown and labels is not None:
        wanted = torch.tensor(shown).repeat_interleave(PER_CLASS)
        by_label = torch.equal(labels[exhibits.real.rows], wanted)
    pictures = results.pictures(exhibits.real.x)
    picture: Picture = album.grid("real", pictures, PER_CLASS if by_label else None, "Test examples")
    names = [results.label_name(label) for label in shown] if by_label else []
    return {"kind": "real", "words": "", "picture": picture, "rows": names, "left_out": 0}


def agreement(results: Results) -> str:
    """The share of samples whose requested label a classifier recognises, in words; empty without a classifier."""
    found = results.recognition
    if found is None:
        return ""
    percent, error = (f"{100 * value:.1f}" for value in (found.mean, found.standard_error))
    return f"{percent} ± {error} % of {found.count:,} samples"


def _chart_section(results: Results, album: Album) -> Section | None:
    drawn, drawn_samples = results.exhibits.drawn, results.exhibits.drawn_samples
    if drawn is None or drawn_samples is None:
        return None
    raw = (results.spec.preparation.to_raw(x) for x in (drawn.x, drawn_samples))
    data, samples = (values.reshape(len(values), -1).astype(float) for values in raw)
    varying = [dimension for dimension in range(data.shape[1]) if data[:, dimension].std() > 0] or [0]
    marginals = charts.marginals(data, samples, varying[:6])
    pairs = charts.scatter_matrix(data, samples, varying[:4]) if len(varying) > 1 else None
    values = {
        "count": counted(len(data)),
        "marginals": album.chart("marginals", marginals, "Histograms of single dimensions, data and samples"),
        "pairs": None if pairs is None else album.chart("pairs", pairs, "Pairs of dimensions, data and samples"),
    }
    return Section("Samples", "sample_charts", values)
