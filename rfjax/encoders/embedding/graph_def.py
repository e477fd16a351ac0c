"""The constants of a TensorFlow graph (.pb) without TensorFlow, by a small reader of protobuf's wire format.

Field numbers are those of TensorFlow's graph.proto, node_def.proto, attr_value.proto, tensor.proto and
tensor_shape.proto. Nothing is made of what the file says but the constants that a caller asks for.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from rfjax import untrusted
from rfjax.errors import UserError, one_line

LARGEST = 2**29  # bytes; FID's Inception has 96 million
VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5  # wire types
WIDTHS = {FIXED_64: 8, FIXED_32: 4}
LONGEST_VARINT = 10  # bytes of 64 bits
NODE = 1  # of GraphDef
NAME, OP, ATTRIBUTE = 1, 2, 5  # of NodeDef
KEY, VALUE = 1, 2  # of an entry of a map
TENSOR = 8  # of AttrValue
DTYPE, SHAPE, CONTENT, FLOATS = 1, 2, 4, 5  # of TensorProto
AXIS, LENGTH = 2, 1  # of TensorShapeProto, and of its Dim
DT_FLOAT = 1


class Damaged(Exception):
    """The bytes are no message."""


def read_constants(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Float[np.ndarray, "..."]]:
    """The float32 constants of a graph that have these names.

    Args:
        path: of the serialised GraphDef.
        shapes: name -> shape that it must have.

    Raises:
        UserError: if the file is no graph or is damaged, or lacks one of these constants.
    """
    data = untrusted.read_bytes(path, limit=LARGEST, fix="give a frozen graph")
    if data is None:
        raise UserError(f"there is no {path}")
    try:
        tensors = dict(_constants(memoryview(data), shapes))
        missing = [name for name in shapes if name not in tensors]
        if not missing:
            return {name: _values(name, tensors[name], shape) for name, shape in shapes.items()}
    except (Damaged, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TensorFlow graph, or is damaged: {error}") from error
    raise UserError(
        f"{path} is a TensorFlow graph that lacks {len(missing)} of {len(shapes)} constants, such as {missing[0]}"
    )


def _constants(data: memoryview, wanted: Mapping[str, object]) -> Iterator[tuple[str, memoryview]]:
    """Name and TensorProto of the wanted constants."""
    count = 0
    for number, node in _fields(data):
        if number != NODE or not isinstance(node, memoryview):
            continue
        count += 1
        name, op, tensor = "", "", None
        for part, value in _fields(node):
            if part in (NAME, OP):
                text = _bytes(value).tobytes().decode()
                name, op = (text, op) if part == NAME else (name, text)
            elif part == ATTRIBUTE:
                entry = dict(_fields(_bytes(value)))
                if bytes(_bytes(entry.get(KEY, memoryview(b"")))) == b"value":
                    tensor = dict(_fields(_bytes(entry.get(VALUE, memoryview(b""))))).get(TENSOR)
        if op == "Const" and name in wanted and tensor is not None:
            yield name, _bytes(tensor)
    if not count:
        raise Damaged("it has no nodes")


def _values(name: str, tensor: memoryview, shape: tuple[int, ...]) -> np.ndarray:
    """The values of a TensorProto, which stores them whole, or one that all of them share."""
    dtype, found, content, floats = 0, (), memoryview(b""), []
    for number, value in _fields(tensor):
        if number == DTYPE:
            dtype = value
        elif number == SHAPE:
            axes = [dict(_fields(_bytes(axis))) for part, axis in _fields(_bytes(value)) if part == AXIS]
            found = tuple(axis.get(LENGTH, 0) for axis in axes)
        elif number == CONTENT:
            content = _bytes(value)
        elif number == FLOATS:
            floats.append(_bytes(value))
    if dtype != DT_FLOAT:
        raise Damaged(f"{one_line(name)} has the type {dtype}, not float32 ({DT_FLOAT})")
    if found != shape:
        raise Damaged(f"{one_line(name)} has the shape {found} where {shape} was expected")
    raw = content if len(content) else memoryview(b"".join(floats))
    if len(raw) == 4 and math.prod(shape) > 1:
        return np.full(shape, np.frombuffer(raw, "<f4")[0])
    if len(raw) != 4 * math.prod(shape):
        raise Damaged(f"{one_line(name)} has {len(raw):,} bytes for {math.prod(shape):,} values")
    return np.frombuffer(raw, "<f4").reshape(shape)


def _bytes(value: "int | memoryview") -> memoryview:
    if not isinstance(value, memoryview):
        raise Damaged("a number stands where a message should")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, "int | memoryview"]]:
    """Number and value of a message's fields: a whole number, or bytes."""
    place, end = 0, len(data)
    while place < end:
        tag, place = _varint(data, place)
        number, kind = tag >> 3, tag & 7
        if not number:
            raise Damaged("a field has no number")
        if kind == VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == BYTES:
            size, place = _varint(data, place)
        elif kind in WIDTHS:
            size = WIDTHS[kind]
        else:
            raise Damaged(f"a field has the unknown kind {kind}")
        if size > end - place:
            raise Damaged("it is cut short")
        yield number, data[place : place + size]
        place += size


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A whole number of seven bits a byte, and the place behind it."""
    value = 0
    for count in range(LONGEST_VARINT):
        if place + count >= len(data):
            raise Damaged("it is cut short")
        byte = data[place + count]
        value |= (byte & 127) << 7 * count
        if byte < 128:
            return value, place + count + 1
    raise Damaged("a number is too long")
