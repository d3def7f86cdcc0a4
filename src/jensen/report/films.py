"""Films of images from data to noise and back."""

import math

from torch import Tensor

from jensen.model import Film
from jensen.report.album import Album
from jensen.report.render import Section
from jensen.report.results import Results


def film_section(results: Results, album: Album, title: str = "From data to noise, and back") -> Section | None:
    """Three strips whose columns are the same noise levels: x_t of examples, x_t of samples, the samples' x̂."""
    noising, denoising, filmed = results.exhibits.noising, results.exhibits.denoising, results.exhibits.filmed
    if not results.image or noising is None or denoising is None or filmed is None:
        return None
    assert denoising.estimate is not None
    shown = results.exhibits.shown_labels
    examples = [results.label(int(row)) for row in filmed]
    labels = [results.label_name(shown[number % len(shown)]) if shown else "" for number in range(denoising.x.shape[1])]
    estimates = Film(denoising.log_snr, denoising.estimate)
    strips = {"noising": (noising, examples), "denoising": (denoising, labels), "estimates": (estimates, labels)}
    return Section(title, "films", {"strips": [_strip(results, album, name, *one) for name, one in strips.items()]})


def _strip(results: Results, album: Album, name: str, film: Film, rows: list[str]) -> dict[str, object]:
    """One row per example, one column per frame."""
    frames = results.pictures(film.x.transpose(0, 1).flatten(0, 1))
    alt = f"{name}: one row per example, one column per noise level"
    return {
        "name": name,
        "picture": album.grid(name, frames, len(film.x), alt),
        "rows": rows,
        "levels": levels(film.log_snr),
    }


def levels(log_snr: Tensor) -> list[str]:
    """Noise levels as text, below the frames."""
    return [_level(level) for level in log_snr.tolist()]


def _level(log_snr: float) -> str:
    return f"{log_snr:+.1f}".replace("-", "−") if math.isfinite(log_snr) else "∞" if log_snr > 0 else "−∞"
