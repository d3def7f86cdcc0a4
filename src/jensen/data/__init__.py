"""Data: many formats in, tensors and a `DataSpec` out. This chapter knows no probability.

Reading order: `options` (of reading), `readers` (one file per format), `stored` and `survey` (data larger than memory),
`splits`, `preparation`, `choose` and `target_scaling` (from raw numbers to model input), `spec`, `examples`, `load`,
`check`, `mask`, `grid`. A name is imported when it is first used, so that `jensen.data.options` imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jensen.data.check import Report
    from jensen.data.examples import Dataset, Examples, Names
    from jensen.data.grid import save_grid, save_image
    from jensen.data.load import load_again, load_data, load_split, read_examples
    from jensen.data.options import PreparationName, ReadOptions
    from jensen.data.preparation import Preparation
    from jensen.data.readers.memory import Source
    from jensen.data.spec import DataSpec

__all__ = [
    "DataSpec",
    "Dataset",
    "Examples",
    "Names",
    "Preparation",
    "PreparationName",
    "ReadOptions",
    "Report",
    "Source",
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
    "Names": "examples",
    "Preparation": "preparation",
    "PreparationName": "options",
    "ReadOptions": "options",
    "Report": "check",
    "Source": "readers.memory",
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
