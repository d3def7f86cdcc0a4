"""Networks: plain modules without any notion of probability."""

from jensen.nets.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from jensen.nets.mlp import ACTIVATIONS, MLP
from jensen.nets.residual_mlp import ResidualMLP
from jensen.nets.transformer import PatchTransformer
from jensen.nets.unet import UNet

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "ConvolutionalDecoder",
    "ConvolutionalEncoder",
    "PatchTransformer",
    "ResidualMLP",
    "UNet",
]
