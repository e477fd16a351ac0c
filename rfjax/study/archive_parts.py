"""The files of an archive: a batch each while it is made, then one .npz file that is written a batch at a time."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from rfjax import files
from rfjax.errors import UserError
from rfjax.evaluation.archives import IMAGES

NAME, PARTS = "samples.npz", "parts"


def part(folder: Path, number: int) -> Path:
    """The file of a batch."""
    return folder / PARTS / f"{number:06}.npz"


def write(folder: Path, number: int, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a batch, which survives a power cut."""
    with files.atomic(part(folder, number), lasting=True) as partial, partial.open("wb") as partial_file:
        np.savez(partial_file, **arrays)


def first_missing(folder: Path, batches: int) -> int:
    """The first batch that is not there; `batches` if all are."""
    return next((number for number in range(batches) if not part(folder, number).exists()), batches)


def remove(folder: Path) -> None:
    """Removes the batches."""
    for path in (folder / PARTS).glob("*.npz"):
        path.unlink(missing_ok=True)


def assemble(folder: Path, count: int, batches: int, member: str) -> None:
    """Puts the parts together, one after the other; the same parts give the same bytes.

    Args:
        folder: of the parts and of the archive.
        count: of pictures.
        batches: how many parts there are.
        member: the name of what is said of them.

    Raises:
        UserError: for a part that is damaged.
    """
    said = []
    with files.atomic(folder / NAME, lasting=True) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open(zipfile.ZipInfo(f"{IMAGES}.npy"), "w", force_zip64=True) as images:
            for number in range(batches):
                found = _read(part(folder, number))
                if not number:
                    shape, descr = (count, *found[IMAGES].shape[1:]), np.lib.format.dtype_to_descr(found[IMAGES].dtype)
                    header = {"descr": descr, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(images, header)
                images.write(memoryview(np.ascontiguousarray(found[IMAGES])).cast("B"))
                said.append(found[member])
        texts = io.BytesIO()
        np.lib.format.write_array(texts, np.concatenate(said), allow_pickle=False)
        with archive.open(zipfile.ZipInfo(f"{member}.npy"), "w") as labels:
            labels.write(texts.getvalue())


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # of a damaged file, numpy and zipfile raise nearly anything
        raise UserError(f"{path} can't be read ({error}): remove it and repeat the same command") from error
