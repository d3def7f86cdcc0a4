"""The compressed file: magic bytes, a header, the stack's words, and a checksum. Nothing is unpickled.

8 bytes    JENSENCL                      (codelength)
4 bytes    the length of the header, little-endian
header     JSON, deflated: `Header`
payload    the stack's 32-bit words, little-endian, from the bottom up
16 bytes   BLAKE2b of all preceding bytes
"""

import hashlib
import math
import platform
import struct
import zlib
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from jensen.errors import InputError

MAGIC = b"JENSENCL"
FORMAT = 1
DIGEST = 16  # bytes of a checksum
LARGEST_HEADER = 1 << 24  # bytes after decompression; a hostile file could inflate without limit


class Machine(BaseModel):
    """The environment, on which the last bits of a network's outputs depend, as on the model and the batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    threads: int = Field(ge=1, le=1024)
    torch_version: str
    processor: str

    @classmethod
    def here(cls, device: torch.device) -> "Machine":
        """This machine, with torch's current number of threads."""
        processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        if device.type == "cuda":
            processor = torch.cuda.get_device_name(device)
        return cls(
            device=device.type, threads=torch.get_num_threads(), torch_version=torch.__version__, processor=processor
        )

    def __str__(self) -> str:
        return f"torch {self.torch_version}, {self.threads} thread(s), {self.device}, {self.processor}"


class Header(BaseModel):
    """The information that decompression needs, including checksums of model and data, but no labels."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = FORMAT
    shape: tuple[int, ...]
    """Shape of one example."""
    dtype: Literal["uint8", "uint16", "float32"]
    """Data type of the raw data."""
    count: int
    """Number of examples, in all batches together."""
    batches: tuple[tuple[int, int], ...]
    """The batches in their order, as (size, number of consecutive batches of that size)."""
    steps: int | None
    """Steps of the diffusion model's chain; None for other models."""
    model: str
    """BLAKE2b of the weights and settings."""
    data: str
    """BLAKE2b of the raw examples."""
    machine: Machine

    @model_validator(mode="after")
    def _batches_hold_all(self) -> Self:
        if any(min(pair) < 1 for pair in self.batches) or sum(math.prod(pair) for pair in self.batches) != self.count:
            raise ValueError("the batches do not add up to `count` examples")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """The size of every batch."""
        return tuple(size for size, repeated in self.batches for _ in range(repeated))


def runs(sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Run lengths: consecutive equal sizes as (size, number of repetitions).

    >>> runs((1, 1, 3, 3, 3, 2))
    ((1, 2), (3, 3), (2, 1))
    """
    found: list[tuple[int, int]] = []
    for size in sizes:
        repeated = found.pop()[1] if found and found[-1][0] == size else 0
        found.append((size, repeated + 1))
    return tuple(found)


def pack(header: Header, words: npt.NDArray[np.uint32]) -> bytes:
    """The bytes of the compressed file."""
    described = zlib.compress(header.model_dump_json().encode(), 9)
    body = MAGIC + struct.pack("<I", len(described)) + described + words.astype("<u4").tobytes()
    return body + _digest(body)


def unpack(content: bytes, name: str) -> tuple[Header, npt.NDArray[np.uint32]]:
    """Header and words from the bytes of a file; `InputError` if the file is of another kind, truncated or altered."""
    if content[: len(MAGIC)] != MAGIC:
        raise InputError(f"{name} is not a file made by jensen compress: it has another beginning; give such a file")
    body, checksum = content[:-DIGEST], content[-DIGEST:]
    if len(body) < len(MAGIC) + 4 or _digest(body) != checksum:
        raise InputError(f"{name} is truncated or altered: its checksum does not match; fetch it again")
    start = len(MAGIC) + 4
    end = start + struct.unpack("<I", body[start - 4 : start])[0]
    try:
        header = Header.model_validate_json(zlib.decompressobj().decompress(body[start:end], LARGEST_HEADER))
        words = np.frombuffer(body[end:], "<u4").astype(np.uint32)
    except (zlib.error, ValueError) as error:  # ValueError: pydantic's, and an incomplete last word
        raise InputError(f"{name} has a header of another format; install a newer jensen") from error
    if header.format > FORMAT:
        raise InputError(f"{name} has format {header.format}, this jensen reads up to {FORMAT}; install a newer jensen")
    return header, words


def read(path: Path) -> bytes:
    """The bytes of a file; `InputError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file made by jensen compress") from error


def data_digest(raw: npt.NDArray[np.generic]) -> str:
    """BLAKE2b of the dtype, the shape and the values of an array."""
    layout = f"{raw.dtype.name} {raw.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(raw).tobytes(), digest_size=DIGEST, key=layout[:64]).hexdigest()


def model_digest(model: nn.Module, settings: str) -> str:
    """BLAKE2b of all weights with their names, and of the `settings` that define the model's function."""
    digest = hashlib.blake2b(settings.encode(), digest_size=DIGEST)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, because NumPy has no bfloat16
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
