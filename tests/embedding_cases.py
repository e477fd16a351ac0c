"""Convolutional networks of metrics with random weights: what tests/parity/test_embedding.py compares with torch's.

tests/encoders/embedding repeats it from recordings. Weights are functions of names and shapes. No torch."""

import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from parity_cases import uniform

from rfjax.compiling import quick_options
from rfjax.encoders.embedding import efficientnet, lpips
from rfjax.encoders.embedding.inception_names import CONSTANTS, LAYOUT
from rfjax.tensors.layout import Layout, manifest
from rfjax.tensors.pt import write_pt

TOLERANCE = 1e-5  # relative to the largest value
RECORDED = Path(__file__).parent / "parity" / "recorded_embedding"
SPREAD = 0.1  # of scales, biases and means


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight at which activations neither vanish nor grow, nowhere as it was initialised."""
    raw = uniform(name, shape, 0)
    if name.endswith("running_var"):
        raw = 1 + raw / math.sqrt(12)  # from 0.5 to 1.5
    elif len(shape) == 4:
        raw = raw * math.sqrt(2 / math.prod(shape[1:]))  # He et al. 2015
    elif len(shape) == 2:
        raw = 0.02 * raw
    elif name.endswith(".weight"):
        raw = 1 + SPREAD * raw
    else:
        raw = SPREAD * raw
    return raw.astype(np.float32)


def tensors_of(layout: Layout) -> dict[str, np.ndarray]:
    """Random tensors of a layout, by their names."""
    return {name: weight(name, shape) for name, shape in manifest(layout).items()}


@functools.cache
def inception_tensors() -> dict[str, np.ndarray]:
    """The 472 tensors of torch-fidelity's file."""
    return tensors_of(LAYOUT)


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Writes a torch file; returns its path."""
    write_pt(path, tensors.items(), tensors)
    return path


def images(side: int, batch: int = 2, width: int = 0) -> np.ndarray:
    """uint8 pictures with something in them at every scale, (B, H, W, 3)."""
    shape = (batch, side, width or side, 3)
    noise = uniform("image", shape, side) / math.sqrt(3)
    rows, columns = np.arange(side)[:, None, None] / side, np.arange(width or side)[None, :, None] / side
    waves = np.sin(7 * rows + np.arange(3)) * np.cos(11 * columns + np.arange(batch)[:, None, None, None])
    return np.clip(127.5 + 70 * waves + 60 * noise, 0, 255).astype(np.uint8)


def lpips_files(folder: Path, kind: str) -> Path:
    """A folder with a random backbone, and heads that sum to those of version 0.1."""
    own = lpips.BACKBONES[kind]
    convs = {f"features.{one.number}": (one.outputs, one.inputs, one.size, one.size) for one in own.convs}
    backbone = {f"{name}.weight": weight(f"{name}.weight", shape) for name, shape in convs.items()}
    backbone |= {f"{name}.bias": weight(f"{name}.bias", shape[:1]) for name, shape in convs.items()}
    heads = {}
    for number, (channels, total) in enumerate(zip(own.taps, own.sums, strict=True)):
        raw = 1 + uniform(f"head {number}", (1, channels, 1, 1), 0) / 2
        heads[f"lin{number}.model.1.weight"] = (raw * total / raw.sum()).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / own.files.replace("*", "-random"), backbone)
    write(folder / own.heads, heads)
    return folder


def efficientnet_tensors() -> dict[str, np.ndarray]:
    """The tensors of EfficientNet-Lite0."""
    return tensors_of(efficientnet.LAYOUT)


def jitted(call: Callable[..., Any]) -> Any:
    """A program that compiles fast."""
    return jax.jit(call, compiler_options=quick_options())


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    assert np.isfinite(found).all()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def recorded(name: str) -> dict[str, np.ndarray]:
    """The outputs of a case, as torch's packages had them."""
    with np.load(RECORDED / f"{name}.npz") as found:
        return dict(found)


def thinned(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What of the outputs is recorded: every 31st value."""
    return {name: np.asarray(value)[..., ::31] for name, value in outputs.items()}


# TensorFlow's graphs, written by protobuf's own library

MESSAGES = {
    "Dim": [("size", 1, "INT64", False), ("name", 2, "STRING", False)],
    "Shape": [("dim", 2, "Dim", True)],
    "Tensor": [
        ("dtype", 1, "INT32", False),
        ("tensor_shape", 2, "Shape", False),
        ("version_number", 3, "INT32", False),
        ("tensor_content", 4, "BYTES", False),
        ("float_val", 5, "FLOAT", True),
    ],
    "Value": [("f", 4, "FLOAT", False), ("type", 6, "INT32", False), ("tensor", 8, "Tensor", False)],
    "Entry": [("key", 1, "STRING", False), ("value", 2, "Value", False)],
    "Node": [
        ("name", 1, "STRING", False),
        ("op", 2, "STRING", False),
        ("input", 3, "STRING", True),
        ("device", 4, "STRING", False),
        ("attr", 5, "Entry", True),
    ],
    "Versions": [("producer", 1, "INT32", False)],
    "Graph": [("node", 1, "Node", True), ("versions", 4, "Versions", False)],
}


@functools.cache
def messages() -> dict[str, type]:
    """TensorFlow's messages, as far as a frozen graph has them."""
    file = descriptor_pb2.FileDescriptorProto(name="graph.proto", package="tf", syntax="proto3")
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, many in fields:
            label = kinds.LABEL_REPEATED if many else kinds.LABEL_OPTIONAL
            added = message.field.add(name=field, number=number, label=label)
            if kind in MESSAGES:
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".tf.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf.{name}")) for name in MESSAGES}


def constant(graph: Any, name: str, values: np.ndarray, *, floats: bool = False, dtype: int = 1) -> None:
    """Adds a constant to a graph, by its bytes or by a list of floats."""
    node = graph.node.add(name=name, op="Const")
    node.attr.add(key="dtype").value.type = dtype
    entry = node.attr.add(key="value")
    tensor = entry.value.tensor
    tensor.dtype = dtype
    for length in values.shape:
        tensor.tensor_shape.dim.add(size=length)
    if floats:
        tensor.float_val.extend(values.reshape(-1).tolist())
    else:
        tensor.tensor_content = values.tobytes()


def write_graph(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Writes Inception's tensors as TensorFlow has them: HWIO, between nodes of other kinds."""
    graph = messages()["Graph"]()
    graph.versions.producer = 8
    graph.node.add(name="ExpandDims", op="Placeholder")
    for leaf, (piece,) in LAYOUT.items():
        values = tensors[piece.name].transpose(np.argsort(piece.order))
        constant(graph, CONSTANTS[leaf], np.ascontiguousarray(values))
        scope = CONSTANTS[leaf].rpartition("/")[0]
        graph.node.add(name=f"{scope}/op", op="Conv2D", input=["ExpandDims", CONSTANTS[leaf]], device="/cpu:0")
    path.write_bytes(graph.SerializeToString())
    return path
