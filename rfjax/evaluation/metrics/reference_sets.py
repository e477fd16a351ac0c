"""What generated pictures are compared with: statistics from a file, or of pictures that are embedded here once.

`config.evaluate.reference` names them. Statistics of pictures are kept in WORKDIR/references, by a hash of the network,
its preprocessing and the pictures, so that a second run reads them.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from rfjax import config as configs
from rfjax.config.paths import expanded
from rfjax.errors import UserError
from rfjax.evaluation import archives, picture_sets
from rfjax.evaluation.metrics.embedded import Opened, Rows
from rfjax.evaluation.picture_sets import FolderSet, PictureSet
from rfjax.evaluation.statistics import moments, references
from rfjax.evaluation.statistics.references import Reference

SPLITS = ("train", "validation", "test")
FOLDER = "references"
PICKLES = {".pkl", ".pickle"}
STATISTICS = {"mu", "ref_mu", "mean", "about"}  # members that tell a file of statistics from an archive of pictures
KEY = "config.evaluate.reference"

_MADE: dict[str, Reference] = {}  # by what it depends on: measurements along a run ask again


def reference(config: configs.Config, opened: Opened, rows: Rows, features: bool) -> Reference:
    """The reference of a config for one network.

    Args:
        config: whose data, or files, are the reference.
        opened: the network.
        rows: how its batches lie on the devices.
        features: whether the vectors themselves are needed, and not their moments alone.

    Raises:
        UserError: if there is none, it is another network's, or it has no vectors and they are needed.
    """
    wanted = config.evaluate.reference
    if wanted in SPLITS:
        pictures = picture_sets.open_split(config.data, wanted, config.evaluate.reference_count)
        return _of_pictures(config, opened, rows, pictures, config.to_dict()["data"])
    path = _path(config)
    if _is_statistics(path):
        return _of_file(config, opened, rows, path, features)
    pictures = picture_sets.open_set(path)
    return _of_pictures(config, opened, rows, pictures, _stamps(path, pictures))


def check(config: configs.Config) -> None:
    """Refuses a reference that can't be opened, before anything is drawn.

    Raises:
        UserError: if there is none of this name, or it holds no pictures and no statistics.
    """
    if config.evaluate.reference in SPLITS:
        picture_sets.open_split(config.data, config.evaluate.reference, 2)
    elif not _is_statistics(path := _path(config)):
        picture_sets.open_set(path)


def _path(config: configs.Config) -> Path:
    path = Path(expanded(config.evaluate.reference, KEY))
    if not path.exists():
        raise UserError(f"{KEY}: there is no {path}: name statistics (.npz), an archive, a folder, or a split")
    return path


def _is_statistics(path: Path) -> bool:
    return path.is_file() and (path.suffix in PICKLES or bool(archives.members(path) & STATISTICS))


def check_statistics(config: configs.Config, opened: Opened, features: bool) -> None:
    """Refuses a file of statistics that are not for a network, before hours of drawing and embedding.

    Raises:
        UserError: if they are another network's, or lack the pictures that are needed.
    """
    if config.evaluate.reference not in SPLITS and _is_statistics(path := _path(config)):
        _statistics(opened, path, features)


def _statistics(opened: Opened, path: Path, features: bool) -> Reference:
    embedder, stamp = opened.embedder, path.stat()
    about = embedder.about()
    key = json.dumps([str(path), stamp.st_size, stamp.st_mtime_ns, embedder.name, about])
    if key not in _MADE:
        _MADE[key] = references.read(path, embedder.name, about, embedder.outputs)
    found = _MADE[key]
    if features and not found.features and archives.IMAGES not in archives.members(path):
        raise UserError(
            f"{KEY} = '{path}' has statistics without pictures, and precision, recall, density, coverage, KID and CMMD "
            "compare with each picture: name the pictures, or take these out of config.sampling.metrics"
        )
    return found


def _of_file(config: configs.Config, opened: Opened, rows: Rows, path: Path, features: bool) -> Reference:
    """Statistics of a file; vectors that they lack come from the pictures beside them, as in ADM's files."""
    found = _statistics(opened, path, features)
    if not features or found.features:
        return found
    pictures = archives.open_archive(path)
    beside = _of_pictures(config, opened, rows, pictures, _stamps(path, pictures))
    return replace(found, features=beside.features)


def _stamps(path: Path, pictures: PictureSet) -> dict[str, str]:
    """What tells pictures from those that lay there before; a folder's own time does not change with its files."""
    files = pictures.files if isinstance(pictures, FolderSet) else (Path(),)
    digest = hashlib.sha256()
    for file in files:
        stamp = (path / file).stat()
        digest.update(f"{file} {stamp.st_size} {stamp.st_mtime_ns}\n".encode())
    return {"files": digest.hexdigest()}


def _of_pictures(
    config: configs.Config, opened: Opened, rows: Rows, pictures: PictureSet, identity: Mapping[str, Any]
) -> Reference:
    """Embeds pictures, or reads what was made of them before."""
    embedder = opened.embedder
    about = embedder.about() | {"data": pictures.name, "count": str(len(pictures))}
    plain = json.dumps([embedder.name, about, list(pictures.shape), identity], sort_keys=True)
    digest = hashlib.sha256(plain.encode()).hexdigest()[:16]
    if digest in _MADE:
        return _MADE[digest]
    path = Path(config.workdir) / FOLDER / f"{embedder.name}-{digest}.npz"
    if _agreed(path.is_file()):
        _MADE[digest] = references.read(path, embedder.name, about, embedder.outputs)
        return _MADE[digest]
    vectors = embed_all(opened, rows, pictures)
    made = references.make(
        embedder.name, about, {name: moments.of(values) for name, values in vectors.items()}, vectors
    )
    if jax.process_index() == 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        references.write(path, made)
    _MADE[digest] = made
    return made


def embed_all(opened: Opened, rows: Rows, pictures: PictureSet) -> dict[str, np.ndarray]:
    """Every output for all pictures of a set.

    Raises:
        UserError: for a picture that is broken or of another size.
    """
    found: dict[str, list[np.ndarray]] = {}
    for images, _ in pictures.batches(rows.size):
        wide = images if images.shape[-1] == 3 else np.repeat(images, 3, axis=-1)
        for name, values in opened.embed(rows.place(wide)).items():
            found.setdefault(name, []).append(values[: len(images)])
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _agreed(found: bool) -> bool:
    """What process 0 found, on every process."""
    if jax.process_count() == 1:
        return found
    return bool(multihost_utils.broadcast_one_to_all(np.int32(found)))
