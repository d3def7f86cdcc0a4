"""What every test runs under: one thread, fixed seeds, shapes and types checked at run time."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; the commands that tests start inherit it

from checking import check_packages

# Before the first import of jensen.
check_packages(
    [
        "jensen.bound",
        "jensen.compression",
        "jensen.diffusion",
        "jensen.expectation",
        "jensen.features",
        "jensen.gaussian",
        "jensen.inference",
        "jensen.latent",
        "jensen.likelihood",
        "jensen.mixture",
        "jensen.model",
        "jensen.monotone",
        "jensen.nets",
        "jensen.pareto",
        "jensen.randomness",
        "jensen.vae",
    ]
)

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Each test starts from the same global random state, whatever ran before it and in which process."""
    torch.manual_seed(0)
    np.random.seed(0)  # scipy and scikit-learn draw from it


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data that lies beside the repository, for tests on real data."""
    folder = Path(__file__).resolve().parents[1] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("there is no ../shared/data beside the repository")
    return folder
