"""From results to the bytes of an answer: JSON, .npy, PNG or CSV, as the client accepts."""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from jensen.data.grid import grid_bytes, image_bytes
from jensen.data.pictures import as_pictures, pictures_of
from jensen.data.table.column import Table
from jensen.data.table.matrix import decode
from jensen.data.table.write import csv_bytes
from jensen.serve.problems import Problem
from jensen.serve.served import Served

if TYPE_CHECKING:
    import pyarrow

JSON, NPY, PNG, CSV = "application/json", "application/x-npy", "image/png", "text/csv"


@dataclass(frozen=True, eq=False)
class Answer:
    """The result of a request in every form that it has; `fields` is the JSON object.

    Pictures (n, C, H, W) and the rows of a table are made when a client accepts them.
    """

    fields: Mapping[str, Any]
    array: np.ndarray | None = None
    pictures: Callable[[], np.ndarray] | None = None
    frame: "Callable[[], pyarrow.Table] | None" = None
    table: Table | None = None
    """How CSV is written."""

    def forms(self) -> list[str]:
        """The content types of the answer, the default first."""
        has = {JSON: True, NPY: self.array is not None, PNG: self.pictures is not None, CSV: self.frame is not None}
        return [kind for kind, there in has.items() if there]

    def content(self, kind: str, grid: bool) -> bytes:
        """The bytes of the answer."""
        if kind == NPY:
            assert self.array is not None
            stream = io.BytesIO()
            np.save(stream, self.array, allow_pickle=False)
            return stream.getvalue()
        if kind == PNG:
            assert self.pictures is not None
            return grid_bytes(self.pictures()) if grid else image_bytes(self.pictures()[0])
        if kind == CSV:
            assert self.frame is not None
            return csv_bytes(self.frame(), self.table or Table(columns=(), fields=()))
        return json.dumps(plain(self.fields), allow_nan=False).encode()


def chosen(accept: str, forms: Sequence[str]) -> str:
    """The content type that a client accepts, by the header Accept. Raises `Problem` 406."""
    wanted: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept.split(",")[:20]):
        kind, *parameters = (one.strip().lower() for one in part.split(";"))
        share = next((one[2:] for one in parameters if one.startswith("q=")), "1")
        try:
            weight = float(share)
        except ValueError:
            weight = 0.0
        if weight > 0:
            wanted.append((-weight, place, kind))
    for _, _, kind in sorted(wanted):
        if kind in ("*/*", "", "application/*"):
            return forms[0]
        if kind in forms:
            return kind
        if kind.endswith("/*") and (found := [form for form in forms if form.startswith(kind[:-1])]):
            return found[0]
    raise Problem(406, f"Accept: {accept}", f"one of {', '.join(forms)}", "accept one of them")


def plain(value: Any) -> Any:
    """A value of dicts, lists, arrays and numbers as JSON has it; a number that is not finite is null."""
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            cells = value.astype(object)
            cells[~np.isfinite(value)] = None
            return cells.tolist()
        return value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def base64_pictures(pictures: np.ndarray) -> list[str]:
    """Each picture as a PNG in base64."""
    return [base64.b64encode(image_bytes(one)).decode() for one in pictures]


def of_values(
    raw: np.ndarray, prepared: Tensor | None, served: Served, fields: Mapping[str, Any], *, png: bool
) -> Answer:
    """The answer whose x are examples, raw (n, *shape) and, if they can be shown, in the form of the preparation."""
    if served.table is not None:
        frame = decode(raw, served.table)
        rows = [{name: _cell(cell) for name, cell in row.items()} for row in frame.to_pylist()]
        names = frame.column_names
        return Answer({"x": rows, "names": names, **fields}, frame=lambda: frame, table=served.table)
    spec = served.run.spec
    fields = {"x": raw, **fields}
    if not spec.pictured or prepared is None:
        return Answer(fields, array=raw)
    pictures = partial(pictures_of, prepared, spec)
    return Answer({**fields, **({"png": base64_pictures(pictures())} if png else {})}, array=raw, pictures=pictures)


def of_prepared(found: Sequence[Tensor], served: Served, fields: Mapping[str, Any], *, png: bool) -> Answer:
    """The answer whose x are examples in the form of the preparation."""
    prepared = torch.stack(list(found))
    return of_values(served.run.spec.preparation.to_raw(prepared), prepared, served, fields, png=png)


def brightness(raw: np.ndarray, served: Served) -> np.ndarray:
    """Pictures of raw examples (n, *shape), which need not be whole numbers."""
    spec = served.run.spec
    low, high = (0, spec.levels - 1) if spec.levels is not None else (spec.minimum, spec.maximum)
    shade = np.clip((np.nan_to_num(raw.astype(np.float64)) - low) / ((high - low) or 1), 0, 1)
    return as_pictures(np.rint(shade * 255).astype(np.uint8), spec.layout)


def of_columns(columns: Mapping[str, Sequence[Any]], fields: Mapping[str, Any], served: Served) -> Answer:
    """An answer that is a table of its own, such as scores."""

    def frame() -> "pyarrow.Table":
        import pyarrow

        return pyarrow.table({name: pyarrow.array(list(cells), from_pandas=True) for name, cells in columns.items()})

    table = served.table or Table(columns=(), fields=())
    return Answer(fields, frame=frame, table=table.model_copy(update={"columns": (), "header": True}))


def _cell(cell: Any) -> Any:
    """A cell as JSON has it; a date is text."""
    if cell is None or isinstance(cell, str | bool | int | float):
        return cell
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)
