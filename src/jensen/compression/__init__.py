"""The bound as a codelength: lossless compression by bits-back with ANS, into files with checksums.

`VAECodec` and `ChainCodec` are the codecs of the two families. `encode` pushes examples through a codec onto a stack,
and `decode` pops them again. `pack` and `unpack` convert a stack to a file and back. docs/compression.md describes the
format.
"""

from jensen.compression.archive import Header, Machine, data_digest, model_digest, pack, read, runs, unpack
from jensen.compression.chain import ChainCodec
from jensen.compression.codec import AbstractCodec, Encoded, decode, encode
from jensen.compression.codelength import Codelength
from jensen.compression.coder import Stack
from jensen.compression.latent import VAECodec
from jensen.compression.others import sizes_of_others

__all__ = [
    "AbstractCodec",
    "ChainCodec",
    "Codelength",
    "Encoded",
    "Header",
    "Machine",
    "Stack",
    "VAECodec",
    "data_digest",
    "decode",
    "encode",
    "model_digest",
    "pack",
    "read",
    "runs",
    "sizes_of_others",
    "unpack",
]
