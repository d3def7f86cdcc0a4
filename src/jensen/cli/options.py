"""What every command takes, as pydantic models: tyro makes the flags and the help from them. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal, Self

import tyro
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from jensen.data.options import ReadOptions, Streaming
from jensen.evaluation.settings import EvaluationSettings, RefereeSettings
from jensen.features.settings import ClassifierSettings
from jensen.recipe.settings import DiffusionRecipe, Recipe, Sampler, VAERecipe

Split = Literal["train", "validation", "test"]
RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


class _Command(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _OfExamples(_Command):
    data: str | None = None
    """DATA to read under the run's rules. Default: the run's own test examples."""
    split: Split | None = None
    """Which of the run's own examples. Default: test."""

    @property
    def part(self) -> Split:
        """The split of the run's own examples that is meant where there is no `data`."""
        return self.split or "test"

    @property
    def of_test(self) -> bool:
        """Whether the run's own test examples are meant, which alone its folder's records and its report are about."""
        return self.data is None and self.part == "test"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.data is not None and self.split is not None:
            raise ValueError(f"--split {self.split} is of the run's own examples; leave it out beside --data")
        return self


class Demo(_Command):
    """Train both families on embedded digits and compare them: two minutes."""

    out: Path = Path("runs/demo")
    """The folder of the two runs and of their common report; an earlier demo there is replaced."""


class AbstractTrain(_Command):
    """Train a model: data in, a run folder out."""

    out: Path | None = None
    """The new folder of the run. Default: runs/ and the name of the config file, or of the family."""
    config: Path | None = None
    """A TOML file of any of the fields below, or the recipe.json of a run; flags win over it."""
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
    stream: Streaming | None = None
    """Whether to leave the examples on disk, which changes no number. Default: as the run was begun."""
    data: str | None = None
    """The new place of the run's own data, where they have moved; it is checked and recorded."""


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
    """Diffusion with labels: the scale of classifier-free guidance, or of that by --guide. Default: the run's."""
    guide: Path | None = None
    """Diffusion: a worse run of the same data, say one that trained for less long, to be guided away from."""
    sampler: Sampler | None = None
    """Diffusion: how to sample. Default: the run's."""
    steps: PositiveInt | None = None
    """Diffusion: in how many steps. Default: the run's."""


class Reconstruct(_OfExamples):
    """Encode examples and decode them again: originals and reconstructions."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """A .png of pairs, or an .npz with `x` and `reconstruction`."""
    examples: PositiveInt = 16
    """How many, from the first."""


class Evaluate(_OfExamples):
    """Bound log p(x) on a test set: a table, evaluation.json and report.html."""

    run: RunFolder
    """The folder of the run."""
    settings: EvaluationSettings = EvaluationSettings()
    referee: bool = False
    """Compare every estimate of log p(x) on the same few examples, with what each costs: referee.json."""
    comparison: RefereeSettings = RefereeSettings()


class Compare(_Command):
    """Show evaluations of several runs side by side: a table, and report.html."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN [RUN ...]")]
    """The folders of runs that have been evaluated on their test examples; differences are to the first."""
    out: Path
    """The folder that gets report.html and pictures/."""


