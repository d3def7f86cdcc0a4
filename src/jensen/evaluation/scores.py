"""The bound on log p(x) of every example, with the terms and the Monte-Carlo standard error of the bound."""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from jensen import processes
from jensen.bound import Elbo, ImportanceWeightedBound, Profile
from jensen.data.examples import Examples, counted
from jensen.data.preparation import Dequantise, Preparation
from jensen.evaluation.units import Units, in_bits
from jensen.model import AbstractLatentVariableModel
from jensen.progress import track
from jensen.randomness import Noise, Stream, derived_seed, generator

NUMBERS = 1 << 23  # maximum number of values of x in one batch; the networks need many times as much memory


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of each example: index, ELBO, standard error of the ELBO (Monte Carlo), bits/dim, and every term.

    Nats and bits refer to the raw data; `observed` is the number of observed values of each example. `terms` are signed
    so that they add up to `bound`; the change of units is in the reconstruction. A NaN bound is replaced by -inf, the
    worst value. All tensors have shape (count) and are on the CPU; all but `index` are float64.
    """

    index: Tensor
    bound: Tensor
    standard_error: Tensor
    bits_per_dimension: Tensor
    observed: Tensor
    terms: dict[str, Tensor]
    profile: Profile | None = None
    """The bound by noise level in nats of the raw data; None for a model without noise levels."""

    @classmethod
    def of(cls, elbos: Sequence[Elbo], units: Units, index: Tensor) -> Self:
        """The scores from the bounds of consecutive batches on log p(x)."""

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.cat([part.detach().cpu().double() for part in parts])

        terms = {name: joined([elbo.terms[name] for elbo in elbos]) for name in elbos[0].terms}
        terms[RECONSTRUCTION] = units.nats(terms[RECONSTRUCTION])
        bound = never_nan(torch.stack(list(terms.values())).sum(0))
        error = joined([monte_carlo_error(elbo) for elbo in elbos])
        profiles = [elbo.profile for elbo in elbos if elbo.profile]
        profile = _in_raw_nats(Profile.concatenate(profiles), units) if profiles else None
        return cls(index, bound, error, in_bits(-bound, units.observed), units.observed, terms, profile)

    @property
    def not_finite(self) -> str | None:
        """A warning that counts the bounds that are not finite; None if all are."""
        bad = int((~self.bound.isfinite()).sum())
        return f"the ELBO of {bad} of {len(self.bound)} examples is not finite, so neither is the mean" if bad else None


@torch.no_grad()
def score(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    *,
    draws: int,
    seed: int,
    batch_size: int = 500,
    index: Tensor | None = None,
    unknown: Tensor | None = None,
) -> Scores:
    """Every example's ELBO (4.4), averaged over `draws` draws, in nats and in bits per dimension of the raw data.

    The draws for example i are a pure function of (seed, index[i], draws); `index` defaults to 0..count-1. The noise u
    of dequantisation is part of the bound, E_u log p(x + u) <= log P(x). So each draw has its own u, and the standard
    error covers u. Dynamic binarisation is different: it changes the data set, to one binary image per example and
    seed. `unknown` (bool, of the shape of x) marks values that are not known. The bound is on log p of the other
    values: the model gets inf in their place. Processes started by torchrun divide the batches among themselves; the
    scores are the same as in a single process.
    """
    index = torch.arange(len(examples)) if index is None else index
    size = at_once(batch_size, draws * preparation.dimensions)
    batches = torch.arange(len(examples)).split(size)
    mine = []
    with processes.together():
        for rows in track(processes.share(batches), "scoring"):
            raw = examples.x[rows]
            elbo = _elbo(model, raw, preparation, draws, seed, index[rows], unknown)
            units = Units.of(preparation, raw)
            mine.append({**elbo_columns(elbo), **{UNITS + name: values for name, values in vars(units).items()}})
    parts = processes.gathered(mine)
    units = Units(*(torch.cat([part[UNITS + name] for part in parts]) for name in ("volume", "observed")))
    return Scores.of([elbo_of(columns) for columns in parts], units, index)


def never_nan(bound: Tensor) -> Tensor:
    """Replaces a bound of NaN by -inf, the worst value, so that sorting never puts it first.

    >>> never_nan(torch.tensor([math.nan, -2.0]))
    tensor([-inf, -2.])
    """
    return torch.where(bound.isnan(), -torch.inf, bound)


def _in_raw_nats(profile: Profile, units: Units) -> Profile:
    """The profile in nats of the raw data; the change of units is added to L_0, the first level."""
    return replace(profile, nats=torch.cat([profile.nats[:1] - units.volume, profile.nats[1:]]))


def _elbo(
    model: AbstractLatentVariableModel,
    raw: Tensor,
    preparation: Preparation,
    draws: int,
    seed: int,
    index: Tensor,
    unknown: Tensor | None = None,
) -> Elbo:
    if not isinstance(preparation, Dequantise):
        x = prepare(preparation, raw, index, seed)
        if unknown is not None:
            x = torch.where(x.isnan() & unknown.to(x.device), math.inf, x)
        return model.elbo(x.to(model.device), draws=draws, seed=seed, index=index)
    elbos = [
        model.elbo(x.to(model.device), seed=derived_seed(seed, Stream.EVALUATION, draw), index=index)
        for draw, x in enumerate(_redrawn(preparation, raw, index, seed, draws))
    ]
    reconstruction = torch.stack([elbo.reconstruction for elbo in elbos])
    rates = {name: torch.stack([elbo.rates[name] for elbo in elbos]) for name in elbos[0].rates}
    error = torch.stack([elbo.value for elbo in elbos]).std(0) / math.sqrt(draws)
    profiles = [elbo.profile for elbo in elbos if elbo.profile]
    profile = Profile.average(profiles) if profiles else None
    return Elbo(reconstruction.mean(0), {name: rate.mean(0) for name, rate in rates.items()}, error, profile)


RATE, UNITS, RECONSTRUCTION = "rate ", "units ", "reconstruction"
OF_PROFILE = tuple(each.name for each in fields(Profile))


def elbo_columns(elbo: Elbo) -> dict[str, Tensor]:
    """All parts of an ELBO by name, as tensors that processes can send to each other; `elbo_of` is the inverse."""
    found = {"reconstruction": elbo.reconstruction, **{RATE + name: rate for name, rate in elbo.rates.items()}}
    if elbo.standard_error is not None:
        found["standard_error"] = elbo.standard_error
    if elbo.profile is not None:
        found |= {name: getattr(elbo.profile, name) for name in OF_PROFILE}
    return found


def elbo_of(columns: Mapping[str, Tensor]) -> Elbo:
    """The ELBO from its `elbo_columns`."""
    rates = {name.removeprefix(RATE): rate for name, rate in columns.items() if name.startswith(RATE)}
    profile = Profile(*(columns[name] for name in OF_PROFILE)) if OF_PROFILE[0] in columns else None
    return Elbo(columns["reconstruction"], rates, columns.get("standard_error"), profile)


def prepare(preparation: Preparation, raw: Tensor, index: Tensor, seed: int) -> Tensor:
    """x of a raw batch; the noise of a random preparation for row i is a pure function of (seed, index[i])."""
    return preparation(raw) if preparation.deterministic else _redrawn(preparation, raw, index, seed, 1)[0]


def _redrawn(preparation: Preparation, raw: Tensor, index: Tensor, seed: int, draws: int) -> Tensor:
    """x of a raw batch under `draws` independent draws of the preparation's noise, (draws, batch, *shape)."""
    prepared = [
        preparation(example.expand(draws, *example.shape), Noise(generator(seed, Stream.BINARISATION, number)))
        for example, number in zip(raw, index.tolist(), strict=True)
    ]
    return torch.stack(prepared, dim=1)


