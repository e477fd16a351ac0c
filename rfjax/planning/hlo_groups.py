"""Reads the device groups of a collective from HLO's notations, and finds the mesh axes that they run along.

Devices are numbered in the mesh's row-major order.
"""

import math
import re
from collections.abc import Mapping

import numpy as np

from rfjax.errors import UserError

Groups = tuple[tuple[int, ...], ...]

_IOTA = r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
_MESH = r"@?mesh\[([^\]]*)\](?:,\s*device_ids=\(\s*((?:[^()]|\([^()]*\))*)\))?\s*\{([^}]*)\}"


def read_groups(text: str, devices: int) -> Groups:
    """Reads the groups of a collective in one of HLO's three notations.

    - {{0,1},{2,3}} lists the groups; {} means one group of all devices.
    - [2,4]<=[4,2]T(1,0) means the rows of 0, 1, ... reshaped to 4 x 2, transposed, and reshaped to 2 x 4.
    - mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'} means the lines along axes of a mesh, or along parts of axes
      such as 'a':(2)2. Without device_ids the devices are in order.

    Args:
        text: what follows `replica_groups=`, to the end of the line.
        devices: the number of devices.

    Raises:
        UserError: if the text has another notation.
    """
    if listed := re.match(r"\{((?:\s*\{[\d,\s]*\},?)*)\s*\}", text):
        return read_lists(listed[1]) or (tuple(range(devices)),)
    if iota := re.match(_IOTA, text):
        shape, reshape, order = (_numbers(part) for part in iota.groups())
        return _rows(_iota(reshape, order).reshape(shape))
    if mesh := re.match(_MESH, text):
        return _along(*mesh.groups())
    raise UserError(f"device groups in HLO can't be read: {text[:80]}")


def read_lists(text: str) -> Groups:
    """Reads listed groups: {0,1},{2,3} -> ((0, 1), (2, 3))."""
    return tuple(tuple(_numbers(group)) for group in re.findall(r"\{([\d,\s]+)\}", text))


def axes_of(groups: Groups, mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh that groups run along.

    Args:
        groups: groups of devices, or pairs (from, to) of a permutation.
        mesh: name of an axis -> length.

    Returns:
        Names of axes in the mesh's order; () if the groups are neither lines along one axis nor planes of several.
    """
    shape = tuple(mesh.values())
    if not groups or max(map(max, groups)) >= math.prod(shape):
        return ()
    places = [np.stack(np.unravel_index(np.asarray(group), shape)) for group in groups]
    vary = np.any([(place != place[:, :1]).any(axis=1) for place in places], axis=0)
    whole = math.prod(n for n, varies in zip(shape, vary, strict=True) if varies)
    if vary.sum() > 1 and any(len(group) != whole for group in groups):
        return ()
    return tuple(name for name, varies in zip(mesh, vary, strict=True) if varies)


def _numbers(text: str | None) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", text or "")]


def _iota(reshape: list[int], order: list[int]) -> np.ndarray:
    numbers = np.arange(math.prod(reshape)).reshape(reshape)
    return numbers.transpose(order) if order else numbers


def _rows(values: np.ndarray) -> Groups:
    return tuple(tuple(row) for row in values.reshape(-1, values.shape[-1]).tolist())


def _along(mesh: str, devices: str | None, axes: str) -> Groups:
    """The lines of a mesh along axes or parts of axes: 'a':(2)3 is the middle part of 'a' = 2 x 3 x rest."""
    sizes = {name: int(n) for name, n in re.findall(r"'([^']*)'=(\d+)", mesh)}
    if iota := re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", devices or ""):
        numbers = _iota(_numbers(iota[1]), _numbers(iota[2])).reshape(-1)
    else:
        numbers = np.array(_numbers(devices) or range(math.prod(sizes.values())))
    chosen = {name: [] for name in sizes}
    wanted = re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", axes)
    for name, before, size in wanted:
        chosen[name].append((int(before or 1), int(size or sizes[name])))
    shape, where = [], {}
    for name, size in sizes.items():
        done = 1
        for before, part in sorted(chosen[name]):
            shape.append(before // done)
            where[name, before] = len(shape)
            shape.append(part)
            done = before * part
        shape.append(size // done)
    last = [where[name, int(before or 1)] for name, before, _ in wanted]
    order = [i for i in range(len(shape)) if i not in last] + last
    grouped = numbers.reshape(shape).transpose(order)
    return _rows(grouped.reshape(-1, math.prod(shape[i] for i in last)))
