"""Training the classifier on a run's training split."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from jensen.bound import Estimate
from jensen.data.examples import Dataset, Examples
from jensen.data.preparation import Preparation, Standardise
from jensen.data.spec import DataSpec
from jensen.errors import InputError
from jensen.features.classifier import Classifier, recognition
from jensen.features.settings import ClassifierSettings
from jensen.progress import Progress
from jensen.randomness import Noise, Stream, derived_seed, generator
from jensen.training.loop import batch_index

DEFAULTS = ClassifierSettings()
WARMUP = 0.2  # share of the steps in which the learning rate rises; afterwards it falls to almost 0
ROWS = 2000


def train_classifier(dataset: Dataset, settings: ClassifierSettings = DEFAULTS, seed: int = 0) -> Classifier:
    """Train a classifier on `dataset.train` and return it in evaluation mode.

    The same arguments and the same number of CPU threads give the same classifier. The validation split is not used.
    Raises `InputError` for data without labels or with a single label.
    """
    spec, labels = dataset.spec, dataset.train.labels
    if labels is None or spec.classes is None:
        raise InputError(f"{spec.source} has no labels, but a classifier needs labels; give data with labels")
    with torch.random.fork_rng(devices=[]):  # layers initialise themselves from torch's global generator
        torch.manual_seed(derived_seed(seed, Stream.INITIALISATION))
        classifier = Classifier(spec.shape, spec.classes, *_scaling(spec)).train()
    x = shown(dataset.train, spec.preparation, seed)
    size = settings.batch_size
    steps = math.ceil(min(settings.visits, settings.passes * len(x)) / size)
    optimiser = torch.optim.AdamW(
        classifier.parameters(), settings.learning_rate, weight_decay=settings.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=max(steps, 2), pct_start=WARMUP
    )
    pixels = round(settings.shift * max(spec.shape[1:])) if len(spec.shape) == 3 else 0
    with Progress("training the classifier", steps) as progress:
        for step in range(steps):
            rows = batch_index(len(x), size, seed, step)
            batch = shifted(classifier.scaled(x[rows]), pixels, generator(seed, Stream.TRAINING, step))
            loss = F.cross_entropy(classifier.head(classifier.features(batch)), labels[rows])
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            progress.update(step + 1, f"loss {loss.item():.4g}")
    return classifier.eval()


def accuracy(classifier: Classifier, examples: Examples, preparation: Preparation, seed: int = 0) -> Estimate | None:
    """The share of labelled raw examples that the classifier recognises; None without examples or labels."""
    if examples.labels is None or not len(examples):
        return None
    return recognition(classifier, shown(examples, preparation, seed), examples.labels)


def shown(examples: Examples, preparation: Preparation, seed: int = 0) -> Tensor:
    """Raw examples after the preparation and its inverse, so that they are comparable with samples of a model.

    Binarisation changes the examples. Every other preparation restores them; floats are restored up to rounding.
    """
    noise = Noise(generator(seed, Stream.BINARISATION))
    parts = [torch.from_numpy(preparation.to_raw(preparation(rows, noise))) for rows in examples.x.split(ROWS)]
    return torch.cat(parts)


def shifted(x: Tensor, pixels: int, source: torch.Generator) -> Tensor:
    """Images (batch, C, H, W), each shifted by up to `pixels` in either direction, with repeated edges."""
    if pixels == 0:
        return x
    batch, _, height, width = x.shape
    padded = F.pad(x, (pixels,) * 4, mode="replicate")
    top, left = torch.randint(0, 2 * pixels + 1, (2, batch, 1), generator=source)
    rows, columns = (top + torch.arange(height))[:, :, None], (left + torch.arange(width))[:, None, :]
    return padded[torch.arange(batch)[:, None, None], :, rows, columns].permute(0, 3, 1, 2).contiguous()


def _scaling(spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Shift and scale of raw values: integers and floats in [0, 1] to [-1, 1], others to mean 0 and deviation 1."""
    if isinstance(spec.preparation, Standardise):
        moments = spec.preparation.shift, spec.preparation.scale
        shift, scale = (torch.tensor(each, dtype=torch.float64) for each in moments)
        return shift, scale
    half = torch.tensor(0.5 if spec.levels is None else (spec.levels - 1) / 2)
    return half, half.clone()
