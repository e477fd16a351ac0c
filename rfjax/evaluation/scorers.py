"""Scores of generated images that need no download: do they show what their captions say, do they look like the data?

`shapes` has a composition score in GenEval's six skills, `digits` the accuracy of a reader; both have a Fréchet
distance to the train split. Other data sets have none.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped

from rfjax.data import digits
from rfjax.data.shapes import Shapes
from rfjax.errors import UserError
from rfjax.evaluation import classifier, features
from rfjax.evaluation.frechet import Gaussian, fit_gaussian, frechet_distance, frechet_error

REFERENCE_IMAGES = 4096  # of `shapes`, which is endless

Scorer = Callable[[np.ndarray, Sequence[str]], "Scores"]


@dataclass(frozen=True)
class Scores:
    """What a set of generated images scores.

    Attributes:
        score: fraction of images that show what their caption says; for shapes, GenEval's mean over skills.
        stderr: its binomial standard error.
        parts: the fraction of each skill (shapes), or of each digit by its word (digits), that occurs.
        frechet: squared Fréchet distance to the train split. Above 0 for true images too, by a sampling error of
            order 1 / count, so compare equal counts of one data set and size.
        count: number of images.
        frechet_stderr: of frechet, over images. frechet_floor: the distance of as many true images that the reference
            does not hold (of all there are, where those are fewer, which is further).
    """

    score: float
    stderr: float
    parts: dict[str, float]
    frechet: float
    count: int
    frechet_stderr: float
    frechet_floor: float

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def scorer(data_name: str, image_size: int, channels: int) -> Scorer | None:
    """The function (images, captions) -> Scores of a data set, or None where it has none.

    Args:
        data_name: as in a config; "shapes" and "digits" have a scorer.
        image_size: pixels a side. channels: 1 or 3, and 3 for shapes.

    The function takes uint8 images (n, image_size, image_size, channels), n of 2 or more, with a caption each. It
    raises UserError for other images, such as floats or NaN, and for captions that the data set does not write. Its
    first call in a process prepares the reference (and the digits' reader), which takes seconds.
    """
    measure = {"shapes": _score_shapes, "digits": _score_digits}.get(data_name)
    if measure is None:
        return None

    def score(images: Shaped[np.ndarray, "..."], captions: Sequence[str]) -> Scores:
        features.check_images(images)
        wanted = (len(captions), image_size, image_size, channels)
        if images.shape != wanted:
            raise UserError(
                f"{data_name}: expected images of shape {wanted}, one for each caption, got {images.shape}."
            )
        return measure(images, captions)

    return score


def _score_shapes(images: Shaped[np.ndarray, "n S S C"], captions: Sequence[str]) -> Scores:
    from rfjax.evaluation import composition

    side, count = images.shape[1], len(images)
    distance = _distance(features.shapes_features(images), _shapes_reference(side))
    found = composition.score(images, captions)
    floor = _shapes_floor(side, count)
    return Scores(float(found.value), float(found.stderr), dict(found.skills), distance[0], count, distance[1], floor)


def _score_digits(images: Shaped[np.ndarray, "n S S C"], captions: Sequence[str]) -> Scores:
    reader = classifier.train_reader()
    distance = _distance(reader.features(images), _digits_reference(*images.shape[2:]))
    asked = np.array([classifier.digit_of(caption) for caption in captions])
    right = reader.read(images) == asked
    score = float(right.mean())
    parts = {word: float(right[asked == k].mean()) for k, word in enumerate(digits.WORDS) if (asked == k).any()}
    error, floor = (score * (1 - score) / len(right)) ** 0.5, _digits_floor(*images.shape[2:], len(images))
    return Scores(score, error, parts, distance[0], len(right), distance[1], floor)


def _distance(found: np.ndarray, reference: Gaussian) -> tuple[float, float]:
    """The distance of features to a reference, and its standard error over images."""
    return frechet_distance(fit_gaussian(found), reference), frechet_error(found, reference)


@functools.cache
def _shapes_reference(image_size: int) -> Gaussian:
    return fit_gaussian(features.shapes_features(Shapes("train", image_size).read(range(REFERENCE_IMAGES))[0]))


@functools.cache
def _digits_reference(image_size: int, channels: int) -> Gaussian:
    pixels = digits.load(split="train", image_size=image_size, channels=channels).pixels
    return fit_gaussian(classifier.train_reader().features(pixels))


@functools.cache
def _shapes_floor(image_size: int, count: int) -> float:
    """True images after those of the reference."""
    rows = range(REFERENCE_IMAGES, REFERENCE_IMAGES + count)
    found = features.shapes_features(Shapes("train", image_size).read(rows)[0])
    return frechet_distance(fit_gaussian(found), _shapes_reference(image_size))


@functools.cache
def _digits_floor(image_size: int, channels: int, count: int) -> float:
    """The validation split, or its first images: the reference has all of the train split."""
    pixels = digits.load(split="validation", image_size=image_size, channels=channels).pixels[:count]
    found = classifier.train_reader().features(pixels)
    return frechet_distance(fit_gaussian(found), _digits_reference(image_size, channels))
