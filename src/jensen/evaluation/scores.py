"""Every example's bound on log p(x), with its terms and its Monte-Carlo standard error."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from jensen import processes
from jensen.bound import Elbo, ImportanceWeightedBound, Profile
from jensen.data.examples import Examples
from jensen.data.preparation import Dequantise, Preparation
from jensen.model import AbstractLatentVariableModel
from jensen.progress import track
from jensen.randomness import Noise, Stream, derived_seed, generator

NUMBERS = 1 << 23  # of x that a model sees at once, at most: what it makes of them is many times as large


@dataclass(frozen=True, eq=False)
class Scores:
    """One row per example: its number, the ELBO in nats, its Monte-Carlo standard error, bits/dim, every term.

    `terms` are signed so that they add up to `bound`. Everything but `index` is float64; all on the CPU, shape (count).
    """

    index: Tensor
    bound: Tensor
    standard_error: Tensor
    bits_per_dimension: Tensor
    terms: dict[str, Tensor]
    profile: Profile | None = None
    """The bound by noise level, where the model has any."""

    @classmethod
    def of(cls, elbos: list[Elbo], index: Tensor, preparation: Preparation) -> Self:
        """The scores that consecutive batches' bounds give."""

        def joined(parts: list[Tensor]) -> Tensor:
            return torch.cat([part.detach().cpu().double() for part in parts])

        terms = {name: joined([elbo.terms[name] for elbo in elbos]) for name in elbos[0].terms}
        bound = torch.stack(list(terms.values())).sum(0)
        error = joined([monte_carlo_error(elbo) for elbo in elbos])
        profiles = [elbo.profile for elbo in elbos if elbo.profile]
        profile = Profile.concatenate(profiles) if profiles else None
        return cls(index, bound, error, preparation.bits_per_dimension(bound), terms, profile)


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
) -> Scores:
    """Every example's ELBO (4.4), averaged over `draws` draws, in nats and in bits per dimension of the raw data.

    What is drawn for an example is a pure function of (seed, its number in `index`, draws); `index` defaults to
    0..count-1. Dequantisation noise u is part of the bound, E_u log p(x + u) <= log P(x), so each draw has its own u
    and the standard error covers it. Dynamic binarisation makes another data set: one image per example and seed.
    Several processes share the batches, each of which one process scores as it would alone.
    """
    index = torch.arange(len(examples)) if index is None else index
    size = at_once(batch_size, draws * preparation.dimensions)
    batches = torch.arange(len(examples)).split(size)
    with processes.together():
        mine = [
            elbo_columns(_elbo(model, examples.x[rows], preparation, draws, seed, index[rows]))
            for rows in track(processes.share(batches), "scoring")
        ]
    return Scores.of([elbo_of(columns) for columns in processes.gathered(mine)], index, preparation)


def _elbo(
    model: AbstractLatentVariableModel, raw: Tensor, preparation: Preparation, draws: int, seed: int, index: Tensor
) -> Elbo:
    if not isinstance(preparation, Dequantise):
        x = prepare(preparation, raw, index, seed)
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


RATE = "rate "
OF_PROFILE = tuple(each.name for each in fields(Profile))


def elbo_columns(elbo: Elbo) -> dict[str, Tensor]:
    """All that an ELBO is made of, by name: what processes tell each other; `elbo_of` turns it back."""
    found = {"reconstruction": elbo.reconstruction, **{RATE + name: rate for name, rate in elbo.rates.items()}}
    if elbo.standard_error is not None:
        found["standard_error"] = elbo.standard_error
    if elbo.profile is not None:
        found |= {name: getattr(elbo.profile, name) for name in OF_PROFILE}
    return found


def elbo_of(columns: Mapping[str, Tensor]) -> Elbo:
    """The ELBO that `elbo_columns` took apart."""
    rates = {name.removeprefix(RATE): rate for name, rate in columns.items() if name.startswith(RATE)}
    profile = Profile(*(columns[name] for name in OF_PROFILE)) if OF_PROFILE[0] in columns else None
    return Elbo(columns["reconstruction"], rates, columns.get("standard_error"), profile)


def prepare(preparation: Preparation, raw: Tensor, index: Tensor, seed: int) -> Tensor:
    """x of a raw batch; where that is random, each example's noise is a pure function of (seed, its number)."""
    return preparation(raw) if preparation.deterministic else _redrawn(preparation, raw, index, seed, 1)[0]


def _redrawn(preparation: Preparation, raw: Tensor, index: Tensor, seed: int, draws: int) -> Tensor:
    """x of a raw batch under `draws` independent draws of the preparation's noise, (draws, batch, *shape)."""
    prepared = [
        preparation(example.expand(draws, *example.shape), Noise(generator(seed, Stream.BINARISATION, number)))
        for example, number in zip(raw, index.tolist(), strict=True)
    ]
    return torch.stack(prepared, dim=1)


def monte_carlo_error(bound: Elbo | ImportanceWeightedBound) -> Tensor:
    """A bound's standard error per example, NaN where it has none."""
    error = bound.standard_error
    return torch.full_like(bound.value, math.nan) if error is None else error


def examples_digest(examples: Examples) -> str:
    """BLAKE2b, 16 bytes in hexadecimal, of type, shape and raw values; labels do not count."""
    dtype, shape = examples.x[:0].cpu().numpy().dtype, tuple(examples.x.shape)
    digest = hashlib.blake2b(f"{dtype} {shape}".encode(), digest_size=16)
    rows = max(1, NUMBERS // math.prod(shape[1:]))
    for part in track(examples.x.split(rows), "fingerprint", -(-len(examples) // rows)):
        digest.update(part.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def at_once(wanted: int, dimensions: int) -> int:
    """How many examples fit into one batch, at most `wanted`, if each is `dimensions` numbers."""
    return min(wanted, max(1, NUMBERS // dimensions))


def spread(count: int, wanted: int | None) -> Tensor:
    """`wanted` row numbers spread evenly over 0..count-1, all of them where `wanted` is None or too many.

    >>> spread(10, 4)
    tensor([0, 2, 5, 7])
    """
    wanted = count if wanted is None else min(wanted, count)
    return torch.arange(wanted) * count // wanted
