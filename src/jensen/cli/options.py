"""What every command takes, as pydantic models: tyro makes the flags and the help from them. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from jensen.data.options import ReadOptions
from jensen.evaluate.settings import EvaluationSettings
from jensen.features.settings import ClassifierSettings
from jensen.recipe.settings import DiffusionRecipe, Recipe, Sampler, VAERecipe

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Demo(_Command):
    """Train both families on the embedded digits, evaluate and compare them: two minutes."""

    out: Path = Path("runs/demo")
    """The folder of the two runs and of their common report; an earlier demo there is replaced."""


class AbstractTrain(_Command):
    """Train a model: data in, a run folder out."""

    out: Path | None = None
    """The new folder of the run. Default: runs/ and the name of the config file, or of the family."""
    config: Path | None = None
    """A TOML file of any of the fields below; flags win over it."""
    recipe: Recipe


class TrainVAE(AbstractTrain):
    """Train a variational autoencoder: data in, a run folder out."""

    recipe: VAERecipe = VAERecipe()


class TrainDiffusion(AbstractTrain):
    """Train a diffusion model: data in, a run folder out."""

    recipe: DiffusionRecipe = DiffusionRecipe()


class Resume(_Command):
    """Continue an interrupted run, bit for bit as if it had never stopped."""

    run: RunFolder
    """The folder of the run."""


class Sample(_Command):
    """Draw samples from a trained model; sample i depends on (seed, i) alone."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """A .png (a grid), an .npz (raw values under `x`), or a folder that gets a PNG each."""
    n: PositiveInt = 64
    """How many."""
    seed: NonNegativeInt = 0
    """The seed of the samples."""
    first: NonNegativeInt = 0
    """The number of the first sample: the same seed goes on from there."""
    mean: bool = False
    """E[x | latent], without the observation noise that a draw from p(x) has."""
    label: str | None = None
    """Diffusion with labels: the one that all samples get, by name or number. Default: one after the other."""
    guidance: float | None = None
    """Diffusion with labels: the scale of classifier-free guidance. Default: the run's."""
    sampler: Sampler | None = None
    """Diffusion: how to sample. Default: the run's."""
    steps: PositiveInt | None = None
    """Diffusion: in how many steps. Default: the run's."""


class Reconstruct(_Command):
    """Encode examples and decode them again; originals above, reconstructions below."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """A .png of pairs, or an .npz with `x` and `reconstruction`."""
    data: str | None = None
    """DATA to read under the run's rules. Default: the run's own test examples."""
    split: Literal["train", "validation", "test"] = "test"
    """Which of the run's own examples."""
    n: PositiveInt = 16
    """How many, from the first."""


class Evaluate(_Command):
    """Bound log p(x) on a test set: a table, evaluation.json and report.html."""

    run: RunFolder
    """The folder of the run."""
    data: str | None = None
    """DATA to read under the run's rules. Default: the run's own examples."""
    split: Literal["train", "validation", "test"] = "test"
    """Which of the run's own examples."""
    settings: EvaluationSettings = EvaluationSettings()


class Compare(_Command):
    """Show evaluations of several runs on the same test data side by side: a table, and report.html."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN [RUN ...]")]
    """The folders of runs that have been evaluated on their test examples; differences are to the first."""
    out: Path
    """The folder that gets report.html and pictures/."""


class Score(_Command):
    """Score every example: bound in nats, standard error, bits/dim, as CSV."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """The .csv to write."""
    data: str | None = None
    """DATA to read under the run's rules. Default: the run's own test examples."""
    split: Literal["train", "validation", "test"] = "test"
    """Which of the run's own examples."""
    draws: int | None = Field(None, ge=2)
    """Draws per example; the standard error falls with their square root. Default: 16 of a VAE, 2 of diffusion."""
    seed: NonNegativeInt = 0
    """The seed of the draws."""


class FeaturesTrain(_Command):
    """Train a small classifier on the run's data, in whose features distances are measured."""

    run: RunFolder
    """The folder of the run; an earlier classifier in it is replaced."""
    seed: NonNegativeInt = 0
    """The seed of the classifier."""
    settings: ClassifierSettings = ClassifierSettings()


class FeaturesDistance(_Command):
    """Measure how far samples are from the test split, by sampler and steps: a table and a picture."""

    run: RunFolder
    """The folder of the run; what is in its distances.json already is not measured again."""
    n: PositiveInt | None = None
    """How many samples. Default: 10,000, or as many as there are training examples."""
    sampler: tuple[Sampler, ...] = ()
    """Diffusion: how to sample, one or several. Default: the run's."""
    steps: tuple[PositiveInt, ...] = ()
    """Diffusion: in how many steps, one or several numbers. Default: the run's."""
    guidance: float | None = None
    """Diffusion with labels: the scale of classifier-free guidance. Default: the run's."""
    seed: NonNegativeInt = 0
    """The seed of the samples."""


class FeaturesCheck(_Command):
    """Test samples against the data: two-sample tests, precision and recall, and whether they are memorised."""

    run: RunFolder
    """The folder of the run; its classifier's features are used where there is one, else pixels."""
    n: PositiveInt = 1000
    """How many samples."""
    pixels: bool = False
    """Compare pixels, whether there is a classifier or not."""
    k: PositiveInt = 5
    """Neighbours for precision, recall, density and coverage."""
    seed: NonNegativeInt = 0
    """The seed of the samples, of permutations and directions."""


class Info(_Command):
    """Say what a run is: data, model, training, how far it came, what was measured."""

    run: RunFolder
    """The folder of the run."""


class DataCheck(_Command):
    """Say what DATA holds, and what would be refused and why."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """`digits`, a folder of IDX files or of images, or an .npy / .npz file."""
    read: ReadOptions = ReadOptions()
