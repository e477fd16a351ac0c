"""Prepares Debian's `dataset-fashion-mnist` as a TFDS data set: real pictures without a download at run time.

    apt-get install dataset-fashion-mnist        # 31 MB, MIT licence
    python -m rfjax.data.fashion_mnist           # writes work/tfds/fashion_mnist/1.0.0, 43 MB, in ten seconds

60,000 training and 10,000 test pictures of clothes, grey, 28 x 28, ten balanced classes (Xiao et al. 2017,
arXiv:1708.07747). ArrayRecord holds the features image (PNG, 28 x 28 x 1) and label, in TFDS's shuffled order. Neither
writing nor reading needs TensorFlow.
"""

import argparse
import contextlib
import gzip
import io
import math
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from rfjax import terminal, untrusted
from rfjax.buckets import is_address
from rfjax.config.paths import expanded
from rfjax.data import prepared
from rfjax.errors import UserError

NAME, VERSION = "fashion_mnist", "1.0.0"
PACKAGE = "dataset-fashion-mnist"
SOURCE, DATA_DIR = "/usr/share/datasets/fashion-mnist", "work/tfds"
# The data set's own names, except the first, "T-shirt/top": "a photo of a t-shirt" is a better caption.
LABELS = ("T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

_SPLITS = {"train": "train", "test": "t10k"}  # ours -> the files' prefix
_LARGEST = 2**28  # bytes of a file, compressed or not; the package's largest has 47 million
_UNSIGNED_BYTES = 0x08  # idx's code for its type of value


def read_idx(path: Path, ndim: int) -> UInt8[np.ndarray, "..."]:
    """The array in a gzipped idx file of unsigned bytes (yann.lecun.com/exdb/mnist: magic, sizes, values).

    Raises:
        UserError: if the file is damaged or does not hold `ndim` dimensions.
    """
    try:
        with untrusted.regular(path, _LARGEST) as file, gzip.open(file) as unpacked:
            data = unpacked.read(_LARGEST)
        magic, header = data[:4], 4 + 4 * ndim
        shape = tuple(int(size) for size in np.frombuffer(data[4:header], ">u4"))
        if magic != bytes((0, 0, _UNSIGNED_BYTES, ndim)) or len(data) != header + math.prod(shape):
            raise ValueError(f"its {len(data)} bytes are no {ndim}-dimensional array of bytes")
        return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path} can't be read ({error}): install the package {PACKAGE} again") from error


def read_split(source: Path, prefix: str) -> tuple[UInt8[np.ndarray, "N H W"], UInt8[np.ndarray, "N"]]:
    """The images and labels of the files that begin with `prefix`; refuses, with a UserError, wrong ones."""
    images = read_idx(source / f"{prefix}-images-idx3-ubyte.gz", ndim=3)
    labels = read_idx(source / f"{prefix}-labels-idx1-ubyte.gz", ndim=1)
    if len(images) != len(labels) or labels.max(initial=0) >= len(LABELS):
        raise UserError(
            f"the files {prefix}-* in {source} do not belong together: {len(images)} images, {len(labels)} labels up "
            f"to {labels.max(initial=0)}"
        )
    return images, labels


def prepare(source: Path, data_dir: Path) -> tuple[Path, bool]:
    """Writes the data set to data_dir/fashion_mnist/1.0.0; returns that folder, and whether it had to be written.

    TFDS writes to a temporary folder and renames it at the end, so that nothing looks complete after a kill. The next
    preparation removes what a killed one left.

    Raises:
        UserError: if the source is missing or damaged, or the folder holds something else.
    """
    folder = data_dir / NAME / VERSION
    if VERSION in (prepared.prepared(data_dir).get(NAME, ()) if data_dir.is_dir() else ()):
        return folder, False
    if folder.exists():
        raise UserError(f"{folder} exists, but is not a complete TFDS data set: move it away")
    names = [f"{prefix}-{kind}-ubyte.gz" for prefix in _SPLITS.values() for kind in ("images-idx3", "labels-idx1")]
    if missing := [name for name in names if not (source / name).is_file()]:
        raise UserError(
            f"no {missing[0]} in {str(source)!r}: `apt-get install {PACKAGE}` (Debian, Ubuntu) puts it in {SOURCE}, or "
            "give --source the folder that holds it"
        )
    arrays = {split: read_split(source, prefix) for split, prefix in _SPLITS.items()}
    _write(arrays, data_dir)
    for remains in folder.parent.glob(f"incomplete.*_{VERSION}"):
        shutil.rmtree(remains, ignore_errors=True)
    return folder, True


def _write(arrays: dict[str, tuple[np.ndarray, np.ndarray]], data_dir: Path) -> None:
    import tensorflow_datasets as tfds

    height, width = arrays["train"][0].shape[1:]

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = NAME

        def _info(self) -> tfds.core.DatasetInfo:
            image = tfds.features.Image(shape=(height, width, 1), encoding_format="png")
            return tfds.core.DatasetInfo(
                builder=self,
                description=f"Fashion-MNIST (Xiao et al. 2017), from Debian's package {PACKAGE}.",
                features=tfds.features.FeaturesDict(
                    {"image": image, "label": tfds.features.ClassLabel(names=list(LABELS))}
                ),
                homepage="https://github.com/zalandoresearch/fashion-mnist",
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator[Any]]:
            return {split: self._generate_examples(*pair) for split, pair in arrays.items()}

        def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
            for key, (image, label) in enumerate(zip(images, labels, strict=True)):
                png = io.BytesIO()  # TFDS encodes arrays with TensorFlow; the bytes of a PNG it takes as they are
                Image.fromarray(image).save(png, format="PNG")
                yield key, {"image": png.getvalue(), "label": int(label)}

    Builder.VERSION = tfds.core.Version(VERSION)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints "Downloading", and downloads nothing
        Builder(data_dir=data_dir).download_and_prepare(file_format="array_record")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0, or 2 after an error that the user can correct."""
    terminal.print_anything()
    parser = argparse.ArgumentParser(
        prog="python -m rfjax.data.fashion_mnist",
        description=f"Prepares Debian's {PACKAGE} (apt-get install {PACKAGE}) as the TFDS data set {NAME}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--source", type=Path, default=Path(SOURCE), help="the folder with the package's idx .gz files")
    parser.add_argument("--data_dir", type=Path, default=Path(DATA_DIR), help="the folder of prepared TFDS data sets")
    options = parser.parse_args(arguments)
    try:
        if is_address(options.data_dir):
            raise UserError(
                f"--data_dir={options.data_dir} is in a bucket: prepare a local folder, and copy that there"
            )
        source, data_dir = (expanded(getattr(options, name), f"--{name}") for name in ("source", "data_dir"))
        folder, written = prepare(source, data_dir)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{'Prepared' if written else 'Already there:'} {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
