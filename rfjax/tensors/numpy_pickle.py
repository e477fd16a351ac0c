"""Pickles of NumPy arrays, such as files of statistics, without running what they call.

Only the names that NumPy's own pickles of plain arrays and numbers use have a meaning; any other is an error before
anything is called.
"""

import math
import re
from typing import Any

import numpy as np

from rfjax.errors import UserError, one_line
from rfjax.tensors import pickled

_CODE = re.compile(r"[fiu][1248]|b1")
_ORDERS = ("<", ">", "=", "|")
_SHAPE, _DTYPE, _FORTRAN, _BYTES = 1, 2, 3, 4  # the places in an array's state


class _Dtype(pickled.Whole):
    """A data type: its code, and in its state the order of bytes."""

    def __init__(self, code: Any, *_: Any) -> None:
        super().__init__()
        self.code = code

    def real(self) -> np.dtype:
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "="
        if not isinstance(self.code, str) or not _CODE.fullmatch(self.code) or order not in _ORDERS:
            raise pickled.Damaged("an array is not of plain numbers")
        return np.dtype(self.code).newbyteorder(order)


class _Array(pickled.Whole):
    """An array whose content is in its state."""

    def real(self) -> np.ndarray:
        if not isinstance(self.state, tuple) or len(self.state) <= _BYTES:
            raise pickled.Damaged("an array has no content")
        order = "F" if self.state[_FORTRAN] else "C"
        return _array(self.state[_BYTES], self.state[_DTYPE], self.state[_SHAPE], order)


def load(data: bytes, where: str) -> Any:
    """The value of a pickle of dicts, lists, plain values and NumPy's arrays and numbers.

    Args:
        data: the whole pickle, of any protocol.
        where: its name in messages.

    Raises:
        UserError: if it is damaged, or names anything else.
    """

    def find(full: str) -> Any:
        if full in _MEANINGS:
            return _MEANINGS[full]
        raise UserError(
            f"{where} wants to call `{one_line(full)}`, but only NumPy's arrays and plain values are read, and nothing "
            "was run: save a dict of them"
        )

    def persistent(_: Any) -> Any:
        raise pickled.Damaged("it refers to objects outside of the file")

    try:
        return _real(pickled.load(data, find, persistent))
    except pickled.Damaged as error:
        raise UserError(f"{where} holds a damaged pickle: {error}") from error


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not isinstance(content, bytes) or not isinstance(dtype, _Dtype) or not sizes or order not in ("C", "F"):
        raise pickled.Damaged("an array is not of plain numbers")
    real = dtype.real()
    if math.prod(shape) * real.itemsize != len(content):
        raise pickled.Damaged(f"an array of shape {shape} has {len(content):,} bytes")
    return np.frombuffer(content, real).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return _array(content, dtype, (), "C")[()]


def _encoded(text: Any, *_: Any) -> bytes:
    """Bytes in pickles of protocol 2, as text whose characters are the bytes."""
    if not isinstance(text, str):
        raise pickled.Damaged("bytes are no text")
    return text.encode("latin-1")


def _no_bytes() -> bytes:
    """How pickles of protocol 2 write bytes of length 0."""
    return b""


def _real(value: Any, levels: int = 2) -> Any:
    """Arrays in place of what stands for them; statistics are at most two dicts deep."""
    if isinstance(value, _Array | _Dtype):
        return value.real()
    if isinstance(value, dict) and levels:
        return {key: _real(item, levels - 1) for key, item in value.items()}
    return value


_MEANINGS = (
    {
        "numpy.dtype": pickled.Allowed(_Dtype),
        "numpy.ndarray": None,
        "_codecs.encode": pickled.Allowed(_encoded),
        "__builtin__.bytes": pickled.Allowed(_no_bytes),
        "collections.OrderedDict": pickled.Allowed(pickled.ordered),
    }
    | {f"numpy.{core}.multiarray._reconstruct": pickled.Allowed(lambda *_: _Array()) for core in ("core", "_core")}
    | {f"numpy.{core}.multiarray.scalar": pickled.Allowed(_scalar) for core in ("core", "_core")}
    | {f"numpy.{core}.numeric._frombuffer": pickled.Allowed(_array) for core in ("core", "_core")}
)
