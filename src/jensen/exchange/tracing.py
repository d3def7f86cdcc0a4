"""Trace a function of a model into a program of torch.export, whose batch and number of draws are free."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from jensen.exchange.functions import Function

TRACED = 4  # size of the batch that is traced; a size of 1 would not stay free


def traced(function: Function) -> ExportedProgram:
    """The program of a function, without the names of files and lines from which torch traced it."""
    sizes = {axis: Dim(axis, min=1) for port in function.inputs for axis in port.free.values()}
    shapes = {port.name: {place: sizes[axis] for place, axis in port.free.items()} for port in function.inputs}
    with torch.no_grad(), quiet():
        program = torch.export.export(_Named(function), function.probe(TRACED), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn"):
            node.meta.pop(name, None)
    return program


class _Named(nn.Module):
    """The module of a function, whose inputs have the function's names."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function.module.eval()
        names = [inspect.Parameter(port.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for port in function.inputs]

        def forward(*inputs: Tensor, **named: Tensor) -> Tensor | tuple[Tensor, ...]:
            return self.function(*inputs, *named.values())

        forward.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
        self.forward = forward


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings of PyTorch and the converter about their own code."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, RuntimeWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield
