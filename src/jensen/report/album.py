"""Pictures of a page, saved as PNG files beside the page and embedded in it."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from jensen.data.grid import save_grid
from jensen.report.charts import save_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 64  # images up to this many pixels high and wide are enlarged as squares


@dataclass(frozen=True)
class Picture:
    """A PNG of a page."""

    path: Path
    """The file, in a folder beside the page."""
    alt: str
    kind: str
    """chart, pixels (small images, shown as squares) or photograph."""

    @property
    def address(self) -> str:
        """The address of the file relative to the page."""
        return quote(f"{self.path.parent.name}/{self.path.name}")

    @property
    def data(self) -> str:
        """The content of the file in base64."""
        return base64.b64encode(self.path.read_bytes()).decode()


@dataclass(frozen=True)
class Album:
    """The folder of a page's pictures, and the prefix of their file names."""

    folder: Path
    prefix: str = ""

    def chart(self, name: str, figure: "Figure", alt: str) -> Picture:
        """Save a matplotlib figure."""
        path = self._path(name)
        save_chart(figure, path)
        return Picture(path, alt, "chart")

    def grid(self, name: str, pictures: np.ndarray, columns: int | None, alt: str) -> Picture:
        """Save uint8 images (N, C, H, W) as a grid."""
        path = self._path(name)
        save_grid(pictures, path, columns)
        return Picture(path, alt, "pixels" if max(pictures.shape[2:]) <= SMALL else "photograph")

    def _path(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{self.prefix}{name}.png"
