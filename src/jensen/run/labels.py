"""The labels of samples."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from jensen.run import Run

OF_LABELS = 7  # separates the random numbers of labels from those of samplers, which count their steps from 0


def sample_labels(run: "Run", wanted: "str | Tensor | np.ndarray", n: int, *, seed: int, first: int) -> "Tensor | None":
    """The labels (n), int64, of samples first..first+n-1; None for a model without labels.

    Raises `InputError` for unknown labels, and for labels that no training example has.
    """
    import torch

    from jensen.errors import InputError

    if run.model.classes is None:
        if wanted != "in-turn" if isinstance(wanted, str) else True:
            flag = "--labels-from" if isinstance(wanted, str) and wanted == "p(y)" else "--label"
            raise InputError(f"{flag} {wanted}: {run.folder} was trained without labels; leave {flag} out")
        return None
    if not isinstance(wanted, str):
        return _checked(run, torch.as_tensor(wanted), n)
    numbers = torch.arange(first, first + n)
    if wanted == "in-turn":
        known = torch.tensor(run.model.known_labels)
        return known[numbers % len(known)]
    if wanted == "p(y)":
        return _drawn(torch.tensor(run.spec.label_counts), numbers, seed)
    return _checked(run, torch.full((n,), label_number(run, wanted)), n)


def _drawn(counts: "Tensor", numbers: "Tensor", seed: int) -> "Tensor":
    """Labels drawn in proportion to `counts`; label i is a pure function of (seed, numbers[i])."""
    import torch

    from jensen.randomness import Stream, derived_seed, uniform_per_example

    u = uniform_per_example(derived_seed(seed, Stream.SAMPLE, OF_LABELS), numbers.tolist(), ())
    return torch.searchsorted((counts.double() / counts.sum()).cumsum(0), u).clamp(max=len(counts) - 1)


def _checked(run: "Run", labels: "Tensor", n: int) -> "Tensor":
    import torch

    from jensen.errors import InputError

    if labels.shape != (n,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels of shape {tuple(labels.shape)} and type {labels.dtype}: expected {n} integers")
    classes, counts = run.model.classes or 0, run.spec.label_counts or ()
    for label in labels.unique().tolist():
        if not 0 <= label < classes:
            raise InputError(f"label {label}: expected 0 to {classes - 1}; choose one")
        if not counts[label]:
            raise InputError(
                f"label {run.spec.label_name(label)}: no training example of {run.folder} has it, so the model never "
                "learned it; choose another"
            )
    return labels.long()


def label_number(run: "Run", given: str) -> int:
    """The integer of the label with the name `given`; if no name is an integer, `given` may be the integer itself."""
    from jensen.errors import InputError

    names, classes = run.spec.label_names or (), run.model.classes or 0
    if given in names:
        return names.index(given)
    if given.isdecimal() and int(given) < classes and not any(name.isdecimal() for name in names):
        return int(given)
    known = ", ".join(names[:20]) if names else f"0 to {classes - 1}"
    raise InputError(f"--label {given}: {run.folder} has no such label; choose one of {known}")
