"""Draw which chapter imports which: docs/images/house.png.

    .venv/bin/python docs/make_house_picture.py

A row is a chapter, and a square stands where it imports the chapter of that column; the darker, the more files do. The
chapters are in the order of the import law in pyproject.toml, so every square lies below the diagonal.
"""

import tomllib
from collections import Counter
from pathlib import Path

import grimp
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/house.png"
GROUPS = {
    "ground": ("errors", "monotone"),
    "the lecture": ("gaussian", "latent"),
    "beside it": ("compression", "training"),
    "asking": ("evaluation", "inference"),
    "showing": ("report", "report"),
    "making": ("recipe", "run"),
    "doors": ("exchange", "serve"),
    "verbs": ("commands", "cli"),
}
"""The first and the last chapter of each group."""


def chapters() -> list[str]:
    """All chapters, the ground floor first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [room.strip() for layer in reversed(layers) for room in layer.split("|") if room != "__main__"]


def imports() -> Counter[tuple[str, str]]:
    """How many files of one chapter import files of another."""
    graph = grimp.build_graph("jensen")
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            above, below = (name.split(".")[1] if "." in name else "" for name in (module, other))
            found[above, below] += 1
    return found


def draw() -> Figure:
    """The picture."""
    rooms, found = chapters(), imports()
    counts = np.array([[found[above, below] * (above != below) for below in rooms] for above in rooms])
    figure = Figure(figsize=(6.8, 6.4), dpi=150, layout="constrained")
    axes = figure.subplots()
    shades = np.ma.masked_equal(np.sqrt(counts), 0)
    axes.imshow(shades, cmap="Blues", vmin=-1.5, vmax=np.sqrt(counts.max()))
    places = np.arange(len(rooms))
    axes.set_xticks(places, rooms, rotation=90, fontsize=7)
    axes.set_yticks(places, rooms, fontsize=7)
    axes.set_xticks(places[:-1] + 0.5, minor=True)
    axes.set_yticks(places[:-1] + 0.5, minor=True)
    axes.grid(which="minor", color="#e8e8e8", linewidth=0.5)
    axes.tick_params(length=0, which="both")
    axes.plot([-0.5, len(rooms) - 0.5], [-0.5, len(rooms) - 0.5], color="#d9822b", linewidth=0.8)
    for name, (first, last) in GROUPS.items():
        top, bottom = rooms.index(first) - 0.4, rooms.index(last) + 0.4
        right = len(rooms) + 0.2
        axes.plot([right, right], [top, bottom], color="#222222", linewidth=1.2, clip_on=False)
        axes.text(right + 0.4, (top + bottom) / 2, name, va="center", fontsize=8, clip_on=False)
    axes.set_xlim(-0.5, len(rooms) - 0.5)
    axes.set_ylim(len(rooms) - 0.5, -0.5)
    axes.set_ylabel("imports", fontsize=8)
    axes.set_xlabel("is imported", fontsize=8)
    axes.spines[:].set_color("#bbbbbb")
    return figure


def main() -> None:
    """Draw and save the picture."""
    canvas = FigureCanvasAgg(draw())
    canvas.draw()
    pixels = Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba()).convert("RGB")
    pixels.quantize(64, dither=Image.Dither.NONE).save(PICTURE, optimize=True)
    print(f"{PICTURE.relative_to(ROOT)} written")


if __name__ == "__main__":
    main()
