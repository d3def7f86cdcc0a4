"""Networks: plain modules without any notion of probability."""

from jensen.nets.convolution import ConvolutionalDecoder, ConvolutionalEncoder, Levels
from jensen.nets.ddpm_unet import Architecture, DDPMUNet
from jensen.nets.mlp import ACTIVATIONS, MLP
from jensen.nets.residual_mlp import ResidualMLP
from jensen.nets.table import ColumnInput, TableDecoder, TableEncoder
from jensen.nets.transformer import PatchTransformer
from jensen.nets.unet import UNet

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "Architecture",
    "ColumnInput",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "DDPMUNet",
    "Levels",
    "PatchTransformer",
    "ResidualMLP",
    "TableDecoder",
    "TableEncoder",
    "UNet",
]
