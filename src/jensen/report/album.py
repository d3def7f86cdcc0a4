"""Pictures of a page: saved as PNG files beside it, and put into it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jensen.data.grid import save_grid
from jensen.report import page
from jensen.report.charts import save_chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 64  # images up to this many pixels high and wide are enlarged as squares


@dataclass(frozen=True)
class Album:
    """The folder of a page's pictures, and what their names begin with."""

    folder: Path
    prefix: str = ""

    def chart(self, name: str, figure: "Figure", alt: str, caption: str) -> str:
        """Save a matplotlib figure and give it as HTML; `alt` is plain text, `caption` HTML."""
        path = self._path(name)
        save_chart(figure, path)
        return page.figure(page.image(path, alt, "chart"), caption)

    def grid(self, name: str, pictures: np.ndarray, columns: int | None, alt: str) -> str:
        """Save uint8 images (N, C, H, W) as a grid and give it as HTML."""
        path = self._path(name)
        save_grid(pictures, path, columns)
        return page.image(path, alt, "pixels" if max(pictures.shape[2:]) <= SMALL else "photograph")

    def _path(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{self.prefix}{name}.png"
