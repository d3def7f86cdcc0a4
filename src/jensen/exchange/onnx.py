"""Models as ONNX files, one for each function, which onnxruntime and other programs run without jensen and PyTorch."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from jensen.errors import InputError
from jensen.exchange.decompositions import table
from jensen.exchange.description import Kind, describe
from jensen.exchange.functions import DRAWS, Function, Port, functions_of
from jensen.exchange.tracing import quiet, traced
from jensen.progress import track
from jensen.run import Run

if TYPE_CHECKING:
    import onnx

OPSET = 20
"""The version of ONNX's operators."""

CHECKED = 5
"""Examples on which each file is compared with the model."""

TOLERANCE = 1e-5
"""Largest relative difference that passes without a note."""

CODE = """import onnxruntime

session = onnxruntime.InferenceSession("NAME.onnx")
OUTPUTS = session.run(None, {INPUTS})  # NumPy arrays
"""


def export_onnx(run: Run, folder: Path) -> list[str]:
    """Fill `folder` with one ONNX file for each function of the model, model.json and README.md.

    If onnxruntime is installed, it runs every file on some examples. A note states the largest relative difference
    between its outputs and those of the model: the largest difference of an output by the largest value of that output.
    `log_prob.onnx` draws its own noise; `log_prob_of_noise.onnx` is the same as a function of the noise.
    """
    onnx = _library()
    found = functions_of(run)
    ports, notes, differences = {}, list(found.notes), {}
    for function in track(found.functions, "exporting"):
        model = _model(function)
        name, inputs = function.name, function.inputs
        if name == "log_prob":
            drawn, of_k = _drawing(model, function)
            onnx.save(drawn, folder / "log_prob.onnx")
            ports["log_prob"] = (function, of_k)
            name = "log_prob_of_noise"
        onnx.save(model, folder / f"{name}.onnx")
        ports[name] = (function, inputs)
        differences[name] = _difference(folder / f"{name}.onnx", function)
    notes += _notes(differences)
    describe(run, folder, Kind("ONNX", "onnx", CODE, {"opset": OPSET}), ports, found.facts, notes)
    return notes


def _library() -> Any:
    try:
        import_module("onnxscript")
        return import_module("onnx")
    except ImportError as error:
        raise InputError(f"--to onnx needs the package {error.name}; pip install 'jensen[export]'") from error


def _model(function: Function) -> "onnx.ModelProto":
    """The ONNX model of a function, with the names of its inputs, outputs and axes, and nothing about its source."""
    import torch

    with torch.no_grad(), quiet(), _silent():
        program = traced(function).run_decompositions(table())
        made = torch.onnx.export(
            program,
            input_names=[port.name for port in function.inputs],
            output_names=[port.name for port in function.outputs],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    model.producer_name, model.doc_string = "jensen", function.meaning
    _name_axes(model.graph.input, function.inputs)
    _name_axes(model.graph.output, function.outputs)
    del model.graph.value_info[:]
    del model.metadata_props[:], model.graph.metadata_props[:]
    for part in (*model.graph.node, *(node for body in model.functions for node in body.node)):
        del part.metadata_props[:]
    return model


def _name_axes(values: "Sequence[onnx.ValueInfoProto]", ports: Sequence[Port]) -> None:
    """Give the axes of inputs or outputs the names of the ports."""
    for value, port in zip(values, ports, strict=True):
        del value.metadata_props[:]
        for dimension, axis in zip(value.type.tensor_type.shape.dim, port.axes, strict=True):
            if isinstance(axis, str):
                dimension.dim_param = axis
            else:
                dimension.dim_value = axis


def _drawing(model: "onnx.ModelProto", function: Function) -> tuple["onnx.ModelProto", tuple[Port, ...]]:
    """The model with K as an input instead of the noise, which it draws itself, and its inputs."""
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    drawn = onnx.ModelProto()
    drawn.CopyFrom(model)
    graph, first, noise = drawn.graph, function.inputs[0], function.inputs[-1]
    del graph.input[-1]
    graph.input.append(helper.make_tensor_value_info(DRAWS, onnx.TensorProto.INT64, []))
    constants = {"k_zero": [0], "k_latent": [noise.axes[-1]]}
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    zero = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [0.0])
    nodes = [
        helper.make_node("Shape", [first.name], ["k_shape"]),
        helper.make_node("Gather", ["k_shape", "k_zero"], ["k_batch"]),
        helper.make_node("Unsqueeze", [DRAWS, "k_zero"], ["k_draws"]),
        helper.make_node("Concat", ["k_draws", "k_batch", "k_latent"], ["k_size"], axis=0),
        helper.make_node("ConstantOfShape", ["k_size"], ["k_empty"], value=zero),
        helper.make_node("RandomNormalLike", ["k_empty"], [noise.name], dtype=onnx.TensorProto.FLOAT),
    ]
    body = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *body])
    onnx.checker.check_model(drawn)
    k = Port(name=DRAWS, dtype="int64", axes=(), meaning="K, the number of draws; memory grows with k times batch")
    return drawn, (*function.inputs[:-1], k)


# ---------------------------------------------------------------------------------------------- check


def _difference(path: Path, function: Function) -> float | None:
    """The largest relative difference between a file and the model; None without onnxruntime."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = function.probe(CHECKED)
    named = {port.name: value.numpy() for port, value in zip(function.inputs, inputs, strict=True)}
    found, expected = session.run(None, named), function(*inputs)
    return max(largest_difference(a, b) for a, b in zip(found, expected, strict=True))


def largest_difference(found: Any, expected: Tensor) -> float:
    """max |found - expected| / max |expected|; infinity if one is NaN and the other is not."""
    import numpy as np

    exact, other = expected.double().numpy(), np.asarray(found, np.float64)
    if not np.array_equal(np.isnan(exact), np.isnan(other)):
        return float("inf")
    size = float(np.nanmax(np.abs(exact), initial=0.0)) or 1.0
    return float(np.nanmax(np.abs(other - exact), initial=0.0)) / size


def _notes(differences: dict[str, float | None]) -> list[str]:
    if None in differences.values():
        return ["not compared with the model, because onnxruntime is not installed: pip install 'jensen[export]'"]
    known = {name: value for name, value in differences.items() if value is not None}
    worst = max(known, key=lambda name: known[name])
    if known[worst] <= TOLERANCE:
        return [f"onnxruntime agrees with the model to a relative difference of {known[worst]:.1e} ({worst})"]
    return [
        f"{name}.onnx differs from the model by {value:.1e}, more than {TOLERANCE:.0e}: check it before use"
        for name, value in known.items()
        if value > TOLERANCE
    ]


@contextmanager
def _silent() -> Iterator[None]:
    """Without the log of the converter, which tells of packages that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
