"""The files of the benchmark of data: the same pictures in each format, and latents with encodings of text."""

import contextlib
import dataclasses
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHARDS = 4  # tar or Parquet files of a data set


@dataclasses.dataclass(frozen=True)
class Pictures:
    """So many square pictures of `stored` pixels a side, half JPEG and half PNG, which are to be read at `side`."""

    count: int
    stored: int
    side: int


SMALL, LARGE = Pictures(2048, 96, 64), Pictures(256, 384, 256)


def picture(rng: np.random.Generator, side: int) -> Image.Image:
    """Soft patches of colour with some grain, about as large in a file as a photograph of this size."""
    patches = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((side, side), Image.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(patches) + rng.normal(0, 4, (side, side, 3)), 0, 255).astype("u1"))


def encoded(image: Image.Image, kind: str) -> bytes:
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}))
    return file.getvalue()


def write_pictures(folder: Path, pictures: Pictures) -> None:
    """A folder as `data.folder` reads it."""
    rng, lines = np.random.default_rng(0), []
    folder.mkdir()
    for number in range(pictures.count):
        kind = ("JPEG", "PNG")[number % 2]
        name = f"{number}.{kind.lower()}"
        (folder / name).write_bytes(encoded(picture(rng, pictures.stored), kind))
        lines.append(f'{{"file": "{name}", "caption": "picture number {number}", "split": "train"}}\n')
    (folder / "captions.jsonl").write_text("".join(lines))


def write_records(folder: Path, pictures: Path) -> None:
    """The same pictures as a prepared TFDS data set."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    core = tfds.core

    class Builder(core.GeneratorBasedBuilder, skip_registration=True):
        name, VERSION = "pictures", core.Version("1.0.0")

        def _info(self) -> core.DatasetInfo:
            features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(num_classes=10)}
            return core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for number, file in enumerate(files_of(pictures)):
                yield number, {"image": file.read_bytes(), "label": number % 10}

    with contextlib.redirect_stdout(sys.stderr):  # the table alone is printed
        Builder(data_dir=folder).download_and_prepare(file_format="array_record")


def files_of(folder: Path) -> list[Path]:
    """The pictures in a folder."""
    return sorted(file for file in folder.iterdir() if file.suffix in (".jpeg", ".png"))


def write_latents(folder: Path, count: int, shape: tuple[int, ...], **others: np.ndarray) -> None:
    """A folder as `data.latents` reads it; others: its other files."""
    (folder / "train").mkdir(parents=True)
    (folder / "validation").mkdir()
    array = np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float16)
    for name, values in {"latents": array, **others}.items():
        np.save(folder / "train" / f"{name}.npy", values)
        np.save(folder / "validation" / f"{name}.npy", values[:1])


def write_tars(folder: Path, pictures: Path) -> None:
    """The same pictures in tar files, as img2dataset writes them."""
    folder.mkdir()
    for shard, files in enumerate(np.array_split(np.array(files_of(pictures), object), SHARDS)):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for file in files:
                about = json.dumps({"caption": f"picture number {file.stem}", "key": file.stem, "status": "success"})
                kind = {".jpeg": "jpg", ".png": "png"}[file.suffix]
                fields = {
                    kind: file.read_bytes(),
                    "txt": f"picture number {file.stem}".encode(),
                    "json": about.encode(),
                }
                for field, data in fields.items():
                    member = tarfile.TarInfo(f"{int(file.stem):09}.{field}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


def write_parquet(folder: Path, pictures: Path) -> None:
    """The same pictures as Hugging Face's `datasets` writes them, in row groups of 100."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir()
    features = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    for shard, files in enumerate(np.array_split(np.array(files_of(pictures), object), SHARDS)):
        image = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
        table = pyarrow.table({"image": image, "text": [f"picture number {file.stem}" for file in files]})
        name = f"train-{shard:05}-of-{SHARDS:05}.parquet"
        pyarrow.parquet.write_table(table.replace_schema_metadata(about), folder / name, row_group_size=100)