class Score(_OfExamples):
    """Score every example: bound in nats, standard error, bits/dim, as CSV."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """The .csv to write."""
    draws: int | None = Field(None, ge=2)
    """Draws per example; the standard error falls with their square root. Default: 16 of a VAE, 2 of diffusion."""
    seed: NonNegativeInt = 0
    """The seed of the draws."""


class Predict(_OfExamples):
    """Predict labels or targets by p(y|x); where y is known, say how well."""

    run: RunFolder
    """The folder of the run: a VAE trained with --predict, or a class-conditional diffusion model of labels."""
    out: Path
    """The .csv to write. How good it is goes into the run, or, of other data than its test examples, into a folder
    beside it: NAME.csv, NAME-report."""
    examples: PositiveInt | None = None
    """How many, spread evenly over them. Default: all."""
    draws: int | None = Field(None, ge=2)
    """Draws per example; of diffusion at most so many for each class. Default: 1000 of a VAE, 16 of diffusion."""
    seed: NonNegativeInt = 0
    """The seed of the draws."""


class Impute(_OfExamples):
    """Draw what is missing of examples given the rest: pictures and arrays."""

    run: RunFolder
    """The folder of the run."""
    out: Path
    """The new folder that gets imputations.npz, of images imputations.png, and what --calibrate writes."""
    mask: str | None = None
    """half:left|right|top|bottom, centre, random:0.5 (missing), a PNG (white is missing), an .npy or .npz (True is
    observed). Default: the NaN in --data."""
    data: str | None = None
    """DATA to read under the run's rules; NaN in floats are missing. Default: the run's own test examples."""
    examples: PositiveInt | None = None
    """How many, spread evenly over them. Default: all of --data, or 16 of the run's own."""
    draws: PositiveInt = 5
    """Draws for each example."""
    method: Literal["gibbs", "importance", "particles", "replacement"] | None = None
    """VAE: gibbs (default), importance. Diffusion: particles (default), replacement, which is quicker and biased."""
    samples: PositiveInt | None = None
    """gibbs, importance: proposals that are weighted. Default: 1000."""
    sweeps: PositiveInt | None = None
    """gibbs: the length of each chain. Default: 100."""
    particles: PositiveInt | None = None
    """particles: how many for each draw. Default: 16."""
    resamplings: PositiveInt | None = None
    """replacement: how often each step is made. Default: 5."""
    steps: int | None = Field(None, ge=2)
    """particles, replacement: from noise to data. Default: 100 and 50."""
    calibrate: bool = False
    """Compare what --mask hides with the draws: coverage of intervals and ranks, also for the run's report."""
    seed: NonNegativeInt = 0
    """The seed of the draws, and of random masks."""


class FeaturesTrain(_Command):
    """Train a small classifier, in whose features distances are measured."""

    run: RunFolder
    """The folder of the run; an earlier classifier in it is replaced."""
    seed: NonNegativeInt = 0
    """The seed of the classifier."""
    settings: ClassifierSettings = ClassifierSettings()


class FeaturesDistance(_Command):
    """Measure how far samples are from the data, by sampler and steps."""

    run: RunFolder
    """The folder of the run; what is in its distances.json already is not measured again."""
    n: PositiveInt | None = None
    """How many samples. Default: 10,000, or as many as there are training examples."""
    sampler: tuple[Sampler, ...] = ()
    """Diffusion: how to sample, one or several. Default: the run's."""
    steps: tuple[PositiveInt, ...] = ()
    """Diffusion: in how many steps, one or several numbers. Default: the run's."""
    guidance: float | None = None
    """Diffusion with labels: the scale of classifier-free guidance, or of that by --guide. Default: the run's."""
    guide: Path | None = None
    """Diffusion: a worse run of the same data, say one that trained for less long, to be guided away from."""
    seed: NonNegativeInt = 0
    """The seed of the samples."""


class FeaturesCheck(_Command):
    """Test samples against the data: likeness, coverage, memorisation."""

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


class Compress(_OfExamples):
    """Compress examples without loss by a trained model: the bound cashed in."""

    run: RunFolder
    """The folder of the run: a VAE of levels or binary data, or a diffusion model of levels."""
    out: Path
    """The file to write; FILE.json beside it gets its sizes."""
    examples: PositiveInt | None = None
    """How many, from the first. Default: all."""
    steps: PositiveInt | None = None
    """Diffusion: steps of the chain, each a network call for every example. Default: 100."""
    batch_size: PositiveInt = 64
    """Examples that go through the network together, at most."""
    unchecked: bool = False
    """Do not decompress the file to see that it gives the data back: half the time."""


class Decompress(_Command):
    """Restore the examples of a file of `compress`, bit for bit."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The file that `compress` wrote."""
    run: Path
    """The folder of the run that it was compressed by."""
    out: Path
    """An .npz (the array `x`) or an .npy: raw examples of the original dtype and shape."""


class Info(_Command):
    """Say what a run is: data, model, training, how far it came."""

    run: RunFolder
    """The folder of the run."""
    data: str | None = None
    """The new place of the run's own data, where they have moved; it is checked and recorded."""


class DataCheck(_Command):
    """Say what DATA holds, and what would be refused and why."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """`digits`, a folder of IDX files or of images, or an .npy / .npz file."""
    read: ReadOptions = ReadOptions()
