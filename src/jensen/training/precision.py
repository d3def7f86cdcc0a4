"""Mixed precision: the arithmetic inside the networks, and the scale that keeps gradients in float16 from vanishing.

The networks' outputs are converted to float32 before any density is computed. Weights, moments and averages are always
float32.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jensen.errors import InputError
from jensen.training.compilation import Compilation
from jensen.training.settings import TrainingSettings

SMALLEST_SCALE = 2.0**-24  # gradients that overflow even when divided by millions are bad: not a matter of scale


@dataclass(frozen=True)
class Precision:
    """How the networks compute: data type, kind of device, float16's gradient scaler, compilation, and TF32."""

    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    scaler: torch.amp.GradScaler | None = None
    compilation: Compilation = field(default_factory=Compilation)
    tf32: bool = False

    @classmethod
    def of(
        cls,
        settings: TrainingSettings,
        device: str,
        scaler: torch.amp.GradScaler | None = None,
        compilation: Compilation | None = None,
    ) -> "Precision":
        """The precision of the settings."""
        tf32 = settings.precision == "tf32"
        return cls(dtype_of(settings, device), device, scaler, compilation or Compilation(), tf32)

    @contextmanager
    def products(self) -> Iterator[None]:
        """Inside the block, which contains the backward pass, products of float32 are in TF32 if `tf32` is set."""
        if not self.tf32:
            yield
            return
        _allow_tf32(True)
        try:
            yield
        finally:
            _allow_tf32(False)

    def networks(self) -> torch.autocast:
        """Inside the block, the forward pass of networks computes in `dtype`; the backward pass needs no block."""
        return torch.autocast(self.device, self.dtype, enabled=self.dtype != torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss`, times the scale if there is a scaler, to the parameters' gradients."""
        (self.scaler.scale(loss) if self.scaler else loss).backward()


def dtype_of(settings: TrainingSettings, device: str) -> torch.dtype:
    """The data type in which the networks compute; `InputError` if the CPU has no instructions for it."""
    if settings.precision == "tf32":
        if device != "cuda":
            raise InputError(f"precision tf32: only CUDA devices have it, not {device}; choose float32")
        return torch.float32
    dtype: torch.dtype = getattr(torch, settings.precision)
    if device == "cpu" and dtype != torch.float32:
        asked = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}[dtype]
        if not (torch.backends.mkldnn.is_available() and getattr(torch.ops.mkldnn, asked)()):
            raise InputError(
                f"precision {settings.precision}: this CPU only emulates it, hundreds of times slower; choose float32"
            )
    return dtype


def halve(scaler: torch.amp.GradScaler, scale: float) -> None:
    """Set the scaler's scale to `scale` / 2, and its count of good steps to zero.

    The scale grows again after enough good steps. The scaler itself halves only if it finds an infinite or NaN
    gradient, and of sharded gradients it sees only this process's part.
    """
    scaler.update(max(scale / 2, SMALLEST_SCALE))
    scaler.load_state_dict(scaler.state_dict() | {"_growth_tracker": 0})


# ---------------------------------------------------------------------------------------------- the whole process


@contextmanager
def arithmetic(settings: TrainingSettings) -> Iterator[None]:
    """A context that applies the settings of CPU threads and, on CUDA, of determinism, with exact float32.

    By default, torch computes convolutions of float32 in TF32 on CUDA, and lets cuDNN choose algorithms whose sums have
    no fixed order. An operation without a deterministic algorithm warns.
    """
    threads, tf32 = torch.get_num_threads(), _tf32()
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # torch has no stub
    torch.set_num_threads(settings.threads)
    if settings.device != "cpu" and torch.cuda.is_available():
        exact_float32()
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it before its first product
            torch.use_deterministic_algorithms(True, warn_only=True)
            # Filling only helps to find errors, and costs a kernel per tensor
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def exact_float32() -> None:
    """Turn off TF32, so that products of float32 have the digits of float32 on CUDA, too."""
    _allow_tf32(False)


def _tf32() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def _allow_tf32(allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
