"""The preparation of tables: a row of fields becomes x, and nats of x become nats of the row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from jensen.data.atoms import find_atoms
from jensen.data.preparation import Preparation
from jensen.data.table.column import Field as TableField
from jensen.data.table.column import Law
from jensen.errors import InputError
from jensen.monotone import Curve, Curves, fit_curve, fit_curve_to_levels
from jensen.randomness import Noise

SAMPLE = 1 << 17
"""Rows from which a curve is fitted at most, evenly spread over the training rows."""

SHOWN = 4


class PreparedField(BaseModel):
    """What the preparation of one field remembers of the training rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    law: Law

    levels: int | None = None
    """The number of values of codes and whole."""

    curve: Curve | None = None
    """T of real, whole and count; x of a real field is T(raw), that of the others is raw."""

    atoms: tuple[float, ...] = ()
    """The atoms of a real field in raw units, ascending."""

    images: tuple[float, ...] = ()
    """x of each atom; no other value has this x."""

    gap: float | None = None
    """Real: the smallest distance in x between two different training values that are no atoms."""

    mean: float | None = None
    """Count: the mean of the training values."""


class TablePreparation(Preparation):
    """x of codes, whole and count is the number itself; x of real numbers is T(raw), see `jensen.monotone`.

    raw is (B, D) with NaN for missing cells, which stay NaN. T is computed in float64 and rounded to float32. An atom
    has an x of its own: any other value that would round to it gets the next float. So log p(row) = log p(x) + the sum
    of log dT/draw over the observed real cells that are no atoms (4.15).
    """

    kind: Literal["table"] = "table"
    levels: None = None
    fields: tuple[PreparedField, ...] = Field(min_length=1)

    def __call__(self, raw: Tensor, noise: Noise | None = None) -> Tensor:
        real = self._real(raw.device)
        x = raw.to(torch.float32, copy=True)
        if len(real.columns):
            numbers = raw[:, real.columns].double()
            x[:, real.columns] = real.images_of(numbers, real.curves(numbers).to(torch.float32))
        return x

    def to_raw(self, x: Tensor) -> np.ndarray:
        return self.raw_of(x.detach()).cpu().numpy()

    def raw_of(self, x: Tensor) -> Tensor:
        """The raw numbers of x as a tensor, float64; numbers of all laws but real are rounded."""
        real = self._real(x.device)
        x = x.to(torch.float32)
        top = [math.inf if field.levels is None else field.levels - 1 for field in self.fields]
        dense = torch.tensor([field.law == "real" for field in self.fields], device=x.device)
        nearest = x.double().round().clamp(min=0).minimum(torch.tensor(top, dtype=torch.float64, device=x.device))
        raw = torch.where(dense, x.double(), nearest)
        if len(real.columns):
            images = x[:, real.columns]
            raw[:, real.columns] = real.atoms_of(images, real.curves.inverse(images))
        return raw

    def field_to_raw(self, x: Tensor, field: int) -> np.ndarray:
        """The raw numbers of one field, float64, for its x of any shape: as `to_raw` gives them, at the cost of one."""
        x = x.detach().to(torch.float32)
        if self.fields[field].law != "real":
            return _nearest(x.double(), self.fields[field]).cpu().numpy()
        one = self._real(x.device).at(sum(before.law == "real" for before in self.fields[:field]))
        images = x.reshape(-1, 1)
        return one.atoms_of(images, one.curves.inverse(images)).reshape(x.shape).cpu().numpy()

    def to_picture(self, x: Tensor) -> np.ndarray:
        raise InputError("a table has no picture: ask for the rows themselves")

    @property
    def log_volume(self) -> float:
        """0 without real fields; with them it differs from row to row, so it is NaN: use `log_volume_of`."""
        return math.nan if any(field.law == "real" for field in self.fields) else 0.0

    def log_volume_of(self, raw: Tensor) -> Tensor:
        """The sum of log dT/draw over the observed real cells that are no atoms: (B), float64."""
        return self.log_volume_by_field(raw).sum(1)

    def log_volume_by_field(self, raw: Tensor) -> Tensor:
        """The terms of `log_volume_of`, (B, D): 0 for masses, for atoms and for missing cells."""
        real = self._real(raw.device)
        volume = torch.zeros(raw.shape, dtype=torch.float64, device=raw.device)
        if len(real.columns):
            numbers = raw[:, real.columns].double()
            dense = ~(numbers.isnan() | real.is_atom(numbers))
            volume[:, real.columns] = torch.where(dense, real.curves.log_slope(numbers.nan_to_num()), 0)
        return volume

    @cached_property
    def _devices(self) -> dict[torch.device, "_RealFields"]:
        return {}

    def _real(self, device: torch.device) -> "_RealFields":
        """What computes with the real fields, copied to a device once."""
        if device not in self._devices:
            self._devices[device] = _RealFields.of(self.fields, device)
        return self._devices[device]


def _nearest(x: Float[Tensor, "*shape"], field: PreparedField) -> Float[Tensor, "*shape"]:
    """The values of a law of codes, whole numbers or counts that are nearest to x."""
    return x.round().clamp(0, math.inf if field.levels is None else field.levels - 1)


