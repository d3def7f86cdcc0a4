"""Scores of a run by onnxruntime beside those of jensen, with the same noise: the largest difference, and the time.

    jensen export RUN --to onnx --out FOLDER
    python benchmarks/onnx_scores.py RUN FOLDER [--data DATA] [--examples 1000]

A VAE: the ELBO of `jensen score` with 16 draws, and L_100. A diffusion model: the bound of `jensen score` with 2 draws,
summed from bound.onnx as the README of the exported folder says. Both programs use one thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import jensen
from jensen.diffusion.bound import CHOICE, NOISE, Strata
from jensen.randomness import Stream, derived_seed, normal_per_example, uniform_per_example
from jensen.vae import VAE

BATCH = 100


def session_of(folder: Path, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])


def vae_scores(run: jensen.Run, folder: Path, x: torch.Tensor, first: int, draws: int) -> dict[str, Callable]:
    """The scores of a batch, whose first example has the number `first`, by both programs; each a pair (ELBO, L_K)."""
    model, preparation = run.model, run.spec.preparation
    index = torch.arange(first, first + len(x))
    # The noise of seed 0, of which L_K takes blocks of 100 draws
    noise = normal_per_example(derived_seed(0, Stream.EVALUATION), index.tolist(), (draws, model.latent_dims))
    of_k = normal_per_example(derived_seed(0, Stream.EVALUATION), index.tolist(), (100, model.latent_dims), 0)
    session = session_of(folder, "log_prob_of_noise")

    def of_jensen() -> tuple[np.ndarray, np.ndarray]:
        prepared = preparation(x)
        elbo = model.elbo(prepared, draws=draws, index=index).value
        weighted = model.importance_weighted_bound(prepared, samples=100, index=index).value
        return tuple(preparation.raw_nats(each, x).numpy() for each in (elbo, weighted))

    def of_onnx() -> tuple[np.ndarray, np.ndarray]:
        elbo = session.run(["elbo"], {"x": x.numpy(), "noise": noise.transpose(0, 1).numpy()})[0]
        return elbo, session.run(["log_prob"], {"x": x.numpy(), "noise": of_k.transpose(0, 1).numpy()})[0]

    return {"jensen": of_jensen, "onnxruntime": of_onnx}


def diffusion_scores(run: jensen.Run, folder: Path, x: torch.Tensor, first: int, draws: int) -> dict[str, Callable]:
    """The bound of a batch by both programs."""
    model, preparation, index = run.model, run.spec.preparation, torch.arange(first, first + len(x))
    facts = json.loads((folder / "model.json").read_text())["bound"]
    strata = Strata(torch.tensor(facts["stratum"]), torch.tensor(facts["probability"], dtype=torch.float64))
    session, stream = session_of(folder, "bound"), derived_seed(0, Stream.EVALUATION)
    label = {} if model.classes is None else {"label": np.full(len(x), model.classes)}

    def of_jensen() -> tuple[np.ndarray]:
        return (preparation.raw_nats(model.elbo(preparation(x), draws=draws, index=index).value, x).numpy(),)

    def of_onnx() -> tuple[np.ndarray]:
        u = uniform_per_example(stream, index.tolist(), (draws, strata.count), CHOICE)
        step, inverse = strata.draw(u)
        total = np.zeros(len(x))
        for place in range(draws * (strata.count + 1)):
            draw, term = divmod(place, strata.count + 1)
            eps = normal_per_example(stream, index.tolist(), x.shape[1:], NOISE, place).numpy()
            t = np.ones(len(x), np.int64) if term == 0 else step[:, draw, term - 1].numpy()
            weight = 1.0 if term == 0 else inverse[:, draw, term - 1].numpy()
            nats, rest = session.run(None, {"x": x.numpy(), "t": t, "noise": eps, **label})
            total -= weight * nats
        return (rest + total / draws,)

    return {"jensen": of_jensen, "onnxruntime": of_onnx}


@torch.no_grad()
def compare(run: jensen.Run, folder: Path, data: str | None, examples: int) -> None:
    x = run.examples(data).x[:examples]
    is_vae = isinstance(run.model, VAE)
    names = ["ELBO, 16 draws", "L_100"] if is_vae else ["bound, 2 draws"]
    found: dict[str, list] = {"jensen": [], "onnxruntime": []}
    seconds = dict.fromkeys(found, 0.0)
    for first in range(0, len(x), BATCH):
        part = x[first : first + BATCH]
        programs = (vae_scores if is_vae else diffusion_scores)(run, folder, part, first, 16 if is_vae else 2)
        for name, program in programs.items():
            began = time.perf_counter()
            found[name].append(program())
            seconds[name] += time.perf_counter() - began
    print(f"{len(x)} examples of {Path(run.spec.source).name}, weights {run.weights[:8]}, onnxruntime", end=" ")
    print(f"{onnxruntime.__version__}, torch {torch.__version__}")
    for place, name in enumerate(names):
        exact, other = (np.concatenate([part[place] for part in found[each]]) for each in found)
        relative = np.abs(other - exact) / np.abs(exact)
        print(f"{name}: mean {exact.mean():.4f} and {other.mean():.4f} nats, largest relative difference", end=" ")
        print(f"{relative.max():.1e}, largest difference {np.abs(other - exact).max():.1e} nats")
    print(", ".join(f"{name} {1000 * value / len(x):.2f} ms per example" for name, value in seconds.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--examples", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    compare(jensen.load(options.run), options.folder, options.data, options.examples)
