"""The bound as a codelength: lossless compression by bits-back with ANS, and files that can be trusted.

`codec_for` gives a model's codec; `encode` pushes examples through it onto a stack, `decode` pops them again; `pack`
and `unpack` make a file of that. Determinism and format are described in docs/compression.md.
"""

from jensen.compression.archive import Header, Machine, data_digest, model_digest, pack, read, runs, unpack
from jensen.compression.chain import ChainCodec
from jensen.compression.codec import AbstractCodec, Encoded, decode, encode
from jensen.compression.codelength import COLUMNS, Codelength, codelength_rows, codelength_table, codelength_title
from jensen.compression.coder import Stack, constriction
from jensen.compression.latent import VAECodec
from jensen.compression.others import sizes_of_others
from jensen.diffusion.model import DiffusionModel
from jensen.errors import InputError
from jensen.model import AbstractLatentVariableModel
from jensen.vae import VAE

STEPS = 100  # of a chain, where nobody says how many

__all__ = [
    "COLUMNS",
    "AbstractCodec",
    "ChainCodec",
    "Codelength",
    "Encoded",
    "Header",
    "Machine",
    "Stack",
    "VAECodec",
    "codec_for",
    "codelength_rows",
    "codelength_table",
    "codelength_title",
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


def codec_for(model: AbstractLatentVariableModel, steps: int | None = None) -> AbstractCodec:
    """The codec of a model; `steps` of the chain of a diffusion model, by default 100.

    Raises `InputError` for a model that gives x a density, for steps that it has not, and without `constriction`.
    """
    constriction()
    if isinstance(model, DiffusionModel):
        return ChainCodec(model, STEPS if steps is None else steps)
    if not isinstance(model, VAE):
        raise InputError(f"a {type(model).__name__} cannot compress; give a run of a VAE or a diffusion model")
    if steps is not None:
        raise InputError("--steps is for diffusion models, and this is a variational autoencoder; leave it out")
    return VAECodec(model)
