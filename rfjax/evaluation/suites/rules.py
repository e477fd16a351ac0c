"""GenEval's rules (Ghosh et al. 2023, evaluate_images.py): do the boxes that a detector found show what is asked for?

They are for boxes that are sorted by confidence. A class takes its `count` most confident boxes, so that colour and
position look at these alone; all of them must have the colour, and each must stand in the relation to each of the
other class's. Excluded classes count all of their boxes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rfjax.data.wording import RELATIONS

MARGIN = 0.1  # of the two boxes' summed sizes, by which the offset of their centres shrinks along each axis
HALF = 0.5  # of the centres' distance, which what is left of the offset must exceed
LEAST = 1e-3  # pixels: an offset that shrinks below it along both axes is no relation


class Box(NamedTuple):
    """A box of a detector: its corners, x to the right and y down, and the colour of what is in it, if it was asked."""

    x1: float
    y1: float
    x2: float
    y2: float
    colour: str | None = None


def relations(a: Box, b: Box, least: float = LEAST) -> frozenset[str]:
    """Where a is, seen from b: of "left of", "right of", "above", "below", two at most.

    Each axis of the offset of the centres is shrunk towards 0 by MARGIN of the boxes' summed sizes, and divided by the
    length of the offset before that; a relation holds above HALF.

    Args:
        least: what counts as no offset, in the boxes' unit.
    """
    offset = ((a.x1 + a.x2 - b.x1 - b.x2) / 2, (a.y1 + a.y2 - b.y1 - b.y2) / 2)
    sizes = (abs(a.x2 - a.x1) + abs(b.x2 - b.x1), abs(a.y2 - a.y1) + abs(b.y2 - b.y1))
    left = [math.copysign(max(abs(x) - MARGIN * size, 0), x) for x, size in zip(offset, sizes, strict=True)]
    if all(abs(x) < least for x in left):
        return frozenset()
    across, down = (x / math.hypot(*offset) for x in left)
    holds = (across < -HALF, across > HALF, down < -HALF, down > HALF)
    return frozenset(name for name, so in zip(RELATIONS, holds, strict=True) if so)


def shows(wanted: Mapping[str, Any], boxes: Mapping[str, Sequence[Box]], least: float = LEAST) -> bool:
    """Whether these boxes show what a line of GenEval's metadata asks for.

    Args:
        wanted: `include` and `exclude` of that line, checked by `geneval.check`.
        boxes: by class, the most confident first.
        least: see `relations`.
    """
    groups: list[Sequence[Box] | None] = []
    for one in wanted.get("include", ()):
        taken = boxes.get(one["class"], ())[: one["count"]]
        right = len(taken) == one["count"]
        if right and "color" in one:
            right = all(box.colour == one["color"] for box in taken)
        if right and "position" in one:
            relation, other = one["position"]
            targets = groups[other]
            right = targets is not None and all(relation in relations(a, b, least) for a in taken for b in targets)
        groups.append(taken if right else None)
    many = any(len(boxes.get(one["class"], ())) >= one["count"] for one in wanted.get("exclude", ()))
    return None not in groups and not many
