"""A run in jensen and in diffusers: the same noise, the same samples; and the weights that come back.

    python benchmarks/exchange.py RUN [--samples 4]

RUN is a diffusion model that diffusers can express (docs/exchange.md). It is exported, loaded by `DDPMPipeline` and
`DDIMPipeline`, and sampled on both sides from the noise of one generator: with the scheduler's tables as diffusers
computes them, in float32, and in float64. Then the folder is imported, and the weights are compared. Nothing is written
into RUN.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DDIMPipeline, DDPMPipeline
from torch import Tensor

import jensen
from jensen.diffusion import DDIM, AbstractSampler, Ancestral, UniformTime, trajectory
from jensen.diffusion.process import beta


def ours(run: jensen.Run, sampler: AbstractSampler, steps: int, shape: tuple[int, ...]) -> Tensor:
    """Samples whose noise comes from one generator, in the order in which it is used."""
    source = torch.Generator().manual_seed(0)
    model: Any = run.model
    labels = None if model.classes is None else torch.full((shape[0],), model.classes)
    states = trajectory(
        sampler,
        model.denoiser,
        UniformTime()(model.schedule, steps),
        lambda position: torch.randn(shape, generator=source),
        labels=labels,
    )
    return list(states)[-1].x


def theirs(pipeline: Any, steps: int, shape: tuple[int, ...], betas: Tensor | None) -> Tensor:
    """The same by the loop of diffusers' pipelines, without the last cut to [0, 1]; `betas` replace its table."""
    if betas is not None:
        pipeline.scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
    pipeline.scheduler.set_timesteps(steps)
    source = torch.Generator().manual_seed(0)
    x, rows = torch.randn(shape, generator=source), pipeline.unet.config.num_class_embeds
    labels = None if rows is None else torch.full((shape[0],), rows - 1)
    for t in pipeline.scheduler.timesteps:
        output = pipeline.unet(x, t, class_labels=labels).sample
        x = pipeline.scheduler.step(output, t, x, generator=source).prev_sample.float()
    return x


@torch.no_grad()
def samples(run: jensen.Run, folder: Path, count: int) -> Iterator[tuple[str, float]]:
    """The largest difference of a sample's value, in the units of [-1, 1]."""
    model: Any = run.model
    chain, shape = model.bound().log_snr.double(), (count, *run.spec.shape)
    betas, steps = beta(chain[:-1], chain[1:]), len(chain) - 1
    ways = ((DDPMPipeline, Ancestral(model.scoring.variance), steps), (DDIMPipeline, DDIM(), 50))
    for pipeline, sampler, number in ways:
        mine = ours(run, sampler, number, shape)
        for table, name in ((None, "as loaded"), (betas, "tables in float64")):
            loaded = pipeline.from_pretrained(folder)
            yours = theirs(loaded, number, shape, table)
            yield f"{pipeline.__name__}, {number} steps, {name}", float((mine - yours).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--samples", type=int, default=4)
    options = parser.parse_args()
    diffusers.utils.logging.disable_progress_bar()
    run = jensen.load(options.run)
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / "diffusers"
        jensen.export(run, to="diffusers", out=folder)
        for name, value in samples(run, folder, options.samples):
            print(f"{name:45} {value:.1e}", flush=True)
        back = jensen.import_run(folder, data=run.spec.source, out=Path(where) / "back", read=run.spec.options)
        before, after = (each.model.get_submodule("denoiser").state_dict() for each in (run, back))
        print(f"{'weights that differ after the round trip':45} {sum(not before[k].equal(after[k]) for k in before)}")


if __name__ == "__main__":
    main()
