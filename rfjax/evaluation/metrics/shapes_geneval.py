"""The composition score of `shapes` by GenEval's own rules: `shapes` itself is laxer, and its numbers stay as they are.

GenEval's scorer looks at the `count` most confident boxes of a class alone. So a picture with a blue and a red square
is right for "a red square" only if the red one is found with more confidence, and a relation must hold for the most
confident object of either kind; `shapes` takes any. Counting, single objects and two objects are judged alike by both.
What finds the objects is our reader, not GenEval's detector, so this is no GenEval score either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Shaped, UInt8

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.evaluation.metrics import composition, features
from rfjax.evaluation.metrics.composition import Claim, Found
from rfjax.evaluation.quantity import Quantity
from rfjax.evaluation.suites import rules
from rfjax.evaluation.suites.rules import Box

LEAST = 1e-9  # of an image side: what counts as no offset of two centres

Judged = tuple[Bool[np.ndarray, " _"], list[str]]  # of a batch: which are right, and their skills


def make(config: configs.Config) -> "ShapesGeneval":
    """The metric for pictures of the config's size."""
    size = config.data.image_size
    return ShapesGeneval((size, size, 3))


def holds(claim: Claim, found: Sequence[Found]) -> bool:
    """Whether the objects found are what the caption says, by GenEval's rules (`suites.rules`)."""
    boxes: dict[str, list[Box]] = {}
    for one in sorted(found, key=lambda one: -one.confidence):
        corners = (one.x - one.radius, one.y - one.radius, one.x + one.radius, one.y + one.radius)
        boxes.setdefault(one.kind, []).append(Box(*corners, one.colour))
    return rules.shows(wanted(claim), boxes, LEAST)


def wanted(claim: Claim) -> dict[str, Any]:
    """What a caption says in the form of GenEval's metadata."""
    if claim.skill == "counting":
        kind = claim.objects[0][0]
        return {
            "include": [{"class": kind, "count": claim.count}],
            "exclude": [{"class": kind, "count": claim.count + 1}],
        }
    clauses = [{"class": kind, "count": 1} | ({"color": colour} if colour else {}) for kind, colour in claim.objects]
    if claim.relation:
        clauses = [clauses[1], clauses[0] | {"position": [claim.relation, 0]}]
    return {"include": clauses}


@dataclass(frozen=True)
class ShapesGeneval:
    """A `Metric`: the share of pictures that are right by GenEval's rules.

    Attributes:
        shape: of a picture, (H, W, C).
    """

    shape: tuple[int, int, int]

    quantities: ClassVar[tuple[Quantity, ...]] = (
        Quantity("geneval_score", "score by GenEval's rules", "higher", error="geneval_stderr", parts="geneval_parts"),
    )

    def init(self) -> list[Judged]:
        return []

    def update(
        self, state: list[Judged], images: UInt8[Array, "B H W C"] | Shaped[np.ndarray, "..."], captions: Sequence[str]
    ) -> list[Judged]:
        """Judges one more batch.

        Raises:
            UserError: for pictures of another type or shape, and for captions that `shapes` does not write.
        """
        spread = isinstance(images, jax.Array) and not images.is_fully_addressable
        here = np.asarray(multihost_utils.process_allgather(images, tiled=True) if spread else images)
        features.check_images(here)
        if here.shape != (len(captions), *self.shape):
            expected = (len(captions), *self.shape)
            raise UserError(f"expected pictures of shape {expected}, one for each caption, got {here.shape}")
        return [*state, composition.judge(here, captions, holds)]

    def result(self, state: list[Judged]) -> dict[str, Any]:
        """The mean over skills of the share of right pictures, with its standard error over pictures."""
        right = np.concatenate([judged for judged, _ in state])
        value, stderr, parts = composition.summarise(right, [skill for _, skills in state for skill in skills])
        return {"geneval_score": value, "geneval_stderr": stderr, "geneval_parts": parts}
