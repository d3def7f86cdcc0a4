"""The interface of a family of models: everything besides the model that depends on the family."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel
from torch import Tensor

from jensen.data.options import PreparationName
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.inference.imputer import AbstractImputer
from jensen.model import AbstractLatentVariableModel
from jensen.recipe.idle import Rule, Table
from jensen.recipe.settings import AbstractRecipe
from jensen.report.words import Words

if TYPE_CHECKING:
    from jensen.compression.codec import AbstractCodec

R = TypeVar("R", bound=AbstractRecipe)
M = TypeVar("M", bound=AbstractLatentVariableModel)


class _Wish:
    """Options of a command; an option that the user did not give is None."""

    @property
    def given(self) -> dict[str, Any]:
        """The options that the user gave."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class SamplingWish(_Wish):
    """Options of sampling; None means the recipe's value. `guide` is another model of the same data."""

    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    guide: AbstractLatentVariableModel | None = None
    last_step: str | None = None


@dataclass(frozen=True)
class ImputationWish(_Wish):
    """Options of imputation; None means the family's default."""

    method: str | None = None
    samples: int | None = None
    sweeps: int | None = None
    particles: int | None = None
    resamplings: int | None = None
    steps: int | None = None


@dataclass(frozen=True, eq=False)
class Sampling(Generic[M]):
    """A model with the requested way of sampling, and the settings of this way for the record of a measurement.

    `sampler`, `steps` and `guidance` are None for a model without this choice. `guide` is the SHA-256 of the guide's
    weights.
    """

    model: M
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    guide: str | None = None


class AbstractFamily(ABC, Generic[R, M]):
    """One family of models: builds the model of a recipe and answers the commands' questions about the family."""

    words: Words
    """The family's captions and formulas in a report."""
    conditional_advice: str = ""
    """How to train a model of labels, as in "with --predict label"; empty for a family that predicts none."""
    idle_rules: tuple[Rule, ...] = ()
    """Rules for settings of the model that have no effect."""
    of_examples: tuple[str, ...] = ()
    """Patterns of the names of weights that are about the training examples, so that other data need fresh ones."""
    anneals: bool = False
    """Whether log p(x) of its models can be estimated by annealed importance sampling."""

    # -- from a recipe to a model

    @abstractmethod
    def preparation(self, recipe: R, levels: int | None) -> PreparationName:
        """The preparation of x for the model, given the number of levels of the data (None: floats).

        Raises `InputError` for data that the recipe's likelihood does not allow.
        """

    @abstractmethod
    def build(self, recipe: R, spec: DataSpec) -> M:
        """The model for data like `spec`; layers draw initial weights from torch's global generator."""

    def explicit(self, recipe: R, spec: DataSpec) -> BaseModel:
        """The model's settings, in which choices that depend on data like `spec` are replaced by the chosen values."""
        return recipe.model

    def suited(self, recipe: R, spec: DataSpec) -> R:
        """The recipe of a new training, whose settings of training suit the data where they have their defaults."""
        return recipe

    def from_other(self, recipe: AbstractRecipe, spec: DataSpec) -> dict[str, Any] | None:
        """The model's settings for a training that starts from a run of another family.

        The arguments are the recipe and the data of the other run. The result is None if this family cannot start from
        the other family.
        """
        return None

    def adapted(
        self,
        weights: dict[str, Tensor],
        own: Mapping[str, Tensor],
        recipes: tuple[Any, R],
        classes: Sequence[int | None],
    ) -> dict[str, Tensor]:
        """Convert the weights of another model into weights of this model.

        The models may differ in their classes and augmentations. The other model is of this family, or of a family that
        `from_other` accepts. `own` are this model's initial weights. `recipes` are the recipe of the other model and
        the recipe of this model. For each class of this model, `classes` has the index of the other model's class of
        the same name, or None.
        """
        return weights

    def tables(self, recipe: R, spec: DataSpec) -> Iterable[Table]:
        """The tables of the model's settings, with the rules for settings that have no effect."""
        return [Table(recipe.model, self.idle_rules, spec)]

    def check_data(self, recipe: R, spec: DataSpec) -> None:
        """Warns about parts of the data that the model does not learn."""

    def check_processes(self, recipe: R, count: int, device: str) -> None:
        """Raises `InputError` for a recipe that `count` processes on devices of this type cannot train together."""

    # -- from a trained model to the commands

    @abstractmethod
    def sampling(self, model: M, recipe: R, wish: SamplingWish) -> Sampling[M]:
        """The model with the recipe's sampling, changed by the wish. Raises `InputError` for an impossible wish."""

    @abstractmethod
    def imputer(self, wish: ImputationWish, spec: DataSpec) -> AbstractImputer:
        """The requested method of imputation for data like `spec`.

        Raises `InputError` for options that the method does not have.
        """

    @abstractmethod
    def codec(self, model: M, steps: int | None) -> "AbstractCodec":
        """The codec of a model with `steps` steps of the chain (None: default); raises `InputError` without a codec."""

    def advice_on_wide_intervals(self, recipe: R) -> str:
        """Flags of training that narrow predictive intervals that are too wide; empty without advice."""
        return ""


def refuse(wish: SamplingWish, family: str) -> None:
    """Raises `InputError` unless the wish is empty; for a family without options of sampling."""
    if wish.given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in wish.given)
        raise InputError(f"{flags}: a model of family {family} has no options of sampling; leave it out")


def heeded(wish: ImputationWish, methods: Mapping[str, tuple[str, ...]], family: str) -> tuple[str, dict[str, Any]]:
    """The requested method (default: the first of `methods`) and its given options.

    `methods` maps each method to the names of its options. Raises `InputError` for a method of another family, and for
    options that the method does not have.
    """
    given = wish.given
    method = given.pop("method", next(iter(methods)))
    if method not in methods:
        raise InputError(f"--method {method}: a model of family {family} imputes by {' or '.join(methods)}; choose one")
    for name in given.keys() - set(methods[method]):
        raise InputError(f"--{name} is not for --method {method}, which has --{' and --'.join(methods[method])}")
    return method, given
