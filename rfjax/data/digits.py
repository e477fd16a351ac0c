"""Real handwriting on every machine: scikit-learn's 1,797 digits of 8 x 8 pixels (UCI, E. Alpaydin, C. Kaynak)."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt8

from rfjax import config as configs
from rfjax.data import images
from rfjax.data.types import Example, Field, Split, check_index, check_split

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CAPTION = "a handwritten {}"

_COUNT = 1797
_LEVELS = 16  # the values are counts of dark pixels in a 4 x 4 block, 0..16
# Positions in the permuted set, about 80 / 10 / 10 percent: 1,437, 180 and 180 digits.
_BOUNDS = {"train": (0, 1437), "validation": (1437, 1617), "test": (1617, _COUNT)}


@dataclass(frozen=True)
class Digits:
    """The digits of one split, in memory; a `Source`.

    Attributes:
        pixels: 0 = paper, 255 = ink.
        labels: the digit of each.
    """

    pixels: UInt8[np.ndarray, "N H W C"]
    labels: Int[np.ndarray, "N"]

    @property
    def fields(self) -> dict[str, Field]:
        """See `types.Source`."""
        return {"image": Field(self.pixels.shape[1:], "uint8", flips=True), "label": Field((), "int64")}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        index = check_index(index, len(self))
        label = np.int64(self.labels[index])
        return Example(image=self.pixels[index], label=label, caption=CAPTION.format(WORDS[label]), index=index)

    def names(self) -> Iterator[str]:
        """See `types.Named`: the digits in their order."""
        return map(str, self.labels.tolist())


def permutation() -> list[int]:
    """The fixed order of the 1,797 digits, of which the splits are the first 80 % and twice 10 %.

    A hash of each position decides, so that the order depends on no library's random numbers. It mixes the writers,
    whose digits lie together in scikit-learn.
    """
    return sorted(range(_COUNT), key=lambda index: hashlib.sha256(f"digit {index}".encode()).digest())


def open_source(config: configs.Data, split: Split) -> Digits:
    """Opens one split; arguments as of `load`."""
    return load(split=split, image_size=config.image_size, channels=config.channels)


def load(*, split: Split, image_size: int, channels: int = 1) -> Digits:
    """Loads one split of the digits, with captions such as "a handwritten seven".

    Args:
        split: "train" (1,437), "validation" (180) or "test" (180), the same on every machine.
        image_size: pixels a side; Pillow's bicubic filter resizes to other sizes than 8.
        channels: 1, or 3 equal ones.

    Raises:
        UserError: for another split, size or number of channels.
    """
    check_split(split)
    images.check(image_size, channels)
    from sklearn.datasets import load_digits  # half a second to import: only if digits are used

    data = load_digits()
    start, stop = _BOUNDS[split]
    chosen = permutation()[start:stop]
    scaled = np.rint(data.images[chosen] * (255 / _LEVELS)).astype(np.uint8)[..., None]
    pixels = np.stack([images.resize(image, image_size, image_size) for image in scaled])
    pixels = np.repeat(pixels, channels, axis=-1)
    pixels.setflags(write=False)
    return Digits(pixels, data.target[chosen])
