"""Reads a network's sizes from another project's file and checks them: shapes, numbers of blocks, config.json."""

import math
import re
from collections.abc import Mapping
from typing import Any

from rfjax.errors import UserError, one_line
from rfjax.tensors.stored import Tensors


def shape(tensors: Tensors, name: str, axes: int, whose: str) -> tuple[int, ...]:
    """The shape of a tensor.

    Args:
        axes: number of axes that it must have.
        whose: the kind of file that has such a tensor, for the message.

    Raises:
        UserError: if the tensor is missing, has another number of axes, or an axis of length 0.
    """
    if name not in tensors.names:
        raise UserError(f"{tensors.source} has no tensor {name}: expected {whose}")
    result = tensors.shape(name)
    if len(result) != axes or not math.prod(result):
        raise UserError(f"{tensors.source} has {name} of shape {result}: expected {axes} axes that are not empty")
    return result


def count_blocks(tensors: Tensors, pattern: str) -> int:
    """The number of blocks, whose indices count from 0.

    Args:
        pattern: regular expression for the beginning of names, with a group for the index.

    Raises:
        UserError: if an index is missing.
    """
    numbers = {int(match[1]) for name in tensors.names if (match := re.match(pattern, name)) and len(match[1]) < 10}
    if numbers and len(numbers) <= max(numbers):
        lacking = next(i for i in range(len(numbers)) if i not in numbers)
        raise UserError(f"{tensors.source} has a block number {max(numbers)} but no block number {lacking}")
    return len(numbers)


def number(metadata: Mapping[str, Any], key: str, where: object, most: int = 2**24) -> int:
    """A size in a config.json.

    Raises:
        UserError: if it is missing, or not a whole number from 1 to `most`.
    """
    if key not in metadata:
        raise UserError(f"{where} has no '{key}'")
    value = metadata[key]
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"{where}: {key} = {one_line(repr(value))} must be a whole number from 1 to {most:,}")
    return value
