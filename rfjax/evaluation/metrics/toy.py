"""What the scores of `shapes` and of `digits` share.

Each picture is reduced to a few dozen features, to whether it shows what its caption says, and to the part of the score
that it belongs to. Only these are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float, Shaped, UInt8

from rfjax.errors import UserError
from rfjax.evaluation.metrics import features
from rfjax.evaluation.quantity import STANDARD, Quantity
from rfjax.evaluation.statistics.frechet import Gaussian, fit_gaussian, frechet_distance, frechet_error


class Judged(NamedTuple):
    """What is kept of b pictures.

    Attributes:
        features: for the Fréchet distance, (b, F).
        right: whether each shows what its caption says.
        parts: the name of the part of the score that each belongs to.
    """

    features: Float[np.ndarray, "b F"]
    right: Bool[np.ndarray, " b"]
    parts: list[str]


@dataclass(frozen=True)
class ToyMetric:
    """A `Metric`: the share of pictures that are right, and the Fréchet distance to the train split.

    Attributes:
        label: of the score, in the field's words.
        shape: of a picture, (H, W, C).
        judge: (uint8 pictures, captions) -> Judged.
        score: (right, parts) -> the score, its standard error, and the share of each part.
        reference: the Gaussian of the train split's features.
        floor: number of pictures -> the distance of as many true pictures that the reference does not hold.
    """

    label: str
    shape: tuple[int, int, int]
    judge: Callable[[Shaped[np.ndarray, "b H W C"], Sequence[str]], Judged]
    score: Callable[[Bool[np.ndarray, " n"], list[str]], tuple[float, float, dict[str, float]]]
    reference: Callable[[], Gaussian]
    floor: Callable[[int], float]

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """The score and the distance."""
        score, distance = STANDARD
        return replace(score, label=self.label), distance

    def init(self) -> list[Judged]:
        return []

    def update(
        self, state: list[Judged], images: UInt8[Array, "B H W C"] | Shaped[np.ndarray, "..."], captions: Sequence[str]
    ) -> list[Judged]:
        """Judges one more batch.

        Raises:
            UserError: for pictures of another type or shape, and for captions that the data set does not write.
        """
        spread = isinstance(images, jax.Array) and not images.is_fully_addressable
        here = np.asarray(multihost_utils.process_allgather(images, tiled=True) if spread else images)
        features.check_images(here)
        wanted = (len(captions), *self.shape)
        if here.shape != wanted:
            raise UserError(f"expected pictures of shape {wanted}, one for each caption, got {here.shape}")
        return [*state, self.judge(here, captions)]

    def result(self, state: list[Judged]) -> dict[str, Any]:
        """The share of right pictures and the distance, with their standard errors over pictures.

        A distance is above 0 for true pictures too, by a sampling error of order 1 / count, so compare equal counts of
        one data set and size. `frechet_floor` is the distance of as many true pictures that the reference does not hold
        (of all there are, where those are fewer, which is further).
        """
        found = np.concatenate([judged.features for judged in state])
        right = np.concatenate([judged.right for judged in state])
        value, stderr, parts = self.score(right, [part for judged in state for part in judged.parts])
        reference = self.reference()
        return {
            "score": value,
            "stderr": stderr,
            "parts": parts,
            "frechet": frechet_distance(fit_gaussian(found), reference),
            "count": len(found),
            "frechet_stderr": frechet_error(found, reference),
            "frechet_floor": self.floor(len(found)),
        }
