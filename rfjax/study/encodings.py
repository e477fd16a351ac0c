"""Encodings of texts from a file, to draw from in place of prompts."""

import zipfile
from pathlib import Path

import numpy as np

from rfjax import untrusted
from rfjax.data import paths
from rfjax.errors import UserError
from rfjax.evaluation.generation import Prompts

NAMES = ("context", "pooled", "captions")


def read_encodings(file: Path) -> Prompts:
    """Reads an .npz file with `context` (n, L, E), `pooled` (n, P) and perhaps `captions` (n).

    Raises:
        UserError: if it can't be read, or its arrays don't fit each other.
    """
    where = f"config.generate.encodings = {file}"
    try:
        arrays = _arrays(file)
    except FileNotFoundError as error:
        raise UserError(f"{where}: there is no such file") from error
    except UserError as error:
        raise UserError(f"config.generate.encodings: {error}") from error
    except Exception as error:  # numpy, zipfile and zlib each raise errors of their own
        raise UserError(f"{where} can't be read: it must be an .npz file of numbers, and texts as captions") from error
    for name, shape in (("context", "(n, L, E)"), ("pooled", "(n, P)")):
        if name not in arrays:
            raise UserError(f"{where} has no array '{name}' of shape {shape}")
        found = arrays[name]
        if found.ndim != shape.count(",") + 1 or found.dtype.kind not in "fiu" or not np.isfinite(found).all():
            raise UserError(
                f"{where}: expected '{name}' as finite numbers of shape {shape}, found {found.dtype} of {found.shape}"
            )
    context, pooled = (arrays[name].astype(np.float32) for name in ("context", "pooled"))
    captions = arrays.get("captions", np.array([f"no. {i}" for i in range(1, len(context) + 1)]))
    counts = [len(context), len(pooled), captions.size]
    if not counts[0] or set(counts) != {counts[0]}:
        said = "{} of context, {} of pooled, {} captions".format(*counts)
        raise UserError(f"{where} must have as many rows of each array, one or more: it has {said}")
    return Prompts(tuple(map(str, captions.ravel())), {"context": context, "pooled": pooled})


def _arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of these names, whose sizes are looked at before they are unpacked."""
    with untrusted.regular(file, paths.ANY_SIZE) as opened:
        with zipfile.ZipFile(opened) as archive:
            size = sum(info.file_size for info in archive.infolist() if info.filename.removesuffix(".npy") in NAMES)
        paths.check_memory(f"config.generate.encodings = {file}", size, "divide the encodings among several files")
        opened.seek(0)
        with np.load(opened, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files if name in NAMES}
