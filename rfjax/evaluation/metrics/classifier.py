"""Reads handwritten digits: a small classifier, trained in seconds on the same digits that the model learns from.

It says whether an image shows the digit of its caption, and its last hidden layer gives features for a Fréchet
distance, as FID's are a classifier's. A perceptron on 8 x 8 grey values, the size in which the digits were published;
images of other sizes are averaged down to it. Only the train split is used: the other two tell its accuracy.
"""

import functools
import re
import warnings
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Shaped

from rfjax.data import digits
from rfjax.errors import UserError
from rfjax.evaluation.metrics.features import check_images, detail

SIDE = 8
HIDDEN = (256, 32)
# Beside the hidden layer, whose units deviate by about 2: probabilities, which tell most when a digit is missing, and
# `detail`, since a reader is trained to overlook noise.
PROBABILITY_WEIGHT = 5.0
DETAIL_WEIGHT = 20.0
SEED = 0
_EPOCHS = 15
_LEARNING_RATE = 2e-3
_BATCH = 128


@dataclass(frozen=True)
class DigitReader:
    """A trained perceptron with ReLU: for each layer a matrix (in, out) and a bias (out,)."""

    weights: tuple[Float32[np.ndarray, "_ _"], ...]
    biases: tuple[Float32[np.ndarray, " _"], ...]

    def features(self, images: Shaped[np.ndarray, "n H W C"]) -> Float32[np.ndarray, "n 51"]:
        """The last hidden layer (32), the digits' probabilities (10) and fine detail (9), the last two weighted.

        Images are uint8, C = 1 or 3, any size from 8 pixels. Raises UserError for another type or shape, and for NaN.
        """
        hidden, logits = self._run(images)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        fine = detail(_grey(images)[..., None])
        return np.concatenate([hidden, PROBABILITY_WEIGHT * probabilities, DETAIL_WEIGHT * fine], axis=1)

    def read(self, images: Shaped[np.ndarray, "n H W C"]) -> Int[np.ndarray, " n"]:
        """The digit, 0 to 9, that each image most likely shows; takes and raises what `features` does."""
        return self._run(images)[1].argmax(axis=1)

    def _run(
        self, images: Shaped[np.ndarray, "n H W C"]
    ) -> tuple[Float32[np.ndarray, "n 32"], Float32[np.ndarray, "n 10"]]:
        """The last hidden layer and the logits."""
        x = shrink(images).reshape(-1, SIDE * SIDE)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ weight + bias, 0)
        return x, x @ self.weights[-1] + self.biases[-1]


@functools.cache
def train_reader() -> DigitReader:
    """Trains the reader on the train split: a second or two, once a process, the same each time.

    Each digit is shown as it is, as it looks at 16 pixels, and moved by half a pixel and by one in four directions.
    """
    from sklearn.exceptions import ConvergenceWarning  # a second to import: only where digits are scored
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    split = digits.load(split="train", image_size=SIDE)
    x = shrink(split.pixels)
    framed = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    moved = [framed[:, i : i + SIDE, j : j + SIDE] for i, j in ((1, 0), (0, 1), (1, 2), (2, 1))]
    shown = [x, shrink(digits.load(split="train", image_size=2 * SIDE).pixels), *moved, *((x + m) / 2 for m in moved)]
    network = MLPClassifier(
        HIDDEN, alpha=1e-3, batch_size=_BATCH, learning_rate_init=_LEARNING_RATE, max_iter=_EPOCHS, random_state=SEED
    )
    # Matrices this small are many times slower on several threads that other processes hold up.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        network.fit(np.concatenate(shown).reshape(-1, SIDE * SIDE), np.tile(split.labels, len(shown)))
    weights, biases = (tuple(np.float32(a) for a in part) for part in (network.coefs_, network.intercepts_))
    return DigitReader(weights, biases)


def digit_of(caption: str) -> int:
    """The digit that a caption names: "a handwritten seven" -> 7. Raises UserError unless it names exactly one."""
    found = [digits.WORDS.index(word) for word in re.findall(r"[a-z]+", caption.lower()) if word in digits.WORDS]
    if len(found) != 1:
        number = "more than one digit" if found else "no digit"
        raise UserError(f'The caption "{caption}" names {number}: "{digits.CAPTION.format("seven")}" would be right.')
    return found[0]


def shrink(images: Shaped[np.ndarray, "n H W C"]) -> Float32[np.ndarray, "n 8 8"]:
    """Grey images of 8 x 8, from 0 (paper) to 1 (ink): the mean over the channels and over each cell's area.

    Raises UserError where `check_images` does.
    """
    return _areas(images.shape[1]) @ _grey(images) @ _areas(images.shape[2]).T


def _grey(images: Shaped[np.ndarray, "n H W C"]) -> Float32[np.ndarray, "n H W"]:
    check_images(images)
    return images.mean(axis=-1, dtype=np.float32) / 255


def _areas(side: int) -> Float32[np.ndarray, "8 side"]:
    """Row i: how much of cell i each of `side` pixels covers; rows sum to 1."""
    edges, pixel = np.linspace(0, side, SIDE + 1), np.arange(side)
    overlap = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    return (np.maximum(overlap, 0) * SIDE / side).astype(np.float32)
