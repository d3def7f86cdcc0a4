"""The fields of a diffusion model whose weights come from another program. Imports no torch."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Imported(BaseModel):
    """A network that another program trained, and the chain on which it was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    program: str
    """The program whose files were read: diffusers, improved-diffusion."""
    files: dict[str, str]
    """SHA-256 of the files that were read, by their names."""
    network: dict[str, Any] | None
    """The fields of `jensen.nets.Architecture`; None: jensen's U-Net of the recipe's widths."""
    betas: tuple[float, ...] = Field(min_length=2)
    """beta_1..beta_T of the chain (5.1)."""
    clip: float | None = Field(default=None, gt=0)
    """The network's x̂ is clipped to this range, on both sides of 0; None: not clipped."""

    @property
    def last_share(self) -> float:
        """beta~_2 / beta_1: DDPM's programs take the variance beta~_2 for the last step, where beta~_1 is 0."""
        first, second = self.betas[:2]
        return second / (1 - (1 - first) * (1 - second))

    @property
    def sentence(self) -> str:
        """The origin of the weights in words."""
        sums = ", ".join(f"{name} with SHA-256 {digest}" for name, digest in self.files.items())
        return f"from files of {self.program}, not trained by jensen: {sums}"
