"""p(column | others) of a table, and draws of rows given some of their columns, by a VAE.

The columns are independent given z, so with weighted draws z_k of p(z|x_o) (see `Proposals`)

    p(x_j | x_o) = ∫ p(x_j|z) p(z|x_o) dz ≈ Σ_k w_k p(x_j|z_k) / Σ_k w_k        as in (1.4).

x is a row as the model sees it (`DataSpec.preparation`), with NaN for a missing and inf for a hidden cell. Densities
are about x; `TablePreparation.log_volume_by_field` converts them to the units of the data.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from jensen.errors import InputError
from jensen.inference.imputer import ExampleNoise, chosen_by_weight, effective_sample_size
from jensen.inference.proposals import Proposals, knows_parts
from jensen.likelihood.columns import Columns
from jensen.likelihood.real import RealCells
from jensen.model import AbstractLatentVariableModel, Prediction
from jensen.progress import track
from jensen.vae import VAE
from jensen.vae.missing import HIDDEN, PartialObservation, hidden
from jensen.vae.predict import predict_labels

DRAWS = 200  # default number of weighted draws of z
CHOICE, DATA = 1, 2  # purposes of random numbers, besides that of `Proposals`
NUMBERS = 1 << 22  # decoder outputs at a time; changes memory, never a number
HALVINGS = 60  # of an interval, for a quantile in float64

# ---------------------------------------------------------------------------------------------- one column


@dataclass(frozen=True, eq=False)
class ColumnPrediction:
    """p(x_j | x_o) of one column for each row of a batch: a mixture of the laws at the draws of z, float64 weights.

    `log_weights` (draws, batch) are normalised. `law` is p(x_j|z_k), a table of one column with the batch shape (draws,
    batch).
    """

    log_weights: Float[Tensor, " draws batch"]
    law: Columns

    @property
    def effective_sample_size(self) -> Tensor:
        """The number of equally weighted draws that the weighted draws are worth, (batch)."""
        return effective_sample_size(self.log_weights.mT)

    @property
    def missing(self) -> Tensor:
        """p(x_j is missing | x_o), (batch)."""
        return self.cdf(self.law.missing.new_full((self.log_weights.shape[1],), math.nan))

    def present(self) -> "ColumnPrediction":
        """p(x_j | x_o, x_j is not missing)."""
        there = torch.nn.functional.logsigmoid(-self.law.missing[..., 0].double())
        return ColumnPrediction((self.log_weights + there).log_softmax(0), self.law.present())

    def log_prob(self, x: Float[Tensor, " batch"]) -> Tensor:
        """log p(x_j | x_o) in nats, (batch), of a value for each row; NaN is a missing cell."""
        return (self.log_weights + self._log_law(x)).logsumexp(0)

    def standard_error(self, x: Float[Tensor, " batch"]) -> Tensor:
        """Monte-Carlo error of `log_prob`, (batch), by the delta method as in (1.4); NaN for a single draw."""
        weights, relative = self.log_weights.exp(), (self._log_law(x) - self.log_prob(x)).exp() - 1
        return (_correction(len(weights)) * (weights * relative).square().sum(0)).sqrt()

    def classes(self) -> Prediction:
        """P(x_j = k | x_o, not missing) of every value k of codes or whole numbers, with Monte-Carlo errors."""
        there = self.present()
        return predict_labels(lambda logs: logs, [(there.law.log_probabilities(0), there.log_weights)])

    def cdf(self, x: Float[Tensor, " batch"]) -> Tensor:
        """P(missing or at most x | x_o), (batch)."""
        return (self.log_weights.exp() * self.law.cdf(x.unsqueeze(-1))[..., 0]).sum(0)

    def quantile(self, u: Float[Tensor, " batch"]) -> Tensor:
        """The smallest x with P(at most x | x_o, not missing) >= u, (batch), float64, by bisection."""
        there = self.present()
        # The quantile of a mixture lies between the lowest and the highest quantile of its components
        ends = there.law.quantile(u.double().expand(self.log_weights.shape).unsqueeze(-1))[..., 0].double()
        low, high = ends.amin(0), ends.amax(0)
        whole = not isinstance(there.law.parts[0], RealCells)  # codes, whole numbers and counts
        for _ in range(HALVINGS):
            middle = ((low + high) / 2).floor() if whole else (low + high) / 2
            reached = there.cdf(middle) >= u
            low, high = torch.where(reached, low, middle + whole), torch.where(reached, middle, high)
            low = torch.minimum(low, high)
        return high

    def _log_law(self, x: Tensor) -> Tensor:
        return self.law.log_prob_by_dimension(x.unsqueeze(-1))[..., 0].double()


@torch.no_grad()
def predict_column(
    model: AbstractLatentVariableModel,
    x: Tensor,
    field: int,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    index: Tensor | None = None,
) -> ColumnPrediction:
    """p(x_field | all other columns) for the rows x (batch, D); x_field itself is never used.

    Other hidden cells of x stay hidden. The draws for row i are a pure function of (seed, index[i]); `index` defaults
    to 0..batch-1. Memory is proportional to batch x draws. Raises `InputError` for a model that cannot answer.
    """
    vae, part = checked(model), _hiding(x, [field])
    z, ratio = _draws(vae, part, draws, seed, _numbers(x, index))
    law = vae.decode(z)
    weights = (ratio + law.log_prob(part)).double().log_softmax(0)
    return ColumnPrediction(weights, _columns(law).field(field))


# ---------------------------------------------------------------------------------------------- all columns


@dataclass(frozen=True, eq=False)
class ColumnScores:
    """log p(x_g | all other columns) in nats of every group g of columns, with Monte-Carlo errors, (batch, groups).

    A group whose cells are all left out of log p(x) is NaN. `effective_sample_size` is that of the draws of z.
    """

    log_prob: Float[Tensor, " batch groups"]
    standard_error: Float[Tensor, " batch groups"]
    effective_sample_size: Float[Tensor, " batch groups"]


@torch.no_grad()
def score_columns(
    model: AbstractLatentVariableModel,
    x: Tensor,
    groups: Sequence[Sequence[int]] | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    index: Tensor | None = None,
) -> ColumnScores:
    """log p(x_g | x without g) of every group of fields; by default each field is a group.

    Fields of one column, such as the parts of a date, belong into one group. The draws for row i are a pure function of
    (seed, index[i]). Raises `InputError` for a model without an encoder of parts.
    """
    vae, numbers = checked(model), _numbers(x, index)
    groups = [[field] for field in range(x.shape[1])] if groups is None else groups
    found = []
    size = max(1, NUMBERS // (vae.likelihood.outputs * draws))
    for rows in track(torch.arange(len(x)).split(size), "scoring columns"):
        some, indices = x[rows.to(x.device)], [numbers[row] for row in rows.tolist()]
        found.append(torch.stack([_score(vae, some, group, draws, seed, indices) for group in groups], -1))
    return ColumnScores(*torch.cat(found, 1))


def _score(vae: VAE, x: Tensor, group: Sequence[int], draws: int, seed: int, numbers: Sequence[int]) -> Tensor:
    """log p, its error and the effective sample size of a group, (3, batch), float64."""
    part = _hiding(x, group)
    z, ratio = _draws(vae, part, draws, seed, numbers)
    terms = vae.decode(z).log_prob_by_dimension(x).double()
    of_group = terms[..., list(group)].sum(-1)
    weights = (ratio + terms.masked_fill(hidden(part), 0).sum(-1)).log_softmax(0)
    value = (weights + of_group).logsumexp(0)
    relative = (of_group - value).exp() - 1
    error = (_correction(draws) * (weights.exp() * relative).square().sum(0)).sqrt()
    left_out = _left_out(vae, x)[:, list(group)].all(1)
    return torch.stack([value.masked_fill(left_out, math.nan), error, effective_sample_size(weights.mT)])


# ---------------------------------------------------------------------------------------------- rows given columns


@torch.no_grad()
def draw_given(
    model: AbstractLatentVariableModel, x: Tensor, n: int, *, samples: int = DRAWS, seed: int = 0, first: int = 0
) -> tuple[Tensor, Tensor]:
    """Draws first..first+n-1 of rows from p(x_hidden | x_o), (n, D), and the effective sample sizes of z, (n).

    x (D) is the row as the model sees it, with inf for hidden cells; the other cells stay unchanged, bit for bit. Each
    draw chooses its z among `samples` weighted draws of its own. Draw i is a pure function of (seed, i). Raises
    `InputError` for a model that cannot answer.
    """
    vae, parts = checked(model), []
    size = max(1, NUMBERS // (vae.likelihood.outputs * samples))
    for numbers in torch.arange(first, first + n).split(size):
        rows = x.to(vae.device).expand(len(numbers), -1)
        noise = ExampleNoise(seed, numbers.tolist())
        z, ratio = _draws(vae, rows, samples, seed, noise.numbers)
        weights = (ratio + vae.decode(z).log_prob(rows)).double()
        chosen = chosen_by_weight(weights.mT, noise.uniform((1,), CHOICE).to(z.device))[:, 0]
        law = vae.decode(z[chosen, torch.arange(len(rows), device=z.device)])
        drawn = law.quantile(noise.uniform(vae.shape, DATA).to(z.device)).to(rows)
        parts.append((torch.where(hidden(rows), drawn, rows), effective_sample_size(weights.mT)))
    values, sizes = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(sizes)


# ---------------------------------------------------------------------------------------------- helpers


def checked(model: AbstractLatentVariableModel) -> VAE:
    """The model as a VAE. Raises `InputError` unless it is a VAE of tables with an exact prior."""
    if not isinstance(model, VAE):
        kind = type(model).__name__
        raise InputError(f"p(column | others) needs a VAE, and this is a {kind}; use a run of: jensen train vae")
    if not knows_parts(model):
        raise InputError(
            "p(column | others) needs a VAE of a table, and this VAE is of other data; use a run of: jensen train vae "
            "--data TABLE"
        )
    if not model.prior.exact:
        raise InputError(
            "p(column | others) needs log p(z), and a diffusion prior gives only a bound on it; use a run of: jensen "
            "train vae"
        )
    return model


def _draws(vae: VAE, x: Tensor, draws: int, seed: int, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """z (draws, batch, latent) and log p(z) - log r(z), (draws, batch)."""
    proposals = Proposals(draws)
    blocks = proposals.blocks(vae, proposals.q(vae, x), ExampleNoise(seed, numbers))
    z, ratio = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    return z, ratio


def _hiding(x: Tensor, fields: Sequence[int]) -> Tensor:
    out = x.clone()
    out[:, list(fields)] = HIDDEN
    return out


def _left_out(vae: VAE, x: Tensor) -> Tensor:
    """Whether each cell is left out of log p(x), as its law has no probability of a missing cell."""
    generated = getattr(vae.likelihood, "generated", None)
    return hidden(x) | (x.isnan() & ~generated if isinstance(generated, Tensor) else x.isnan())


def _columns(law: object) -> Columns:
    whole = law.whole if isinstance(law, PartialObservation) else law
    assert isinstance(whole, Columns)
    return whole


def _correction(draws: int) -> float:
    return draws / (draws - 1) if draws > 1 else math.nan


def _numbers(x: Tensor, index: Tensor | None) -> Sequence[int]:
    return range(len(x)) if index is None else index.tolist()
