"""`jensen evaluate --referee`: compare all estimates of log p(x) on the same examples."""

from typing import TYPE_CHECKING, Any

from jensen.data.options import Split
from jensen.evaluation.settings import RefereeSettings

if TYPE_CHECKING:
    from jensen.evaluation.referee import Verdict
    from jensen.run import Run


def referee(
    run: "Run",
    data: Any = None,
    *,
    split: Split = "test",
    settings: RefereeSettings | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> "Verdict":
    """Estimate log p(x) of the same few examples by every method of the model, and compare the estimates.

    The verdict has the cost of each estimate and says which expected relations between estimates do not hold. If `data`
    is None, the examples are from the split `split` of the run's own data. `samples` is the K of L_K. A model without
    annealed importance sampling has one setting only, `referee_examples`; any other setting that is not its default
    raises `InputError`.
    """
    from jensen.errors import InputError
    from jensen.evaluation.referee import referee as judge

    settings = settings or RefereeSettings()
    annealing = settings.model_dump(exclude_defaults=True, exclude={"referee_examples"})
    if annealing and not run.family.anneals:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in annealing)
        raise InputError(f"{flags}: {run.folder} is a {run.family.words.name}, which is not annealed; leave it out")
    return judge(
        run.model,
        run.examples(data, split),
        run.spec.preparation,
        settings,
        samples=samples,
        seed=seed,
        source=run.source(data, split),
        step=run.step,
    )
