"""Reads the weights of frozen networks from files that people downloaded, and says what to take instead."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from rfjax.config.paths import expanded
from rfjax.errors import UserError
from rfjax.tensors import transfer
from rfjax.tensors.layout import Layout
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.stored import Tensors

COUNTS = r".*\.num_batches_tracked$"  # of batch normalisation's training: no part of the network


def located(path: str, key: str, what: str) -> Path:
    """The path of a config's key, local and without `~`.

    Args:
        path: as the user wrote it. key: that holds it. what: it must name, for the message.

    Raises:
        UserError: if it is empty, or there is nothing.
    """
    if not path:
        raise UserError(f"{key} is empty: it must name {what}")
    found = expanded(path, key)
    if not found.exists():
        raise UserError(f"there is no {found}: {key} must name {what}")
    return found


def read_leaves(path: Path, layout: Layout, advice: str, ignore: Sequence[str] = (COUNTS,)) -> dict[str, np.ndarray]:
    """The float32 values of all leaves of a layout, by path, from a torch or safetensors file.

    Args:
        path: of the file.
        layout: of pieces that are whole leaves.
        advice: which file to take instead, for the end of a message.
        ignore: regular expressions for the beginnings of names of tensors that the layout may lack.

    Raises:
        UserError: if the file can't be read, holds other tensors, or numbers that are not finite.
    """
    if is_script(path):
        raise UserError(f"{path} is a TorchScript program, which only torch can run: {advice}")
    try:
        with open_tensors(path) as tensors:
            return _read(tensors, layout, ignore)
    except UserError as error:
        raise UserError(f"{error}: {advice}") from error


def _read(tensors: Tensors, layout: Layout, ignore: Sequence[str]) -> dict[str, np.ndarray]:
    target = {path: jax.ShapeDtypeStruct(piece.view, np.float32) for path, (piece,) in layout.items()}
    leaves = transfer.defer(tensors, layout, target, np.float32, ignore)
    found = {path: leaf.read() for path, leaf in leaves.items()}
    check_values(found, {path: piece.name for path, (piece,) in layout.items()}, tensors.source)
    return found


def check_values(leaves: Mapping[str, np.ndarray], names: Mapping[str, str], where: Path) -> None:
    """Refuses numbers that are not finite, and negative variances, which would make some.

    Args:
        leaves: by path; those of variances end in /variance.
        names: path -> name in the file.
        where: the file.

    Raises:
        UserError: if there are any.
    """
    for path, values in leaves.items():
        if not np.isfinite(values).all():
            raise UserError(f"{where} holds values in {names[path]} that are not finite")
        if path.endswith("/variance") and values.min(initial=0) < 0:
            raise UserError(f"{where} holds negative variances in {names[path]}")


def is_script(path: Path) -> bool:
    """Whether a file is a TorchScript program: a zip file with code."""
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError):
        return False
