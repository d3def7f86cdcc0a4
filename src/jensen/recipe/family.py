"""What a family of models must provide beside its model: everything that a verb may ask of one family alone."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from jensen.data.options import PreparationName
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.inference.imputer import AbstractImputer
from jensen.model import AbstractLatentVariableModel
from jensen.recipe.idle import Rule
from jensen.recipe.settings import AbstractRecipe
from jensen.report.words import Words

if TYPE_CHECKING:
    from jensen.compression.codec import AbstractCodec

R = TypeVar("R", bound=AbstractRecipe)
M = TypeVar("M", bound=AbstractLatentVariableModel)


class _Wish:
    """Options of a command, each None where the user gave none."""

    @property
    def given(self) -> dict[str, Any]:
        """The options that the user gave."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class SamplingWish(_Wish):
    """How the user wants samples to be drawn; None: as the recipe says. `guide` is another model of the same data."""

    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    guide: AbstractLatentVariableModel | None = None


@dataclass(frozen=True)
class ImputationWish(_Wish):
    """How the user wants missing values to be drawn; None: the family's default."""

    method: str | None = None
    samples: int | None = None
    sweeps: int | None = None
    particles: int | None = None
    resamplings: int | None = None
    steps: int | None = None


@dataclass(frozen=True, eq=False)
class Sampling(Generic[M]):
    """A model that samples as wished, and how that is: what is recorded beside a measure of its samples.

    `sampler`, `steps` and `guidance` are None for a model that has no such choice; `guide` is the SHA-256 of the
    guide's weights.
    """

    model: M
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    guide: str | None = None


class AbstractFamily(ABC, Generic[R, M]):
    """One family of models: from its recipe to the model, and whatever a command may ask of this family alone."""

    words: Words
    """What a report says of it."""
    conditional_advice: str = ""
    """How to train a model of labels, as in "with --predict label"; empty for a family that predicts none."""
    idle_rules: tuple[Rule, ...] = ()
    """When settings of the model cannot act."""
    anneals: bool = False
    """Whether log p(x) of its models can be estimated by annealed importance sampling."""

    # -- from a recipe to a model

    @abstractmethod
    def preparation(self, recipe: R, levels: int | None) -> PreparationName:
        """How the model wants its x, given the number of levels of the data (None: floats).

        Raises `InputError` for data that the recipe's likelihood does not allow.
        """

    @abstractmethod
    def build(self, recipe: R, spec: DataSpec) -> M:
        """The model for data like `spec`; its layers draw their weights from torch's global generator."""

    def check_data(self, recipe: R, spec: DataSpec) -> None:
        """Warns of what the model does not learn from the data."""

    def check_processes(self, recipe: R, count: int, device: str) -> None:
        """Raises `InputError` for a recipe that `count` processes on devices of this type cannot train together."""

    # -- what a trained model is asked

    @abstractmethod
    def sampling(self, model: M, recipe: R, wish: SamplingWish) -> Sampling[M]:
        """The model as it samples by the recipe and the wish. Raises `InputError` for a wish that it cannot fulfil."""

    @abstractmethod
    def imputer(self, wish: ImputationWish) -> AbstractImputer:
        """The way of imputing that is wished for. Raises `InputError` for options that it does not heed."""

    @abstractmethod
    def codec(self, model: M, steps: int | None) -> "AbstractCodec":
        """The codec of a model; `steps` of its chain, None: the default. `InputError` where it has none."""

    def advice_on_wide_intervals(self, recipe: R) -> str:
        """What to train with where predictive intervals are too wide; empty where there is no advice."""
        return ""


def refuse(wish: SamplingWish, family: str) -> None:
    """Raises `InputError` unless the wish is empty, for a family whose samples leave no choice."""
    if wish.given:
        flags = ", ".join(f"--{name}" for name in wish.given)
        raise InputError(f"{flags}: a model of family {family} leaves no choice of how to sample; leave it out")


def heeded(wish: ImputationWish, methods: Mapping[str, tuple[str, ...]], family: str) -> tuple[str, dict[str, Any]]:
    """The method that is wished for, by default the first, and its options, among `methods` with what each heeds.

    Raises `InputError` for a method of another family, and for options that the method does not heed.
    """
    given = wish.given
    method = given.pop("method", next(iter(methods)))
    if method not in methods:
        raise InputError(f"--method {method}: a model of family {family} imputes by {' or '.join(methods)}; choose one")
    for name in given.keys() - set(methods[method]):
        raise InputError(f"--{name} is not for --method {method}, which heeds --{' and --'.join(methods[method])}")
    return method, given
