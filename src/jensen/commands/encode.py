"""`jensen encode`: the latent representation of every example, with its name."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import NonNegativeInt

from jensen.commands.code_files import refuse_other_codes, write_codes
from jensen.commands.common import OfExamples, RunFolder
from jensen.data.options import Split

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from jensen.run import Run

NAMED = 12  # the most latent dimensions that a note names


class Encode(OfExamples):
    """Encode examples: the latent representation z of each, by name."""

    several_processes: ClassVar[bool] = True

    run: RunFolder
    """The folder of the run."""
    out: Path
    """A .parquet or .csv with a row per example (name, label, z_0, z_1, ..., for a VAE also sigma_0, ...), or an .npz
    with the arrays `name`, `label`, `z` and `sigma`."""
    seed: NonNegativeInt = 0
    """The seed of the noise in the preparation of the data, if it has any."""

    def execute(self) -> None:
        """Write the codes into the file, and name the latent dimensions that are not in use."""
        from jensen import processes
        from jensen.data.examples import counted
        from jensen.run import opened

        with processes.together():
            refuse_other_codes(self.out)
            run = opened(self.run)
        found = encode(run, self.data, split=self.part, seed=self.seed)
        processes.on_main(lambda: found.save(self.out))
        print(f"{self.out}: {counted(len(found.z))}, {found.z.shape[1]} latent dimensions")
        if found.idle:
            named = ", ".join(f"z_{number}" for number in found.idle[:NAMED])
            more = f" and {len(found.idle) - NAMED} more" if len(found.idle) > NAMED else ""
            print(f"not in use ({len(found.idle)} dimensions vary by less than 0.01 over the examples): {named}{more}")


@dataclass(frozen=True, eq=False)
class Encoded:
    """The codes z (count, latent dimensions) of examples, with the names and labels of the examples.

    For a VAE, `z` and `sigma` are the means and the standard deviations of q(z|x). For a diffusion model, z is x_T, the
    end of the probability-flow ODE, and `sigma` is None. `labels` are names, or None for data without labels. `weights`
    is the SHA-256 of the weights that made the codes.
    """

    z: "np.ndarray"
    sigma: "np.ndarray | None"
    names: "Sequence[str]"
    labels: "Sequence[str] | None"
    weights: str

    @property
    def idle(self) -> tuple[int, ...]:
        """The latent dimensions of a VAE that are not in use, see `active_units`; none for fewer than two examples."""
        import torch

        from jensen.vae.posterior import active_units

        if self.sigma is None or len(self.z) < 2:
            return ()
        return tuple((~active_units(torch.from_numpy(self.z))).nonzero()[:, 0].tolist())

    def save(self, out: str | Path) -> None:
        """Write a .parquet, .csv or .npz; `jensen.commands.code_files.read_codes` reads it again."""
        write_codes(Path(out), self.names, self.labels, {"z": self.z, "sigma": self.sigma}, self.weights)


def encode(run: "Run", data: Any = None, *, split: Split = "test", seed: int = 0) -> Encoded:
    """The latent representation of every example of `data`; None means the split `split` of the run's own data.

    It is the mean of q(z|x) for a VAE, also with a diffusion prior. For a diffusion model it is x_T, the end of the
    probability-flow ODE from x (5.20), without a label. Processes started by torchrun divide the examples among
    themselves.
    """
    from jensen import processes
    from jensen.commands.rows import keys
    from jensen.inference.codes import encode_examples

    with processes.together():
        examples = run.examples(data, split)
    found = encode_examples(run.model, examples, run.spec.preparation, seed=seed)
    names = processes.on_main(lambda: keys(run, data, examples.names))
    labels = None if examples.labels is None else [run.spec.label_name(label) for label in examples.labels.tolist()]
    sigma = None if found.sigma is None else found.sigma.numpy()
    return Encoded(found.z.numpy(), sigma, names or list(examples.names), labels, run.weights)
