"""ImageNet as it is unpacked, and any other data set with a folder of pictures for each class.

    imagenet/train/n01440764/n01440764_10026.JPEG
    imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG      or val/ILSVRC2012_val_00000293.JPEG, with a file of labels

The label of a picture is the rank of its folder among the sorted ones of train/, which is what all networks of ImageNet
are trained with; the numbers of ILSVRC's development kit are others. Captions are made of the names of the classes.
Without a folder of validation pictures, a hash of the file's name divides train/. The crop of ADM, DiT, SiT and REPA is
config.data.resize = "adm". Broken pictures are replaced when they are read: see `rfjax.data.records`.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from rfjax import config as configs
from rfjax.config.paths import expanded
from rfjax.data import captions, classes, images, paths, verified
from rfjax.data.records import Pictures, Record
from rfjax.data.types import Problem, Split, check_split
from rfjax.errors import UserError, nearest

FOLDERS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}


class Files:
    """Pictures in files with a label each; `records.Records`."""

    def __init__(self, folder: Path, files: list[str], labels: list[int], caption: Callable[[int], str]) -> None:
        """caption: of a class."""
        self._folder, self._files, self._caption = folder, files, caption
        self._labels: Int32[np.ndarray, " n"] = np.array(labels, np.int32)

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """See `records.Records`."""
        return self._files[index]

    def names(self) -> Iterator[str]:
        """See `types.Named`: each picture's file and label."""
        for file, label in zip(self._files, self._labels.tolist(), strict=True):
            yield f"{captions.form(file)}\0{label}"

    def read(self, index: int) -> Record:
        """See `records.Records`."""
        label = int(self._labels[index])
        return Record(file_bytes(self._folder / self._files[index]), self._caption(label), label)


def file_bytes(path: Path) -> bytes:
    """The bytes of a picture's file. A missing file or no file at all is a ValueError; a failing disk, a UserError."""
    try:
        return paths.read(path, verified.LARGEST)
    except FileNotFoundError as error:
        raise ValueError("no such file") from error
    except UserError as error:
        raise ValueError(str(error).removeprefix(f"{path} ")) from error
    except OSError as error:
        raise UserError(f"'{path}' can't be read ({error.strerror})") from error


def open_source(config: configs.Data, split: Split) -> Pictures:
    """Opens one split of a folder with a folder for each class.

    Args:
        config: path (the folder of train/, or of the classes themselves), image_size, channels, resize, classes_file
            (in each line a class's folder and its names, as LOC_synset_mapping.txt has them), labels_file (for pictures
            in no folder of a class: in each line a file and the folder of its class, as LOC_val_solution.csv has them,
            or the folder alone, in the order of the sorted files), caption_template, validation_percent, cache_mb,
            max_bad, outside and readers.
        split: "train", "validation" or "test".

    Raises:
        UserError: if a folder or a file is missing, a picture's class is not known, a class has no name in
            classes_file, or too many pictures are broken.
    """
    check_split(split)
    images.check(config.image_size, config.channels, config.resize)
    root = expanded(config.path, "config.data.path")
    if not root.is_dir():
        raise UserError(f"there is no folder '{root}': config.data.path must hold a folder of pictures for each class")
    place = next((name for name in FOLDERS[split] if (root / name).is_dir()), None)
    train = "train" if (root / "train").is_dir() else ""
    mixed = place is None and split != "test"
    if place is None and split == "test":
        raise UserError(f"'{root}' has no folder test/")
    if split == "train" or mixed:
        mixed, place = not any((root / name).is_dir() for name in FOLDERS["validation"]), train
    known = _folders(root / train)
    found = _in_folders(root, place, known)
    flat, problems = [], []
    if not found or (config.labels_file and place != train):
        flat, problems = _labelled(root, place, known, config)
    found = sorted(found + flat)
    if mixed:
        inside = split == "validation"
        found = [one for one in found if (captions.point(one[1]) < config.validation_percent) == inside]
    if not found:
        raise UserError(f"split '{split}' of '{root}' is empty: '{root / place}' has no pictures for it")
    if not config.outside:
        paths.check_inside(root, (file for _, file in found), f"'{root}'")
    files, labels = [file for _, file in found], [label for label, _ in found]
    names = _names(config, root, known)
    return Pictures(
        Files(root, files, labels, classes.naming("", root, config.caption_template, names)),
        f"'{root}'",
        config,
        problems,
    )


def _folders(root: Path) -> list[str]:
    """The classes."""
    found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise UserError(f"'{root}' has no folders: config.data.path must hold a folder of pictures for each class")
    return found


def _in_folders(root: Path, place: str, known: list[str]) -> list[tuple[int, str]]:
    """The (label, file) of all pictures in folders of classes, sorted."""
    labels = {name: label for label, name in enumerate(known)}
    found = []
    for entry in sorted(os.scandir(root / place), key=lambda entry: entry.name):
        if not entry.is_dir() or entry.name.startswith("."):
            continue
        if entry.name not in labels:
            raise UserError(f"'{entry.path}' is no class of the training pictures{nearest(entry.name, labels)}")
        inside = (file for file in os.scandir(entry.path) if _is_picture(file.name))
        found += sorted((labels[entry.name], os.path.join(place, entry.name, file.name)) for file in inside)
    return found


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in images.EXTENSIONS and not name.startswith(".")


def _labelled(
    root: Path, place: str, known: list[str], config: configs.Data
) -> tuple[list[tuple[int, str]], list[Problem]]:
    """The (label, file) of the pictures that lie in no folder of a class, and the pictures without a label."""
    files = sorted(entry.name for entry in os.scandir(root / place) if entry.is_file() and _is_picture(entry.name))
    if not files:
        return [], []
    if not config.labels_file:
        raise UserError(
            f"the pictures in '{root / place}' lie in no folders of classes: name the file of their classes, such as "
            "LOC_val_solution.csv, in config.data.labels_file"
        )
    labels = {name: label for label, name in enumerate(known)}
    lines = [classes.split(line) for line in classes.lines(config.labels_file, root, "labels_file")]
    what = f"config.data.labels_file = '{config.labels_file}'"
    if lines and all(first.isdigit() and not rest for first, rest in lines):
        raise UserError(
            f"{what} holds numbers, whose order is not that of the sorted folders: give the folder of each class, such "
            "as n01440764"
        )
    if all(first in labels and not rest for first, rest in lines):
        if len(lines) != len(files):
            raise UserError(f"{what} has {len(lines)} lines, and '{root / place}' {len(files)} pictures")
        of = {os.path.splitext(file)[0]: first for file, (first, _) in zip(files, lines, strict=True)}
    else:
        of = {os.path.splitext(first)[0]: classes.split(rest)[0] for first, rest in lines if rest}
    problems = [
        Problem(f"{place}/{file}", f"no class in {config.labels_file}")
        for file in files
        if of.get(os.path.splitext(file)[0]) not in labels
    ]
    bad = {problem.file for problem in problems}
    return [
        (labels[of[os.path.splitext(file)[0]]], f"{place}/{file}") for file in files if f"{place}/{file}" not in bad
    ], problems


def _names(config: configs.Data, root: Path, known: list[str]) -> tuple[str, ...]:
    if not config.classes_file:
        return tuple(known)
    named = dict(map(classes.split, classes.lines(config.classes_file, root, "classes_file")))
    missing = [name for name in known if not named.get(name)]
    if missing:
        raise UserError(
            f"config.data.classes_file = '{config.classes_file}' has no name for {len(missing)} of {len(known)} "
            f"classes, such as {missing[0]}"
        )
    return tuple(classes.first_name(named[name]) for name in known)
