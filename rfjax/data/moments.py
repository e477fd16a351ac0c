"""Moments of an autoencoder's latents as REPA's and EDM2's tools store them: a file for each picture.

    moments/
      vae-sd/
        dataset.json                            {"labels": [["00000/img-mean-std-00000000.npy", 6], ...]}
        00000/img-mean-std-00000000.npy         float32 (2 C, H, W): the mean's channels, then the deviation's
      images/00000/img00000000.png              the pictures, if an encoder reads them

The folder may have parts train/ and validation/ of this form. Without validation/, a hash of each file's name decides
whether it is one of config.data.validation_percent of the examples: an example never changes its split when others come
or go. Examples come in the order of their names. The codec `moments` draws latents from the moments.
"""

import functools
import hashlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64, Shaped

from rfjax import config as configs
from rfjax.config.paths import expanded
from rfjax.data import images, paths
from rfjax.data.types import Example, Examples, Field, Split, check_index, check_split
from rfjax.data.verified import LARGEST
from rfjax.errors import UserError, one_line
from rfjax.untrusted import read_json

FEATURES, IMAGES, LIST = "vae-sd", "images", "dataset.json"
_NAME = re.compile(r"(?:[^/]+/)*img-mean-std-(\d+)\.npy")
_SCALE = 2.0**-64  # of eight bytes of a hash


