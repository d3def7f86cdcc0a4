"""The settings of requests: the fields of a JSON body, which are query parameters beside a body of another type."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

HIGHEST_SEED = (1 << 53) - 1  # every whole number up to it is a number of JavaScript
MOST_GIVEN = 10_000
Seed = Field(0, ge=0, le=HIGHEST_SEED, description="The seed of the draws; draw i is a pure function of (seed, i).")
X = Field(
    ...,
    description="Examples in the units of the raw data: nested lists (n, *shape), {'npy': base64}, {'png': base64} or "
    "a list of such; for a table a list of objects {column: cell}, or an object of lists. One example may come alone.",
)


class Ask(BaseModel):
    """The fields that every request has."""

    model_config = ConfigDict(extra="forbid")

    run: str | None = Field(None, max_length=200, description="The name of the run; default: the first.")


class AskSample(Ask):
    """Draw samples."""

    n: int = Field(1, ge=1, description="The number of samples.")
    seed: int = Seed
    first: int = Field(0, ge=0, le=1 << 31, description="The number of the first sample.")
    label: str | int | None = Field(None, description="The label of all samples; default: one after the other.")
    given: dict[str, str | float | int | bool | None] | None = Field(
        None, max_length=MOST_GIVEN, description="Tables: cells of all samples; the others are drawn given them."
    )
    steps: int | None = Field(None, ge=1, le=10_000, description="Diffusion: the number of steps of the sampler.")
    guidance: float | None = Field(None, ge=-100, le=100, description="Diffusion with labels: the scale of guidance.")
    mean: bool = Field(False, description="E[x | latent] in place of samples.")
    png: bool = Field(False, description="Pictures: add each sample as PNG in base64.")

    @field_validator("given", mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        """Refuse too many cells before each of them becomes an error of its own."""
        if isinstance(given, dict) and len(given) > MOST_GIVEN:
            raise ValueError(f"at most {MOST_GIVEN:,} cells")
        return given


class AskExamples(Ask):
    """Ask about examples."""

    x: Any = X


class AskScore(AskExamples):
    """Score examples by the bound on log p(x)."""

    seed: int = Seed


class AskEncode(AskExamples):
    """Encode examples."""

    seed: int = Seed


class AskReconstruct(AskExamples):
    """Encode examples and decode them again."""

    seed: int = Seed
    png: bool = Field(False, description="Pictures: add each reconstruction as PNG in base64.")


class AskDecode(Ask):
    """Decode codes."""

    z: Any = Field(..., description="Codes: nested lists (n, latent), or {'npy': base64}.")
    png: bool = Field(False, description="Pictures: add each result as PNG in base64.")


class AskImpute(AskExamples):
    """Draw missing values given the observed ones."""

    mask: Any = Field(
        None,
        description="1 or true: observed; of the shape of one example or of x. Default: null (NaN) in x is missing.",
    )
    draws: int | None = Field(None, ge=1, le=1000, description="Draws per example; default: 5, for a table 100.")
    method: Literal["gibbs", "importance", "particles", "replacement"] | None = None
    samples: int | None = Field(None, ge=1, le=100_000)
    sweeps: int | None = Field(None, ge=1, le=10_000)
    particles: int | None = Field(None, ge=1, le=1000)
    resamplings: int | None = Field(None, ge=1, le=1000)
    steps: int | None = Field(None, ge=2, le=10_000)
    seed: int = Seed
    png: bool = Field(False, description="Pictures: add the mean of the draws as PNG in base64.")


class AskPredict(AskExamples):
    """Predict labels, targets or a column by p(y|x)."""

    target: str | None = Field(None, max_length=1000, description="Tables: the column to predict.")
    seed: int = Seed


class AskInterpolate(Ask):
    """Decode the points between the codes of two examples."""

    a: Any = Field(..., description="One example; see x of /score.")
    b: Any = Field(..., description="One example; see x of /score.")
    n: int = Field(9, ge=2, description="The number of points, both ends included.")
    path: Literal["spherical", "straight"] = "spherical"


class AskExample(Ask):
    """See test examples, if the server may show them."""

    n: int = Field(1, ge=1, le=100, description="The number of examples.")
    first: int = Field(0, ge=0, le=1 << 31, description="The number of the first; after the last comes the first.")
    png: bool = Field(False, description="Pictures: add each example as PNG in base64.")


class AskFilm(Ask):
    """Watch one sample while it is drawn."""

    seed: int = Seed
    label: str | None = None
    frames: int = Field(25, ge=2, le=1000, description="The number of pictures, about.")
