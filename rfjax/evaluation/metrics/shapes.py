"""The scores of `shapes`: composition in GenEval's six skills, and a Fréchet distance of documented features."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from rfjax import config as configs
from rfjax.data.shapes import Shapes
from rfjax.evaluation.metrics import composition, features
from rfjax.evaluation.metrics.toy import Judged, ToyMetric
from rfjax.evaluation.statistics.frechet import Gaussian, fit_gaussian, frechet_distance

REFERENCE_IMAGES = 4096  # of the data set, which is endless


def make(config: configs.Config) -> ToyMetric:
    """The metric for pictures of the config's size."""
    size = config.data.image_size
    return ToyMetric(
        label="composition score",
        shape=(size, size, 3),
        judge=_judge,
        score=composition.summarise,
        reference=functools.partial(reference, size),
        floor=functools.partial(floor, size),
    )


def _judge(images: Shaped[np.ndarray, "b S S 3"], captions: Sequence[str]) -> Judged:
    right, skills = composition.judge(images, captions)
    return Judged(features.shapes_features(images), right, skills)


@functools.cache
def reference(image_size: int) -> Gaussian:
    """The features of the first pictures of the train split."""
    return fit_gaussian(features.shapes_features(Shapes("train", image_size).read(range(REFERENCE_IMAGES))[0]))


@functools.cache
def floor(image_size: int, count: int) -> float:
    """The distance of true pictures after those of the reference."""
    rows = range(REFERENCE_IMAGES, REFERENCE_IMAGES + count)
    found = features.shapes_features(Shapes("train", image_size).read(rows)[0])
    return frechet_distance(fit_gaussian(found), reference(image_size))
