"""Writes small data sets in the formats that people have, of pictures that are made here.

Picture number i is one colour, `colour(i)`, so that a reader, whatever its filter, gives it back (JPEG up to 2 of 255).
"""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

KINDS = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}


def colour(number: int) -> tuple[int, int, int]:
    """Of a picture; different for each number below 4096, by at least 16."""
    return tuple(16 * (number // 16**place % 16) + 8 for place in range(3))


def number_of(image: np.ndarray) -> int:
    """The number of a picture, from its pixels."""
    return sum(int(value) // 16 * 16**place for place, value in enumerate(image[0, 0]))


def picture(number: int, kind: str = "jpg", side: int = 12) -> bytes:
    """A file of side x (side + 4) pixels."""
    return encoded(Image.new("RGB", (side + 4, side), colour(number)), kind)


def encoded(image: Image.Image, kind: str = "jpg") -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, KINDS[kind], **({"quality": 100, "subsampling": 0} if KINDS[kind] == "JPEG" else {}))
    return file.getvalue()


def write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes | str]]]) -> None:
    """A tar file of samples, (name, {field: content}), as WebDataset has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, fields in samples:
            for field, content in fields.items():
                data = content.encode() if isinstance(content, str) else content
                member = tarfile.TarInfo(f"{name}.{field}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def sample(number: int, kind: str = "jpg") -> tuple[str, dict[str, bytes | str]]:
    """As img2dataset writes it; .json has a second caption, by a model."""
    text, about = f"number {number}", {"caption": f"number {number}", "key": f"{number:09}", "status": "success"}
    about["synthetic"] = f"a picture of number {number}"
    return f"{number:09}", {kind: picture(number, kind), "txt": text, "json": json.dumps(about)}


def write_tars(folder: Path, count: int, shards: int = 2, kind: str = "jpg", prefix: str = "") -> None:
    """`count` pictures in so many tar files, in order."""
    for shard, numbers in enumerate(np.array_split(np.arange(count), shards)):
        write_tar(folder / f"{prefix}{shard:05}.tar", (sample(int(number), kind) for number in numbers))


def hugging_face(**features: Any) -> dict[bytes, bytes]:
    """The metadata of a schema, as `datasets` writes it."""
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write_parquet(
    path: Path, numbers: Iterable[int], group: int = 4, names: Iterable[str] = (), **columns: Any
) -> None:
    """A file of pictures (struct<bytes, path>) in row groups of `group`.

    Args:
        names: of classes; then the column "label" has number % len(names), else "text" has the caption.
        columns: others, or in place of these.
    """
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    numbers, names = list(numbers), list(names)
    found: dict[str, Any] = {"image": [{"bytes": picture(number), "path": f"{number}.jpg"} for number in numbers]}
    about = {"image": {"_type": "Image"}}
    if names:
        found["label"] = [number % len(names) for number in numbers]
        about["label"] = {"names": names, "_type": "ClassLabel"}
    else:
        found["text"] = [f"number {number}" for number in numbers]
    table = pyarrow.table(found | columns).replace_schema_metadata(hugging_face(**about))
    pyarrow.parquet.write_table(table, path, row_group_size=group)


def write_imagenet(folder: Path, classes: Mapping[str, Iterable[int]], split: str = "train") -> None:
    """A folder for each class, with its pictures."""
    for name, numbers in classes.items():
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (folder / split / name / f"{name}_{number}.JPEG").write_bytes(picture(number))


def write_coco(folder: Path, numbers: Iterable[int], split: str = "train", year: int = 2014, captions: int = 5) -> None:
    """Pictures with captions_*.json and instances_*.json; number n has one object of category n % 3."""
    numbers, name = list(numbers), f"{split}{year}"
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "annotations").mkdir(exist_ok=True)
    pictures = []
    for number in numbers:
        file = f"COCO_{name}_{number:012}.jpg"
        (folder / name / file).write_bytes(picture(number))
        pictures.append({"id": number, "file_name": file, "height": 12, "width": 16})
    said = [
        {"id": 100 * number + one, "image_id": number, "caption": f"number {number}, caption {one}"}
        for one in range(captions)
        for number in reversed(numbers)
    ]
    objects = [{"id": number, "image_id": number, "category_id": 10 + number % 3, "area": 5.0} for number in numbers]
    kinds = [{"id": 10 + place, "name": word} for place, word in enumerate(("cat", "dog", "fire hydrant"))]
    for kind, content in (
        ("captions", {"images": pictures, "annotations": said}),
        ("instances", {"images": pictures, "annotations": objects, "categories": kinds}),
    ):
        (folder / "annotations" / f"{kind}_{name}.json").write_text(json.dumps(content), encoding="utf-8")
