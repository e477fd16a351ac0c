"""The peers in the benchmark of data: what one would write for torch's DataLoader, with each format's own reader."""

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.data_files import SMALL, files_of

Batches = Iterator[Any]


def read_picture(data: bytes, side: int) -> np.ndarray:
    """A picture of side x side with the channels first, as torch has it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB").resize((side, side), Image.BICUBIC)).transpose(2, 0, 1)


class PictureFiles:
    """A torch Dataset of picture files."""

    def __init__(self, folder: Path, side: int) -> None:
        self._files, self._side = files_of(folder), side

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
        return read_picture(self._files[index].read_bytes(), self._side), f"picture number {index}"


class Records:
    """A torch Dataset of TFDS's own random access, with the pictures decoded as above."""

    def __init__(self, folder: Path) -> None:
        import tensorflow_datasets as tfds

        builder = tfds.builder_from_directory(folder / "pictures" / "1.0.0")
        decoders = {"image": tfds.decode.SkipDecoding()}
        self._records = builder.as_data_source("train", decoders=decoders, file_format="array_record")

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        record = self._records[index]
        return read_picture(record["image"], SMALL.side), int(record["label"])


class LatentFiles:
    """A torch Dataset of latents, memory-mapped; each worker opens the files for itself."""

    def __init__(self, folder: Path, count: int) -> None:
        self._folder, self._count, self._arrays = folder / "train", count, ()

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self._arrays = self._arrays or tuple(
            np.load(self._folder / f"{name}.npy", mmap_mode="r") for name in ("latents", "labels")
        )
        latents, labels = self._arrays
        return np.array(latents[index]), int(labels[index])


def torch_batches(dataset: Any, batch: int, workers: int) -> Batches:
    """Batches of a DataLoader, drawn with replacement so that no epoch ends."""
    from torch.utils.data import DataLoader, RandomSampler

    sampler = RandomSampler(dataset, replacement=True, num_samples=2**40)
    return iter(DataLoader(dataset, batch, sampler=sampler, num_workers=workers, **_spawned(workers)))


def _spawned(workers: int) -> dict[str, Any]:
    return {"persistent_workers": True, "multiprocessing_context": "spawn"} if workers else {}


def webdataset_batches(folder: Path, side: int, batch: int, workers: int) -> Batches:
    """Batches of `webdataset`'s reader: shards drawn with replacement, a shuffle buffer of a thousand samples."""
    import webdataset
    from torch.utils.data import DataLoader

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    samples = webdataset.WebDataset(urls, resampled=True, nodesplitter=webdataset.split_by_node).shuffle(1000)
    decoded = samples.to_tuple("jpg;png", "txt").map_tuple(_Read(side), bytes.decode).batched(batch)
    return iter(DataLoader(decoded, batch_size=None, num_workers=workers, **_spawned(workers)))


class _Read:
    """`read_picture` at one size, as other processes can have it."""

    def __init__(self, side: int) -> None:
        self._side = side

    def __call__(self, data: bytes) -> np.ndarray:
        return read_picture(data, self._side)


class _Fitted:
    """A transform of `datasets`."""

    def __init__(self, side: int) -> None:
        self._side = side

    def __call__(self, rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        size = (self._side, self._side)
        fitted = [np.array(image.convert("RGB").resize(size, Image.BICUBIC)) for image in rows["image"]]
        return {"image": [image.transpose(2, 0, 1) for image in fitted], "text": rows["text"]}


def datasets_of(folder: Path, side: int) -> Any:
    """The data set as Hugging Face's `datasets` opens it, with its own decoding."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    import datasets

    datasets.disable_progress_bars()
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    opened = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(folder / "cache"))
    return opened.with_transform(_Fitted(side))
