"""The composition score: does an image of `shapes` show what its caption says, in GenEval's six skills?

As GenEval (Ghosh et al. 2023) does with a detector, `read` finds the objects in an image, and a rule checks them
against the caption's text. `holds`, the rule of the metric `shapes`, accepts any object of a kind, which is laxer than
GenEval's own rule (`shapes_geneval`). The reader works by synthesis: a connected patch of one colour is compared with
the four shapes as `shapes.render` would render them at the patch's centre and size, and the most similar one is taken.
"""

import functools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt8
from scipy import ndimage

from rfjax.data import wording
from rfjax.data.shapes import distance
from rfjax.data.wording import COLOURS, NUMBERS, PLURALS, RELATIONS, SHAPES, SKILLS
from rfjax.errors import UserError

SMALLEST_IMAGE = 16  # as `Shapes`
BACKGROUND = (14.0, 106.0)  # the range of `shapes`: a grey of 20..100 with a tint of 6
SOLID = 0.6  # a pixel belongs to a patch if so much of it is covered; above 1/2, for neighbours a pixel apart
RADII = (0.12, 0.45)  # an object's radius in units of the image side; `shapes` draws 0.16 to 0.4
# How much of a patch's squared coverage its best shape may leave unexplained. Measured at 16 pixels a side: renders
# leave 0.014 at most, 95 % of those under noise of 20/255 under 0.1, Gaussian blobs of 2.3 pixels or more over 0.15.
UNLIKE = 0.15
SCALES = (0.92, 1.0, 1.08)  # radii tried, relative to the one that has the patch's area
AREA = np.array([np.pi, 4 * 0.86**2, 1.85, 4 * 0.68 - 0.68**2])  # of each shape at radius 1
DROP = np.array([0, 0, 0.85 - 1.85 / 3, 0])  # how far each shape's centre of mass is below its centre, at radius 1
MARGIN = 0.1  # GenEval's position threshold, relative to the sum of two objects' widths
OTHER = ", other words"  # behind a skill whose captions say it with words that training never has
CHUNK = 2**17  # pixels that are read at once: the working arrays stay near the cache


@dataclass(frozen=True)
class Found:
    """An object found in an image; centre and radius in units of the image side, origin at the top left.

    `confidence` is the share of its squared coverage that its shape explains.
    """

    kind: str
    colour: str
    x: float
    y: float
    radius: float
    confidence: float = 1.0


@dataclass(frozen=True)
class Claim:
    """What a caption says.

    Attributes:
        skill: of SKILLS.
        objects: (kind, colour) each, colour None where the caption names none.
        count: how many objects it speaks of.
        relation: of RELATIONS, of object 0 to object 1; None if not position.
    """

    skill: str
    objects: tuple[tuple[str, str | None], ...]
    count: int
    relation: str | None = None


Rule = Callable[[Claim, Sequence[Found]], bool]  # whether what was found is what a caption says


@dataclass(frozen=True)
class Composition:
    """A composition score.

    Attributes:
        value: mean over the skills that occur of the fraction of images that are right (GenEval's "Overall").
        stderr: its binomial standard error, sqrt(sum over skills of p (1 - p) / n) / number of skills.
        skills: the fraction of each skill that occurs.
        counts: its number of images.
    """

    value: float
    stderr: float
    skills: dict[str, float]
    counts: dict[str, int]


def score(images: Shaped[np.ndarray, "..."], captions: Sequence[str]) -> Composition:
    """Reads images and checks each against its caption.

    Args:
        images: UInt8 (n, S, S, 3).
        captions: n of them.

    Raises:
        UserError: for images that `read` or captions that `parse` refuses, none at all, or numbers that differ.
    """
    right, skills = judge(images, captions)
    value, stderr, by_skill = summarise(right, skills)
    return Composition(value, stderr, by_skill, {name: skills.count(name) for name in by_skill})


def judge(
    images: Shaped[np.ndarray, "..."], captions: Sequence[str], rule: Rule | None = None
) -> tuple[Bool[np.ndarray, " n"], list[str]]:
    """Whether each image shows what its caption says, by `holds` or another rule, and which skill that asks for."""
    rule = rule or holds
    if len(images) != len(captions) or not len(captions):
        raise UserError(f"a composition score needs a caption for each image, got {len(images)} and {len(captions)}")
    claims = [parse(caption) for caption in captions]
    right = np.array([rule(claim, found) for claim, found in zip(claims, read(images), strict=True)])
    skills = [
        claim.skill + (OTHER if text != wording.in_plain_words(text) else "")
        for claim, text in zip(claims, captions, strict=True)
    ]
    return right, skills


