"""What describes a network in somebody else's file, read with distrust: shapes, numbers of blocks, config.json."""

import math
import re
from collections.abc import Mapping
from typing import Any

from rfjax.errors import UserError
from rfjax.interop.stored import Tensors, shown


def shape(tensors: Tensors, name: str, axes: int, whose: str) -> tuple[int, ...]:
    """The shape of a tensor that tells a size; axes: how many it must have; whose: files these should be.

    Raises:
        UserError: if it is not there, or has other axes or an empty one.
    """
    if name not in tensors.names:
        raise UserError(f"{tensors.source} has no tensor {name}: expected {whose}")
    found = tensors.shape(name)
    if len(found) != axes or not math.prod(found):
        raise UserError(f"{tensors.source} has {name} of shape {found}: expected {axes} axes that are not empty")
    return found


def count_blocks(tensors: Tensors, pattern: str) -> int:
    """How many blocks there are: the numbers that names begin with `pattern` around, from 0 on.

    Raises:
        UserError: if one is left out.
    """
    numbers = {int(match[1]) for name in tensors.names if (match := re.match(pattern, name)) and len(match[1]) < 10}
    if numbers and len(numbers) <= max(numbers):
        lacking = next(i for i in range(len(numbers)) if i not in numbers)
        raise UserError(f"{tensors.source} has a block number {max(numbers)} and none of number {lacking}")
    return len(numbers)


def number(facts: Mapping[str, Any], key: str, where: object, most: int = 2**24) -> int:
    """A size in a config.json.

    Raises:
        UserError: if it is no whole number from 1 to `most`.
    """
    if key not in facts:
        raise UserError(f"{where} has no '{key}'")
    value = facts[key]
    if type(value) is not int or not 1 <= value <= most:
        raise UserError(f"{where}: {key} = {shown(repr(value))} must be a whole number from 1 to {most:,}")
    return value
