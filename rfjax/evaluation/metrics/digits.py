"""The scores of `digits`: the accuracy of a small reader, and a Fréchet distance of its features."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped

from rfjax import config as configs
from rfjax.data import digits
from rfjax.evaluation.metrics import classifier
from rfjax.evaluation.metrics.toy import Judged, ToyMetric
from rfjax.evaluation.statistics.frechet import Gaussian, fit_gaussian, frechet_distance


def make(config: configs.Config) -> ToyMetric:
    """The metric for pictures of the config's size; its first use in a process trains the reader, in seconds."""
    size, channels = config.data.image_size, config.data.channels
    return ToyMetric(
        label="classifier accuracy",
        shape=(size, size, channels),
        judge=_judge,
        score=_score,
        reference=functools.partial(reference, size, channels),
        floor=functools.partial(floor, size, channels),
    )


def _judge(images: Shaped[np.ndarray, "b S S C"], captions: Sequence[str]) -> Judged:
    reader = classifier.train_reader()
    wanted = np.array([classifier.digit_of(caption) for caption in captions])
    return Judged(reader.features(images), reader.read(images) == wanted, [digits.WORDS[digit] for digit in wanted])


def _score(right: Bool[np.ndarray, " n"], parts: list[str]) -> tuple[float, float, dict[str, float]]:
    """The accuracy, its binomial standard error, and the accuracy of each digit that occurs."""
    score, named = float(right.mean()), np.array(parts)
    by_digit = {word: float(right[named == word].mean()) for word in digits.WORDS if (named == word).any()}
    return score, (score * (1 - score) / len(right)) ** 0.5, by_digit


@functools.cache
def reference(image_size: int, channels: int) -> Gaussian:
    pixels = digits.load(split="train", image_size=image_size, channels=channels).pixels
    return fit_gaussian(classifier.train_reader().features(pixels))


@functools.cache
def floor(image_size: int, channels: int, count: int) -> float:
    """The distance of the validation split, or of its first pictures: the reference has all of the train split."""
    pixels = digits.load(split="validation", image_size=image_size, channels=channels).pixels[:count]
    found = classifier.train_reader().features(pixels)
    return frechet_distance(fit_gaussian(found), reference(image_size, channels))