def summarise(right: Bool[np.ndarray, " n"], skills: list[str]) -> tuple[float, float, dict[str, float]]:
    """The mean over the skills that occur, its binomial standard error, and the share of each skill."""
    skill = np.array(skills)
    every = [name + words for words in ("", OTHER) for name in SKILLS]
    counts = {name: int((skill == name).sum()) for name in every if (skill == name).any()}
    by_skill = {name: float(right[skill == name].mean()) for name in counts}
    variance = sum(p * (1 - p) / counts[name] for name, p in by_skill.items())
    return float(np.mean(list(by_skill.values()))), float(variance**0.5 / len(by_skill)), by_skill


@functools.cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """A pattern for the captions of each skill, after `shapes.describe`."""
    either = lambda words: f"({'|'.join(words)})"  # noqa: E731
    kind, coloured = f"a {either(SHAPES)}", f"an? {either(COLOURS)} {either(SHAPES)}"
    counted, related = f"{either(NUMBERS.values())} {either(PLURALS)}", f"{kind} {either(RELATIONS)} {kind}"
    texts = (kind, f"{kind} and {kind}", counted, coloured, related, f"{coloured} and {coloured}")
    return {skill: re.compile(text) for skill, text in zip(SKILLS, texts, strict=True)}


def parse(caption: str) -> Claim:
    """What a caption of `shapes` says, also in other words.

    Raises:
        UserError: for a caption that follows none of the templates of `shapes.describe`.
    """
    plain = wording.in_plain_words(caption)
    for skill, pattern in _patterns().items():
        if match := pattern.fullmatch(plain):
            words = match.groups()
            if skill == "counting":
                number = next(n for n, word in NUMBERS.items() if word == words[0])
                return Claim(skill, ((SHAPES[PLURALS.index(words[1])], None),), number)
            colours = [word for word in words if word in COLOURS] or [None, None]
            kinds = [word for word in words if word in SHAPES]
            relation = next((word for word in words if word in RELATIONS), None)
            if len(set(kinds)) == len(kinds):  # a pair has two kinds
                return Claim(skill, tuple(zip(kinds, colours, strict=False)), len(kinds), relation)
    raise UserError(f"{caption!r} is not a caption of `shapes`, such as 'a circle left of a square' or 'two crosses'")


def holds(claim: Claim, found: Sequence[Found]) -> bool:
    """Whether the objects found are what the caption says, by the rule of the metric `shapes`.

    Counting asks for that number of the kind and no more; all others for at least one of each object named, in its
    colour if it names one. A relation holds if it does so between any two of the kinds named. GenEval looks at the most
    confident object of a kind alone: see `shapes_geneval.holds`.
    """
    named = [[o for o in found if o.kind == kind and colour in (None, o.colour)] for kind, colour in claim.objects]
    if claim.skill == "counting":
        return len(named[0]) == claim.count
    if claim.relation:
        return any(_relates(claim.relation, a, b) for a in named[0] for b in named[1])
    return all(named)


def _relates(relation: str, a: Found, b: Found) -> bool:
    """GenEval's relative position of a to b, from their centres and widths (a diameter, for its bounding boxes).

    The offset along each axis loses a tenth of the summed widths; what is left must exceed half the centres' distance.
    This is stricter than `shapes`, where halves decide: it fails one true caption of position in ten thousand.
    """
    across, down = b.x - a.x, b.y - a.y
    offset = {"left of": across, "right of": -across, "above": down, "below": -down}[relation]
    return offset - MARGIN * 2 * (a.radius + b.radius) > math.hypot(across, down) / 2


