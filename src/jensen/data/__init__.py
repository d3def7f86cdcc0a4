"""Data: formats in, tensors and a `DataSpec` out. This chapter knows no probability.

Reading order: `options` (what may be said), `read` (which reader), `digits`, `idx`, `arrays`, `images`, `table` (the
readers), `layout`, `decode`, `pictures` and `columns` (their rules), `stored` and `survey` (data larger than memory),
`split`, `preparation` and `choose` (raw numbers to model input), `spec`, `load`, `report`, `grid`. Names are imported
when first used, so that `jensen.data.options` stays light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.data.check import Report, check
    from jensen.data.examples import Dataset, Examples
    from jensen.data.grid import save_grid, save_image
    from jensen.data.load import load_again, load_data, load_split, read_examples
    from jensen.data.options import PreparationName, ReadOptions
    from jensen.data.preparation import Preparation
    from jensen.data.spec import DataSpec

__all__ = [
    "DataSpec",
    "Dataset",
    "Examples",
    "Preparation",
    "PreparationName",
    "ReadOptions",
    "Report",
    "check",
    "load_again",
    "load_data",
    "load_split",
    "read_examples",
    "save_grid",
    "save_image",
]

_HOME = {
    "DataSpec": "spec",
    "Dataset": "examples",
    "Examples": "examples",
    "Preparation": "preparation",
    "PreparationName": "options",
    "ReadOptions": "options",
    "Report": "report",
    "check": "report",
    "load_again": "load",
    "load_data": "load",
    "load_split": "load",
    "read_examples": "load",
    "save_grid": "grid",
    "save_image": "grid",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
