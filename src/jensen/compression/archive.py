"""The file: magic bytes, a header, the stack's words, and a checksum of it all. Nothing is unpickled.

8 bytes    JENSENCL                      (codelength)
4 bytes    the length of the header, little-endian
header     JSON, deflated: `Header`
payload    the stack's 32-bit words, little-endian, the bottom first
16 bytes   BLAKE2b of everything before
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
DIGEST = 16  # bytes
LARGEST_HEADER = 1 << 24  # bytes, inflated


class Machine(BaseModel):
    """What a network's outputs depend on, to the last bit, beside the model and the batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    threads: int = Field(ge=1, le=1024)
    torch_version: str
    processor: str

    @classmethod
    def here(cls, device: torch.device) -> "Machine":
        """This machine, with as many threads as are set now."""
        processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
        if device.type == "cuda":
            processor = torch.cuda.get_device_name(device)
        return cls(
            device=device.type, threads=torch.get_num_threads(), torch_version=torch.__version__, processor=processor
        )

    def __str__(self) -> str:
        return f"torch {self.torch_version}, {self.threads} thread(s), {self.device}, {self.processor}"


class Header(BaseModel):
    """What decompression has to know, and the sum that it is checked by. Labels are not kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    format: int = FORMAT
    shape: tuple[int, ...]
    """Of one example."""
    dtype: Literal["uint8", "uint16", "float32"]
    """Of the raw data."""
    count: int
    """Of all examples, as many as in the batches."""
    batches: tuple[tuple[int, int], ...]
    """(size, how many in a row) of the batches that went through the network together."""
    steps: int | None
    """Of the chain; None where there is none."""
    model: str
    """BLAKE2b of the weights and settings."""
    data: str
    """BLAKE2b of the raw examples."""
    machine: Machine

    @model_validator(mode="after")
    def _batches_hold_all(self) -> Self:
        if any(min(pair) < 1 for pair in self.batches) or sum(math.prod(pair) for pair in self.batches) != self.count:
            raise ValueError("batches that are not of `count` examples")
        return self

    @property
    def sizes(self) -> tuple[int, ...]:
        """Of all batches, one by one."""
        return tuple(size for size, repeated in self.batches for _ in range(repeated))


def runs(sizes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Sizes as (size, how many in a row).

    >>> runs((1, 1, 3, 3, 3, 2))
    ((1, 2), (3, 3), (2, 1))
    """
    found: list[tuple[int, int]] = []
    for size in sizes:
        repeated = found.pop()[1] if found and found[-1][0] == size else 0
        found.append((size, repeated + 1))
    return tuple(found)


def pack(header: Header, words: npt.NDArray[np.uint32]) -> bytes:
    """The file's bytes."""
    described = zlib.compress(header.model_dump_json().encode(), 9)
    body = MAGIC + struct.pack("<I", len(described)) + described + words.astype("<u4").tobytes()
    return body + _digest(body)


def unpack(content: bytes, name: str) -> tuple[Header, npt.NDArray[np.uint32]]:
    """Header and words of a file's bytes; `InputError` where these are no such file, or not all or not as written."""
    if content[: len(MAGIC)] != MAGIC:
        raise InputError(f"{name} is not a file of jensen compress: it begins otherwise; give one that is")
    body, told = content[:-DIGEST], content[-DIGEST:]
    if len(body) < len(MAGIC) + 4 or _digest(body) != told:
        raise InputError(f"{name} is truncated or altered: its checksum does not match; fetch it again")
    start = len(MAGIC) + 4
    end = start + struct.unpack("<I", body[start - 4 : start])[0]
    try:
        header = Header.model_validate_json(zlib.decompressobj().decompress(body[start:end], LARGEST_HEADER))
        words = np.frombuffer(body[end:], "<u4").astype(np.uint32)
    except (zlib.error, ValueError) as error:  # pydantic's among them, and words cut in two
        raise InputError(f"{name} has a header of another format; install a newer jensen") from error
    if header.format > FORMAT:
        raise InputError(f"{name} has format {header.format}, this jensen reads up to {FORMAT}; install a newer jensen")
    return header, words


def read(path: Path) -> bytes:
    """A file's bytes; `InputError` where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file of jensen compress") from error


def data_digest(raw: npt.NDArray[np.generic]) -> str:
    """BLAKE2b of an array, its dtype and shape included."""
    told = f"{raw.dtype.name} {raw.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(raw).tobytes(), digest_size=DIGEST, key=told[:64]).hexdigest()


def model_digest(model: nn.Module, settings: str) -> str:
    """BLAKE2b of all weights by name, and of what else says which function they make."""
    digest = hashlib.blake2b(settings.encode(), digest_size=DIGEST)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST).digest()