@dataclass(frozen=True, eq=False)
class _RealFields:
    """The real fields of a table: their columns, curves, atoms and images of atoms (fields, most atoms of one)."""

    columns: Tensor
    curves: Curves
    atoms: Tensor
    images: Tensor

    @classmethod
    def of(cls, fields: Sequence[PreparedField], device: torch.device) -> "_RealFields":
        columns = [column for column, field in enumerate(fields) if field.law == "real"]
        most = max((len(fields[column].atoms) for column in columns), default=0) + 1  # one more, for `_found`
        tables = np.full((2, len(columns), most), np.inf)
        for row, column in enumerate(columns):
            for table, values in zip(tables, (fields[column].atoms, fields[column].images), strict=True):
                table[row, : len(values)] = values
        curves = Curves([curve for column in columns if (curve := fields[column].curve) is not None])
        atoms, images = torch.from_numpy(tables).to(device)
        return cls(torch.tensor(columns, device=device, dtype=torch.long), curves.to(device), atoms, images.float())

    def at(self, place: int) -> "_RealFields":
        """One of the real fields."""
        own = slice(place, place + 1)
        return _RealFields(self.columns[own], self.curves.at(place), self.atoms[own], self.images[own])

    def is_atom(self, numbers: Tensor) -> Tensor:
        """Whether each raw number (B, fields) is an atom of its field."""
        return self._found(self.atoms, numbers)[0]

    def images_of(self, numbers: Tensor, x: Tensor) -> Tensor:
        """x, with the images of atoms for atoms, and without them for all other numbers."""
        atom, place = self._found(self.atoms, numbers)
        taken, beside = self._found(self.images, x)
        above = numbers > self.atoms.gather(1, beside.mT).mT
        far = torch.where(above, torch.inf, -torch.inf).to(x)
        x = torch.where(taken, x.nextafter(far), x)
        return torch.where(atom, self.images.gather(1, place.mT).mT, x)

    def atoms_of(self, x: Tensor, numbers: Tensor) -> Tensor:
        """The raw numbers, with the atom wherever x is an image of one."""
        atom, place = self._found(self.images, x)
        return torch.where(atom, self.atoms.gather(1, place.mT).mT, numbers)

    def _found(self, table: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Whether values (B, fields) stand in their row of a table, and where."""
        place = torch.searchsorted(table, values.mT.contiguous()).clamp(max=table.shape[1] - 1)
        return (table.gather(1, place) == values.mT).mT, place.mT


# ---------------------------------------------------------------------------------------------- fit


def fit_table_preparation(
    matrix: Float[np.ndarray, "rows fields"], fields: Sequence[TableField], epsilon: float
) -> tuple[TablePreparation, tuple[str, ...]]:
    """The preparation fitted to a matrix of training rows, and doubts about its columns, one line each.

    `epsilon` is the relative rounding of the given numbers.
    """
    rows = matrix[:: max(1, -(-len(matrix) // SAMPLE))]
    prepared, doubts = [], []
    for column, field in enumerate(fields):
        values = np.asarray(rows[:, column], np.float64)
        values = values[~np.isnan(values)]
        found, shares = _prepared(values, field, epsilon)
        prepared.append(found)
        if len(found.atoms):
            doubts.append(_told(field.name, found.atoms, shares))
    gaps = [field.gap for field in prepared if field.gap is not None]
    preparation = TablePreparation(
        dtype="float64", dimensions=len(fields), resolution=min(gaps, default=1.0), fields=tuple(prepared)
    )
    return preparation, tuple(doubts)


def _prepared(values: np.ndarray, field: TableField, epsilon: float) -> tuple[PreparedField, np.ndarray]:
    """The prepared field, and the shares of its atoms."""
    if field.law == "codes":
        return PreparedField(law=field.law, levels=field.levels), np.zeros(0)
    if field.law != "real":
        mean = float(values.mean()) if field.law == "count" and len(values) else None
        curve = fit_curve_to_levels(values)
        return PreparedField(law=field.law, levels=field.levels, curve=curve, mean=mean), np.zeros(0)
    atoms, shares = find_atoms(values)
    dense = values[~np.isin(values, atoms)]
    curve = fit_curve(dense if len(np.unique(dense)) > 1 else values)
    curves = Curves([curve])
    images = curves(torch.from_numpy(atoms)[:, None])[:, 0].numpy().astype(np.float32)
    for place in range(1, len(images)):  # apart by two floats at least: what lies between them needs an x, too
        apart = np.nextafter(np.nextafter(images[place - 1], np.float32(np.inf)), np.float32(np.inf))
        images[place] = max(images[place], apart)
    distinct = np.unique(dense)
    x = curves(torch.from_numpy(distinct)[:, None])[:, 0].numpy()
    gaps = np.diff(x)[np.diff(distinct) > 8 * epsilon * np.abs(distinct[1:])]
    gap = max(float(gaps.min(initial=1.0)), float(np.finfo(np.float32).eps))
    kept = {"atoms": tuple(atoms.tolist()), "images": tuple(images.tolist())}
    return PreparedField(law="real", curve=curve, gap=gap, **kept), shares


def _told(name: str, atoms: Sequence[float], shares: np.ndarray) -> str:
    """The doubt about a column with atoms."""
    order = np.argsort(-shares, kind="stable")[:SHOWN]
    listed = ", ".join(f"{atoms[place]:g} ({shares[place]:.1%} of the rows)" for place in order)
    more = f" and {len(atoms) - SHOWN} more" if len(atoms) > SHOWN else ""
    many = "a value repeats" if len(atoms) == 1 else f"{len(atoms)} values repeat"
    return (
        f"column {name}: {many} more often than a density allows, {listed}{more}: modelled as point masses beside the "
        "density"
    )