def read(images: Shaped[np.ndarray, "..."]) -> list[list[Found]]:
    """Finds the objects of each image.

    Args:
        images: UInt8 (n, S, S, 3), S 16 or more.

    Raises:
        UserError: for anything else.
    """
    if images.dtype.kind == "f" and np.isnan(images).any():
        raise UserError("the images hold NaN, so there is nothing to read in them")
    square = images.ndim == 4 and images.shape[1] == images.shape[2] >= SMALLEST_IMAGE and images.shape[3] == 3
    if images.dtype != np.uint8 or not square:
        asked = f"uint8 (n, S, S, 3) with S of {SMALLEST_IMAGE} or more, as codec.to_pixels makes them"
        raise UserError(f"images to read are {asked}, got {images.dtype} {images.shape}")
    step = max(1, CHUNK // images.shape[1] ** 2)
    return [found for start in range(0, len(images), step) for found in _read(images[start : start + step])]


def _read(images: UInt8[np.ndarray, "n S S 3"]) -> list[list[Found]]:
    cover, colour = _cover(images)
    owner, place, tint = _patches(cover, colour)
    patch = np.take_along_axis(cover[place], tint[:, None, None, None], 3)[..., 0]
    patch *= owner[place] == np.arange(1, len(place) + 1)[:, None, None]
    kind, (x, y, radius, unlike) = _match(patch)
    found: list[list[Found]] = [[] for _ in images]
    names = list(COLOURS)
    for k in np.flatnonzero((unlike < UNLIKE) & (radius > RADII[0]) & (radius < RADII[1])).tolist():
        size, sure = float(radius[k]), 1 - float(unlike[k])
        found[place[k]].append(Found(SHAPES[kind[k]], names[tint[k]], float(x[k]), float(y[k]), size, sure))
    return found


def _cover(images: UInt8[np.ndarray, "n S S 3"]) -> tuple[Float32[np.ndarray, "n S S K"], Int64[np.ndarray, "n S S"]]:
    """How much of each pixel each of the K colours covers, if it alone lies over the background; and the best colour.

    The background is the median of the border. The best colour explains most of a pixel's squared distance from the
    background, with its neighbours' say, so that a pixel gone astray within an object goes with the others.
    """
    rim = np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], 1)
    background = np.clip(np.median(rim, 1), *BACKGROUND).astype(np.float32)[:, None]
    span = np.array(list(COLOURS.values()), np.float32) - background  # (n, K, 3)
    shape = (*images.shape[:3], len(COLOURS))
    along = ((images.reshape(len(images), -1, 3) - background) @ span.transpose(0, 2, 1)).reshape(shape)
    square = (span**2).sum(2)[:, None, None]
    cover = np.clip(along / square, 0, 1)
    gain = cover * (2 * along - cover * square)
    for axis in (1, 2):
        gain = ndimage.correlate1d(gain, [0.25, 0.5, 0.25], axis, mode="nearest")
    return cover, gain.argmax(3)


def _patches(
    cover: Float32[np.ndarray, "n S S K"], colour: Int64[np.ndarray, "n S S"]
) -> tuple[Int64[np.ndarray, "n S S"], Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Connected patches of solid colour, with the fainter pixels around them.

    Returns:
        the patch of each pixel, from 1 to m, 0 for none; the image of each patch; its colour.
    """
    size = cover.shape[1]
    solid = np.take_along_axis(cover, colour[..., None], 3)[..., 0] > SOLID
    layers = solid & (colour == np.arange(cover.shape[3])[:, None, None, None])  # (K, n, S, S)
    cross = np.zeros((3, 3, 3, 3), bool)
    cross[1, 1] = ndimage.generate_binary_structure(2, 1)
    label, _ = ndimage.label(layers, cross)
    owner = label.max(0).astype(np.int64)
    area = np.bincount(owner.ravel())
    large = area >= AREA.min() * (RADII[0] * size) ** 2 / 2  # half of a small object may be faint edge
    large[0] = False
    owner = np.where(large, np.cumsum(large), 0)[owner]
    values, first = np.unique(owner, return_index=True)
    first = first[values > 0]
    for _ in range(2):
        owner = np.where(owner > 0, owner, ndimage.maximum_filter(owner, (1, 3, 3)))
    return owner, first // size**2, colour.ravel()[first]


def _match(patch: Float32[np.ndarray, "m S S"]) -> tuple[Int64[np.ndarray, " m"], Float64[np.ndarray, "4 m"]]:
    """The shape, of four, whose coverage is nearest to that of each patch in least squares.

    Returns:
        its kind; and its x, y and radius in units of the image side, with the share of squared coverage unexplained.
    """
    size = patch.shape[1]
    centre = ((np.arange(size) + 0.5) / size).astype(np.float32)
    mass = patch.sum((1, 2))
    x, middle = (np.einsum(axes, patch, centre) / mass for axes in ("kyx,x->k", "kyx,y->k"))
    power = (patch**2).sum((1, 2))
    kinds, fits = [], []
    for index in range(len(SHAPES)):
        kind = np.full(len(patch), index)
        for scale in SCALES:
            radius = (np.sqrt(mass / AREA[index]) * (scale / size)).astype(np.float32)
            y = (middle - DROP[index] * radius).astype(np.float32)
            r = radius[:, None, None]
            dx, dy = (centre - x[:, None, None]) / r, (centre[:, None] - y[:, None, None]) / r
            shape = np.clip(np.float32(0.5) - distance(dx, dy, kind) * r * np.float32(size), 0, 1)
            kinds.append(kind)
            fits.append([x, y, radius, ((patch - shape) ** 2).sum((1, 2)) / power])
    fit = np.array(fits, np.float64)  # (candidates, 4, m)
    best = fit[:, 3].argmin(0)
    each = np.arange(len(patch))
    return np.array(kinds)[best, each], fit[best, :, each].T
