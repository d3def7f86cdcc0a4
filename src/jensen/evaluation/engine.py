"""The engine runs every estimator of a model on the same examples, batch by batch, and counts the cost of each.

`evaluate` and `referee` are two views of the engine's columns. Every batch is computed independently of other batches,
so neither the number of examples nor the number of processes changes the value of an example.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from jensen import processes
from jensen.bound import AnnealedEstimate, Elbo, ImportanceWeightedBound
from jensen.data.examples import Examples
from jensen.data.preparation import Preparation
from jensen.evaluation.scores import at_once, monte_carlo_error, never_nan, prepare
from jensen.evaluation.units import Units
from jensen.model import AbstractLatentVariableModel, Effort, Estimator
from jensen.progress import track

AT_ONCE = 100  # maximum number of examples in a batch
IN_FLIGHT = 128  # maximum number of copies of each example that a model makes at a time
COST = "cost"
FIELDS = "value", "standard_error", "bias", "observed"  # the float64 tensors of a column

Found = Elbo | ImportanceWeightedBound | AnnealedEstimate

# ---------------------------------------------------------------------------------------------- cost


@dataclass
class Cost:
    """The number of rows that went through networks, the number of rows with a gradient, and the seconds."""

    rows: float = 0
    gradients: float = 0
    seconds: float = 0.0

    def see(self, module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        """The forward hook that counts the rows."""
        rows = len(arguments[0])
        self.rows += rows
        self.gradients += rows * torch.is_grad_enabled()


@contextmanager
def counted(networks: Sequence[nn.Module]) -> Iterator[Cost]:
    """A context that counts the rows through `networks` and, at its end, the seconds."""
    cost, began = Cost(), time.perf_counter()
    hooks = [network.register_forward_hook(cost.see) for network in networks]
    try:
        yield cost
    finally:
        for hook in hooks:
            hook.remove()
        cost.seconds = time.perf_counter() - began


# ---------------------------------------------------------------------------------------------- columns


@dataclass(frozen=True, eq=False)
class Column:
    """The results of one estimator, one row per example.

    All tensors are (count), on the CPU, and float64 except `trusted`. `value` is in nats of the raw data; NaN is
    replaced by -inf, the worst value. `observed` is the number of observed values of each example. `bias` is the
    expected distance of the value below the limit of infinitely many draws. It is error² / 2 for the logarithm of an
    average, else 0. `details` are further numbers per example by name, such as the effective sample size.
    """

    value: Tensor
    standard_error: Tensor
    bias: Tensor
    observed: Tensor
    trusted: Tensor
    details: Mapping[str, Tensor]
    cost: Cost

    @classmethod
    def of(cls, found: Found, units: Units, cost: Cost | None = None) -> Self:
        """The column of one batch's estimate of log p(x)."""
        numbers = {name: _wide(values) for name, values in _numbers(found).items()}
        numbers |= {"value": never_nan(units.nats(found.value)), "observed": units.observed}
        return cls(**_fields(numbers), trusted=trusted(found).cpu(), cost=cost or Cost())

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The columns of consecutive batches as one column; the costs are added up."""
        columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in (*FIELDS, "trusted")}
        details = {name: torch.cat([part.details[name] for part in parts]) for name in parts[0].details}
        rows, gradients, seconds = (sum(getattr(part.cost, each) for part in parts) for each in vars(Cost()))
        return cls(**columns, details=details, cost=Cost(rows, gradients, seconds))

    def tensors(self) -> dict[str, Tensor]:
        """The column as tensors by name, which processes can send to each other; `from_tensors` is the inverse."""
        numbers = {**{name: getattr(self, name) for name in FIELDS}, **self.details}
        cost = torch.tensor([self.cost.rows, self.cost.gradients, self.cost.seconds], dtype=torch.float64)
        return {**numbers, "trusted": self.trusted, COST: cost}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """The column from its `tensors`."""
        rest = dict(tensors)
        cost, believed = Cost(*rest.pop(COST).tolist()), rest.pop("trusted")
        return cls(**_fields(rest), trusted=believed, cost=cost)


def trusted(found: Found) -> Tensor:
    """Whether each value and its error can be trusted; (batch), bool."""
    return torch.ones_like(found.value, dtype=torch.bool) if isinstance(found, Elbo) else found.trusted


def _numbers(found: Found) -> dict[str, Tensor]:
    error = found.standard_error if isinstance(found, AnnealedEstimate) else monte_carlo_error(found)
    numbers = {"value": found.value, "standard_error": error, "bias": torch.zeros_like(found.value)}
    if isinstance(found, Elbo):
        return numbers
    numbers |= {"bias": _wide(error).square().nan_to_num(0.0) / 2, "effective_sample_size": found.effective_sample_size}
    if isinstance(found, AnnealedEstimate):
        return {**numbers, "acceptance": found.acceptance}
    samples = torch.full_like(found.value, found.draws)
    return {**numbers, "samples": samples, "jensen_gap": found.jensen_gap, "pareto_shape": found.pareto_shape}


def _fields(numbers: Mapping[str, Tensor]) -> dict[str, Any]:
    rest = dict(numbers)
    return {**{name: rest.pop(name) for name in FIELDS}, "details": rest}


def _wide(values: Tensor) -> Tensor:
    return values.detach().cpu().double()


# ---------------------------------------------------------------------------------------------- the run


def run_estimators(
    model: AbstractLatentVariableModel,
    examples: Examples,
    preparation: Preparation,
    effort: Effort,
    index: Tensor,
    *,
    seed: int,
    batch_size: int = AT_ONCE,
) -> dict[str, Column]:
    """The column of every estimator by name, cheapest first, for the examples whose indices are in `index`.

    All estimators see the same x, so that differences between estimators are paired. Processes started by torchrun
    divide the batches among themselves.
    """
    estimators = model.estimators(effort)
    size = at_once(min(AT_ONCE, batch_size), IN_FLIGHT * preparation.dimensions)
    mine = []
    with processes.together():
        for rows in processes.share(index.split(size)):
            x = prepare(preparation, examples.x[rows], rows, seed).to(model.device)
            mine.append(_batch(estimators, x, Units.of(preparation, examples.x[rows]), seed, rows))
    parts = processes.gathered(mine)
    return {one.name: Column.joined([_part(columns, one.name) for columns in parts]) for one in estimators}


def _batch(estimators: Sequence[Estimator], x: Tensor, units: Units, seed: int, index: Tensor) -> dict[str, Tensor]:
    """The tensors of all columns of one batch, by "estimator/tensor"."""
    found: dict[str, Tensor] = {}
    for one in track(estimators, "estimates of log p(x)"):
        with counted(one.networks) as cost:
            estimate = one.estimate(x, seed, index)
        found |= {f"{one.name}/{name}": values for name, values in Column.of(estimate, units, cost).tensors().items()}
    return found


def _part(columns: Mapping[str, Tensor], name: str) -> Column:
    start = f"{name}/"
    return Column.from_tensors({k.removeprefix(start): v for k, v in columns.items() if k.startswith(start)})