def monte_carlo_error(bound: Elbo | ImportanceWeightedBound) -> Tensor:
    """A bound's standard error per example; NaN if the bound has none."""
    error = bound.standard_error
    return torch.full_like(bound.value, math.nan) if error is None else error


def examples_digest(examples: Examples) -> str:
    """BLAKE2b digest (16 bytes, hexadecimal) of the type, shape and raw values, without labels."""
    dtype, shape = examples.x[:0].cpu().numpy().dtype, tuple(examples.x.shape)
    digest = hashlib.blake2b(f"{dtype} {shape}".encode(), digest_size=16)
    rows = max(1, NUMBERS // math.prod(shape[1:]))
    for part in track(examples.x.split(rows), "fingerprint", -(-len(examples) // rows)):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def at_once(wanted: int, dimensions: int) -> int:
    """The number of examples with `dimensions` values each that fit into one batch, up to `wanted`."""
    return min(wanted, max(1, NUMBERS // dimensions))


def note_shortage(count: int, wanted: int | None) -> None:
    """Warn if the user wants more examples than there are."""
    if wanted is not None and wanted > count:
        warnings.warn(f"--examples {wanted}: there are only {counted(count)}, which are all used", stacklevel=3)


def spread(count: int, wanted: int | None) -> Tensor:
    """`wanted` evenly spread indices of 0..count-1; all indices if `wanted` is None or above `count`.

    >>> spread(10, 4)
    tensor([0, 2, 5, 7])
    """
    wanted = count if wanted is None else min(wanted, count)
    return torch.arange(wanted) * count // wanted
