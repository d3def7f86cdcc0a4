"""Draws of the bound's parts for chosen examples of a test set, in nats of the raw data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jensen import processes
from jensen.data.examples import Examples
from jensen.data.preparation import Dequantise, Preparation
from jensen.errors import InputError
from jensen.evaluation.engine import counted
from jensen.evaluation.scores import at_once, prepare
from jensen.evaluation.survey import Draws
from jensen.evaluation.units import Units
from jensen.model import AbstractLatentVariableModel, Effort, Parts
from jensen.randomness import Stream, derived_seed, generator

AT_ONCE = 250
ELBO = "ELBO"  # the first estimator of every model


@dataclass(frozen=True, eq=False)
class Source:
    """The mean over `known` (N), in nats, plus the sum of `count` parts, drawn by `draw(examples, parts, visit)`.

    `observed` (N) is the number of observed values of each example. Two draws of the same part and example differ if
    they belong to different visits.
    """

    count: int
    known: Float[Tensor, " examples"]
    observed: Float[Tensor, " examples"]
    draw: Callable[[Tensor, Tensor, int], Tensor]
    networks: tuple[nn.Module, ...]
    at_once: int
    """Maximum number of rows in a batch: it changes memory and speed, never a number."""

    def __sub__(self, other: "Source") -> "Source":
        """The difference on the same examples and with the same random numbers, part by part if the parts agree."""
        known, networks = self.known - other.known, (*self.networks, *other.networks)
        at_once = min(self.at_once, other.at_once)
        if self.count == other.count:

            def paired(examples: Tensor, parts: Tensor, visit: int) -> Tensor:
                return self.draw(examples, parts, visit) - other.draw(examples, parts, visit)

            return Source(self.count, known, self.observed, paired, networks, at_once)

        def either(examples: Tensor, parts: Tensor, visit: int) -> Tensor:
            found, first = torch.empty(len(parts), dtype=torch.float64), parts < self.count
            for mine, source, sign, start in ((first, self, 1, 0), (~first, other, -1, self.count)):
                if bool(mine.any()):
                    found[mine] = sign * source.draw(examples[mine], parts[mine] - start, visit)
            return found

        return Source(self.count + other.count, known, self.observed, either, networks, at_once)

    def drawn(
        self, examples: Int[Tensor, " rows"], parts: Int[Tensor, " rows"], visits: Int[Tensor, " rows"]
    ) -> Iterator[tuple[Draws, float]]:
        """Yield the draws of all rows, a few batches at a time, each batch with its number of network evaluations.

        Processes started by torchrun divide the batches among themselves.
        """
        batches = [
            rows for visit in visits.unique() for rows in (visits == visit).nonzero().squeeze(1).split(self.at_once)
        ]
        together = processes.count()
        for start in range(0, len(batches), together):
            with processes.together():
                shared = processes.share(batches[start : start + together])
                mine = [self._batch(examples, parts, visits, rows) for rows in shared]
            for found in processes.gathered(mine):
                rows = found["rows"]
                yield Draws(parts[rows], examples[rows], found["value"]), float(found["evaluations"])

    def _batch(self, examples: Tensor, parts: Tensor, visits: Tensor, rows: Tensor) -> dict[str, Tensor]:
        with counted(self.networks) as cost:
            value = self.draw(examples[rows], parts[rows], int(visits[rows[0]]))
        return {"rows": rows, "value": value, "evaluations": torch.tensor(cost.rows, dtype=torch.float64)}


def parts_of(model: AbstractLatentVariableModel, name: str, effort: Effort) -> Parts:
    """The parts of the ELBO, or one part for another estimator of the model: the whole estimate of an example.

    Raises `InputError` for a name that the model does not have.
    """
    found = {one.name: one for one in model.estimators(effort)}
    if name not in found:
        raise InputError(f"--of {name}: expected one of {', '.join(found)}")
    if name == ELBO:
        return model.parts()
    chosen = found[name]

    def draw(x: Tensor, part: Tensor, seed: int, index: Tensor) -> Tensor:
        return chosen.estimate(x, seed, index).value

    return Parts(1, draw, chosen.networks)


def source_of(
    model: AbstractLatentVariableModel, parts: Parts, examples: Examples, preparation: Preparation, seed: int
) -> Source:
    """The parts of a bound of `model` on raw examples.

    The noise of dequantisation is part of the bound and differs between visits; a dynamic binarisation is part of the
    data and does not.
    """
    units = [Units.of(preparation, examples.x[rows]) for rows in torch.arange(len(examples)).split(1000)]

    def draw(rows: Tensor, part: Tensor, visit: int) -> Tensor:
        own = derived_seed(seed, Stream.EVALUATION, visit)
        x = prepare(preparation, examples.x[rows], rows, own if isinstance(preparation, Dequantise) else seed)
        return parts.draw(x.to(model.device), part, own, rows).detach().cpu().double()

    known, observed = (torch.cat([getattr(one, name) for one in units]) for name in ("volume", "observed"))
    return Source(parts.count, known, observed, draw, parts.networks, at_once(AT_ONCE, 8 * preparation.dimensions))


def visiting_order(count: int, seed: int, positions: Int[Tensor, " rows"]) -> tuple[Tensor, Tensor]:
    """The example and the visit, counted from 0, at each position: random orders of all examples, one after another."""
    visits = positions // count
    examples = torch.empty_like(positions)
    for visit in visits.unique().tolist():
        order = torch.randperm(count, generator=generator(seed, Stream.EVALUATION, Stream.ORDER, visit))
        examples[visits == visit] = order[positions[visits == visit] % count]
    return examples, visits
