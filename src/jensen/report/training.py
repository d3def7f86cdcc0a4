"""The course of training: losses, validation bounds, and interventions."""

from collections.abc import Mapping, Sequence
from typing import Any

from jensen.report import charts
from jensen.report.album import Album
from jensen.report.render import Section
from jensen.report.results import Results


def training_section(results: Results, album: Album) -> Section | None:
    """The curves of training and the step of the evaluated weights; None without a log."""
    # The loss is about the prepared x, the bound about the raw data: one axis only where the two have the same units
    comparable = results.words.comparable and results.spec.preparation.log_volume == 0
    chart = charts.loss_curve(results.metrics, comparable)
    if chart is None:
        return None
    return Section(
        "Training",
        "training",
        {
            "picture": album.chart("loss", chart, "Training loss against the step"),
            "loss": results.words.loss,
            "other_units": results.words.comparable and not comparable,
            "validated": any("validation_bound" in line for line in results.metrics),
            "validation_examples": results.spec.counts["validation"],
            "weights_step": f"{results.weights_step:,}",
            "trained_steps": f"{results.trained_steps:,}",
            "planned": early_end(results),
            "warnings": [(sentence, "") for sentence in interventions(results.metrics)],
        },
    )


def early_end(results: Results) -> str:
    """The planned number of steps if early stopping ended training before the last step; else empty."""
    planned = results.recipe.get("training", {}).get("steps")
    ended = results.finished and planned is not None and results.trained_steps < planned
    return f"{planned:,}" if ended else ""


def interventions(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """Interventions in training, one sentence each: steps left out, batches split for lack of memory."""
    said = []
    for line in metrics:
        last, left_out, size = line["step"], line.get("left_out"), line.get("micro_batch_size")
        if isinstance(left_out, int):
            which = f"Steps {last - left_out + 1:,} to {last:,} were" if left_out > 1 else f"Step {last:,} was"
            said.append(f"{which} left out, and training rolled back to before: {line.get('reason')}")
        if isinstance(size, int):
            said.append(
                f"Memory ran out: batches went through the network, from step {last:,} on, {size:,} examples at a time"
            )
    return said