@dataclass(frozen=True)
class Moments:
    """The examples of one split, read from their files at each access; a `Batched` source.

    Attributes:
        root: the folder of vae-sd/ and images/.
        files: names of this split's moments, below vae-sd/.
        labels: their classes.
        classes: one more than the largest label of the folder.
        shape: of one example's moments, (H, W, 2 C).
        picture: of one example's picture, (H, W, 3); None without images/.
    """

    root: Path
    files: Shaped[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    classes: int
    shape: tuple[int, ...]
    picture: tuple[int, ...] | None

    @property
    def fields(self) -> dict[str, Field]:
        """See `types.Source`."""
        fields = {"moments": Field(self.shape, "float32", flips=True), "label": Field((), "int64")}
        return fields | ({"image": Field(self.picture, "uint8", flips=True)} if self.picture else {})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        arrays, captions = self.take([index])
        return {name: array[0] for name, array in arrays.items()} | {"caption": captions[0], "index": index}

    def names(self) -> Iterator[str]:
        """See `types.Named`: each file and its label."""
        for file, label in zip(self.files, self.labels, strict=True):
            yield f"{file.decode()}\0{label}"

    def take(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Examples:
        """See `types.Batched`; refuses, with a UserError, files that can't be used."""
        rows = [check_index(int(index), len(self)) for index in indices]
        files = [self.files[row].decode() for row in rows]
        read = {
            "moments": lambda: _stacked([self._moments(file) for file in files], self.shape, np.float32),
            "label": lambda: self.labels[rows],
            "image": lambda: _stacked([self._image(file) for file in files], self.picture, np.uint8),
        }
        arrays = {name: read[name]() for name in (self.fields if names is None else names)}
        return Examples(arrays, [str(label) for label in self.labels[rows].tolist()])

    def _moments(self, file: str) -> Float[np.ndarray, "H W C2"]:
        path = self.root / FEATURES / file
        found = read_moments(path)
        if found.shape != self.shape:
            shapes = f"shape {_stored(found)}, and others have {_stored(self)}"
            raise UserError(f"'{path}' holds moments of {shapes}: encode its picture again")
        return found

    def _image(self, file: str) -> Shaped[np.ndarray, "H W 3"]:
        if missing := self._unpaired:
            raise UserError(missing)
        path = self.root / IMAGES / image_of(file)
        found = _picture(path)
        if found.shape != self.picture:
            raise UserError(f"'{path}' has shape {found.shape}, and others have {self.picture}: convert it again")
        return found

    @functools.cached_property
    def _unpaired(self) -> str:
        """What is wrong with the pictures, or "". The first reading walks over all of them, which takes seconds."""
        features = _listed(self.root / FEATURES, _stamp(self.root / FEATURES)).files
        wanted = {image_of(file.decode()) for file in features}
        return _difference(self.root / IMAGES, wanted, _walked(self.root / IMAGES, ".png")[0], "pictures")


def _stacked(parts: list[np.ndarray], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.stack(parts) if parts else np.empty((0, *shape), dtype)


def _stored(moments: Moments | np.ndarray) -> tuple[int, ...]:
    """A shape in the order of the files."""
    return (moments.shape[-1], *moments.shape[:-1])


def image_of(file: str) -> str:
    """The picture of a file of moments: "00000/img-mean-std-00000000.npy" -> "00000/img00000000.png"."""
    return f"{file.removesuffix('.npy').replace('img-mean-std-', 'img')}.png"


def read_moments(path: Path) -> Float[np.ndarray, "H W C2"]:
    """The moments in a file, channels last, as float32.

    Raises:
        UserError: if the file is missing, damaged, or holds something else.
    """
    try:
        found = np.load(io.BytesIO(paths.read(path, LARGEST)), allow_pickle=False)
    except UserError:
        raise
    except Exception as error:  # of a hostile header, numpy and Python's own parser raise nearly anything
        raise UserError(f"'{path}' is not a whole .npy file of moments ({error}): encode its picture again") from error
    if not isinstance(found, np.ndarray) or found.ndim != 3 or found.dtype not in (np.float16, np.float32):
        what = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise UserError(f"'{path}' holds {what}, and moments are float32 of shape (2 C, H, W)")
    if not np.isfinite(found).all():
        raise UserError(f"'{path}' holds numbers that are not finite: encode its picture again")
    return np.ascontiguousarray(found.transpose(1, 2, 0), np.float32)


def _picture(path: Path) -> Shaped[np.ndarray, "H W 3"]:
    try:
        return images.decode(paths.read(path, LARGEST), 3)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' can't be read ({error}): each file of moments needs its picture") from error


def open_source(config: configs.Data, split: Split) -> Moments:
    """Opens one split of a folder of moments; reads its list and one example.

    Args:
        config: its path, image_size and channels (of a latent), validation_percent and outside.
        split: "train", "validation" or "test".

    Raises:
        UserError: if a folder or a file is missing, damaged, or disagrees with the others or with the config.
    """
    check_split(split)
    root = expanded(config.path, "config.data.path")
    divided = split != "test" and not (root / "validation").is_dir()
    train = root / "train" if (root / "train").is_dir() else root
    part = train if divided or split == "train" else root / split
    folder = part / FEATURES
    if not (folder / LIST).is_file():
        raise UserError(f"there is no '{folder / LIST}': config.data.path must be a folder of {FEATURES}/{LIST}")
    files, labels, links = _listed(folder, _stamp(folder))
    if not config.outside:
        paths.check_inside(root, (os.path.relpath(link, root) for link in links), f"'{folder}'")
    classes = int(labels.max()) + 1
    if divided:
        chosen = _held_out(files, config.validation_percent) == (split == "validation")
        files, labels = files[chosen], labels[chosen]
    if not len(files):
        raise UserError(
            f"split '{split}' of '{root}' is empty: config.data.validation_percent = {config.validation_percent:g} "
            "leaves no example to it; change it, or make a folder 'validation'"
        )
    shape = read_moments(folder / files[0].decode()).shape
    wanted = config.shape or (config.image_size, config.image_size, config.channels)
    if shape != (*wanted[:-1], 2 * wanted[-1]):
        raise UserError(
            f"'{folder / files[0].decode()}' holds moments of shape {(shape[-1], *shape[:-1])}, and latents of shape "
            f"{wanted} have {(2 * wanted[-1], *wanted[:-1])}: see config.data.image_size and config.data.channels"
        )
    pictures = (part / IMAGES).is_dir()
    picture = _picture(part / IMAGES / image_of(files[0].decode())).shape if pictures else None
    return Moments(part, files, labels, classes, shape, picture)


def _stamp(folder: Path) -> int:
    return (folder / LIST).stat().st_mtime_ns


class Listing(NamedTuple):
    """The files of a folder by their names, their labels, and the paths that are links."""

    files: Shaped[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    links: list[str]


@functools.lru_cache(maxsize=4)
def _listed(folder: Path, stamp: int) -> Listing:
    """Reads the list and looks for its files; `stamp` is the list's time, for the cache.

    Raises:
        UserError: if the list can't be used, or is of other files than there are.
    """
    path = folder / LIST
    pairs = (read_json(path) or {}).get("labels")
    if not isinstance(pairs, list) or not pairs:
        raise UserError(f"'{path}' has no list of 'labels': it must be [[file, label], ...], as the encoder writes it")
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int):
            raise UserError(f"'{path}' has the entry {one_line(repr(pair))}, and each must be [file, label]")
        if not _NAME.fullmatch(pair[0]) or ".." in pair[0].split("/"):
            name = "00000/img-mean-std-00000000.npy"
            raise UserError(f"'{path}' names '{one_line(pair[0])}', and files have names such as {name}")
        if not 0 <= pair[1] < 2**31:
            raise UserError(f"'{path}' has label {pair[1]} of '{one_line(pair[0])}': labels are numbers from 0")
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        raise UserError(f"'{path}' names a file twice: it has {len(pairs):,} entries of {len(names):,} files")
    files, links = _walked(folder, ".npy")
    if wrong := _difference(folder, names, files, "moments"):
        raise UserError(wrong)
    pairs.sort()
    return Listing(np.array([name.encode() for name, _ in pairs]), np.array([label for _, label in pairs]), links)


def _difference(folder: Path, wanted: set[str], found: set[str], what: str) -> str:
    """A sentence on how the list and the files differ; "" if they are the same."""
    if missing := wanted - found:
        return (
            f"'{folder}' lacks {len(missing):,} of the {len(wanted):,} {what} that {FEATURES}/{LIST} names, such as "
            f"'{one_line(min(missing))}': encode them, or make the list again"
        )
    if more := found - wanted:
        return (
            f"'{folder}' has {len(more):,} {what} that {FEATURES}/{LIST} does not name, such as "
            f"'{one_line(min(more))}': remove them, or make the list again"
        )
    return ""


def _walked(folder: Path, suffix: str) -> tuple[set[str], list[str]]:
    """The files below a folder, and the paths of all links, which are not followed to folders.

    It asks for no file's status: a million files take two seconds.
    """
    files, links, waiting = set(), [], [""]
    while waiting:
        below = waiting.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_symlink():
                    links.append(entry.path)
                if entry.name.endswith(suffix):
                    files.add(name)
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
    return files, links


def _held_out(files: Shaped[np.ndarray, " n"], percent: float) -> Shaped[np.ndarray, " n"]:
    """Which examples are the validation's: those whose name's hash lies in the first percent."""
    hashes = (int.from_bytes(hashlib.sha256(file).digest()[:8], "big") for file in files.tolist())
    return np.fromiter(hashes, np.float64, len(files)) * _SCALE * 100 < percent
