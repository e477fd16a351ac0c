"""COCO: pictures in folders, and their captions or objects in a JSON file.

    coco/annotations/captions_train2014.json      or instances_train2014.json, if there are no captions
    coco/train2014/COCO_train2014_000000000009.jpg

A picture has about five captions: training draws one, everything else takes the first, by the number of the annotation
(`types.Captions`). From instances, the names of a picture's objects, the largest first, take the place of `{}` in
config.data.caption_template. The order is that of the numbers of the pictures. A picture without captions is left out;
a broken one is replaced when it is read: see `rfjax.data.records`. Without a file for validation, a hash of the
picture's name divides the training pictures.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rfjax import config as configs
from rfjax import untrusted
from rfjax.config.paths import expanded
from rfjax.data import captions, classes, images, paths
from rfjax.data.imagenet import file_bytes
from rfjax.data.records import Pictures, Record
from rfjax.data.types import Captions, Problem, Split, caption_of, check_split, written_out
from rfjax.errors import UserError

LARGEST = 2**32  # bytes of the JSON file; instances_train2017.json has 448 MB
WORDS = {"train": "train", "validation": "val", "test": "test"}


class Files:
    """Pictures in files with their captions; `records.Records`."""

    def __init__(self, folder: Path, files: list[str], texts: list[str | Captions]) -> None:
        """files: relative to the folder."""
        self._folder, self._files, self._texts = folder, files, texts

    def __len__(self) -> int:
        return len(self._files)

    def name(self, index: int) -> str:
        """See `records.Records`."""
        return self._files[index]

    def names(self) -> Iterator[str]:
        """See `types.Named`: each picture's file and captions."""
        for file, text in zip(self._files, self._texts, strict=True):
            yield f"{captions.form(file)}\0{written_out(text)}"

    def read(self, index: int) -> Record:
        """See `records.Records`."""
        return Record(file_bytes(self._folder / self._files[index]), self._texts[index])


def open_source(config: configs.Data, split: Split) -> Pictures:
    """Opens one split of COCO.

    Args:
        config: path, annotations, image_size, channels, resize, caption_template (for instances), validation_percent,
            cache_mb, max_bad, outside and readers.
        split: "train", "validation" or "test".

    Raises:
        UserError: if the JSON file or the folder of pictures is missing, it is not clear which one is meant, the file
            is not COCO's, or too many pictures are broken or without captions.
    """
    check_split(split)
    images.check(config.image_size, config.channels, config.resize)
    classes.check_template(config.caption_template)
    root = expanded(config.path, "config.data.path")
    file = _annotations(root, config.annotations, WORDS[split])
    mixed = file is None and split == "validation"
    mixed |= split == "train" and _annotations(root, config.annotations, WORDS["validation"]) in (None, file)
    file = _annotations(root, config.annotations, WORDS["train"]) if mixed else file
    if file is None:
        raise UserError(f"'{root}' has no annotations/captions_{WORDS[split]}*.json: see config.data.annotations")
    about = untrusted.read_json(file, limit=LARGEST)
    texts = _texts(about, file, config.caption_template)
    folder = _folder(root, file, about)
    found, problems = [], []
    for number, name in _pictures(about, file):
        if mixed and (captions.point(name) < config.validation_percent) != (split == "validation"):
            continue
        if texts.get(number):
            found.append((os.path.join(folder, name), caption_of(texts[number])))
        else:
            problems.append(Problem(os.path.join(folder, name), f"no caption in {file.name}"))
    if not config.outside:
        paths.check_inside(root, (name for name, _ in found), f"'{file.name}'")
    where = f"COCO in '{root}' ({file.name})"
    if not found:
        raise UserError(f"split '{split}' of {where} is empty")
    return Pictures(Files(root, [name for name, _ in found], [text for _, text in found]), where, config, problems)


def _annotations(root: Path, named: str, word: str) -> Path | None:
    """The JSON file of a split; None without one."""
    if not root.is_dir():
        raise UserError(f"there is no folder '{root}': config.data.path must hold annotations/ and the pictures")
    if named:
        path = root / expanded(named.replace("{}", word), "config.data.annotations")
        if not path.is_file() and word == WORDS["train"]:
            raise UserError(f"there is no file '{path}', which config.data.annotations names")
        return path if path.is_file() else None
    for kind in ("captions", "instances"):
        found = sorted((root / "annotations").glob(f"{kind}_{word}*.json"))
        if len(found) > 1:
            among = " and ".join(path.name for path in found)
            raise UserError(
                f"'{root}' has {among}: set config.data.annotations to one of them, with {{}} in place of {word}, such "
                f"as 'annotations/{found[0].name.replace(word, '{}')}'"
            )
        if found:
            return found[0]
    return None


def _pictures(about: Any, file: Path) -> list[tuple[int, str]]:
    """The (number, file) of all pictures, sorted."""
    try:
        return sorted((int(one["id"]), os.path.normpath(str(one["file_name"]))) for one in about["images"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"'{file}' is not COCO's: it needs \"images\", each with id and file_name") from error


def _texts(about: Any, file: Path, template: str) -> dict[int, list[str]]:
    """The captions of each picture, by its number."""
    try:
        found: dict[int, list[tuple[Any, ...]]] = {}
        names = {one["id"]: str(one["name"]) for one in about.get("categories", ())}
        for one in about["annotations"]:
            said = str(one["caption"]).strip() if "caption" in one else names[one["category_id"]]
            order = int(one["id"]) if "caption" in one else -float(one.get("area", 0))
            if said:
                found.setdefault(int(one["image_id"]), []).append((order, said))
        captioned = any("caption" in one for one in about["annotations"][:1])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"'{file}' is not COCO's: each of its \"annotations\" needs image_id, and caption or category_id"
        ) from error
    if captioned:
        return {number: [said for _, said in sorted(texts)] for number, texts in found.items()}
    listed = {number: dict.fromkeys(said for _, said in sorted(objects)) for number, objects in found.items()}
    return {number: [template.replace("{}", ", ".join(objects))] for number, objects in listed.items()}


def _folder(root: Path, file: Path, about: Any) -> str:
    """The folder of the pictures, relative to the root: named like the end of the JSON file's name."""
    word = file.stem.rpartition("_")[2]
    pictures = [name for _, name in _pictures(about, file)[:1]]
    for folder in (word, os.path.join("images", word), "images", ""):
        if any((root / folder / name).exists() for name in pictures):
            return folder
    if (root / word).is_dir():
        return word
    raise UserError(f"there is no folder '{root / word}' with the pictures that '{file.name}' names")
