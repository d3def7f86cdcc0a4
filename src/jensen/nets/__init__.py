"""Networks: plain modules that know no probability."""

from jensen.nets.convolution import ConvolutionalDecoder, ConvolutionalEncoder
from jensen.nets.mlp import ACTIVATIONS, MLP

__all__ = ["ACTIVATIONS", "MLP", "ConvolutionalDecoder", "ConvolutionalEncoder"]
