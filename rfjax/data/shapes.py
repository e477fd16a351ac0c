"""`shapes`: a procedural text-to-image set over the six skills that GenEval measures, rendered on demand.

An example is a pure function of (seed, index). A hash turns integers into fractions, and rendering uses only +, -, *,
/, sqrt, min and max, which IEEE 754 fixes to the bit, so that every machine renders the same image.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from rfjax import config as configs
from rfjax.data import wording
from rfjax.data.hashing import fractions
from rfjax.data.types import Captions, Example, Examples, Field, Split, check_split
from rfjax.data.wording import COLOURS, NUMBERS, PLURALS, RELATIONS, SHAPES, SKILLS, article

MAX_OBJECTS = 4
SPLITS = {"train": 0, "validation": 1, "test": 2}
VERSION = 1  # of the generator: raise it if a (seed, index) gives another example
SPLIT_BITS = 40  # each split owns 2^40 indices of its own

# Slots of an example's random fractions.
SKILL, COUNT, RELATION, VERTICAL, MISSING, BACKGROUND, TINT = range(7)
OBJECTS = 16  # object k has slots OBJECTS + 8 k + (kind, colour, x, y, radius)
WORDS = OBJECTS + 8 * MAX_OBJECTS  # the draws of `wording`


@dataclass(frozen=True)
class Scene:
    """The ground truth behind n captions: what each image shows.

    Attributes:
        skill: which of SKILLS, (n,).
        count: number of objects, (n,).
        relation: which of RELATIONS object 0 has to object 1, (n,), if the skill is position.
        kind: which of SHAPES, (n, 4).
        colour: which of COLOURS, (n, 4).
        x, y: centres in units of the image side, origin at the top left, (n, 4).
        radius: in units of the image side, (n, 4).
        background: RGB from 0 to 255, (n, 3).
    """

    skill: Int64[np.ndarray, " n"]
    count: Int64[np.ndarray, " n"]
    relation: Int64[np.ndarray, " n"]
    kind: Int64[np.ndarray, "n 4"]
    colour: Int64[np.ndarray, "n 4"]
    x: Float64[np.ndarray, "n 4"]
    y: Float64[np.ndarray, "n 4"]
    radius: Float64[np.ndarray, "n 4"]
    background: Float64[np.ndarray, "n 3"]


def open_source(config: configs.Data, split: Split) -> "Shapes":
    """Opens one split, rendered at config.image_size pixels a side."""
    check_split(split)
    return Shapes(split, config.image_size, alt_text=config.alt_text, other_words=config.other_words)


@dataclass(frozen=True)
class Shapes:
    """Random access to one split; `image_size` in pixels (16 or more), always three channels.

    Attributes:
        alt_text: the share of damaged words of a training example's original caption, see `wording.alt_text`; the whole
            caption is then its synthetic one. Other splits have whole captions, for losses and prompts alike.
            0: training has whole captions too.
        other_words: says every second caption of the other splits in words that training never has.
    """

    split: str = "train"
    image_size: int = 16
    seed: int = 0
    alt_text: float = 0.0
    other_words: bool = False
    shuffles: bool = False  # neighbours are independent already
    drawn: bool = True  # the generator's version and seed are nearly the whole identity of the data

    @property
    def fields(self) -> dict[str, Field]:
        """The picture, its class (`classify`), and what lies at each pixel (`label_pixels`)."""
        side = self.image_size
        return {
            "image": Field((side, side, 3), "uint8", flips=True),
            "label": Field((), "int64"),
            "semantics": Field((side, side, 2), "uint8", flips=True),
        }

    def __len__(self) -> int:
        return 2**SPLIT_BITS

    def __getitem__(self, index: int) -> Example:
        arrays, captions = self.take([index])
        return {name: array[0] for name, array in arrays.items()} | {"caption": captions[0], "index": index}

    def names(self) -> Iterator[str]:
        """See `types.Named`: the generator and its arguments."""
        yield f"shapes {VERSION}, seed {self.seed}, split {self.split}"
        if self.split == "train" and self.alt_text:
            yield f"alt text {self.alt_text!r}"
        if self.split != "train" and self.other_words:
            yield "other words"

    def take(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Examples:
        """See `types.Batched`; renders what `names` lists."""
        scene, size = self._scene(indices), self.image_size
        make = {
            "image": lambda: render(scene, size),
            "label": lambda: classify(scene),
            "semantics": lambda: label_pixels(scene, size),
        }
        return Examples({name: make[name]() for name in (make if names is None else names)}, self._say(scene, indices))

    def read(self, indices: Sequence[int]) -> tuple[UInt8[np.ndarray, "n S S 3"], list[str]]:
        """Renders n examples at once: several times faster than one by one."""
        arrays, captions = self.take(indices, ["image"])
        return arrays["image"], captions

    def _scene(self, indices: Sequence[int]) -> Scene:
        return imagine(self._numbers(indices), self.seed)

    def _numbers(self, indices: Sequence[int]) -> Int64[np.ndarray, " n"]:
        return np.asarray(indices, np.int64) + (SPLITS[self.split] << SPLIT_BITS)

    def _say(self, scene: Scene, indices: Sequence[int]) -> list[str | Captions]:
        """The captions of a split."""
        captions = describe(scene)
        damaged, other = self.split == "train" and self.alt_text > 0, self.split != "train" and self.other_words
        if not (damaged or other):
            return captions
        draws = fractions(self._numbers(indices), self.seed, WORDS + wording.DRAWS)[:, WORDS:]
        rows = zip(indices, captions, draws, strict=True)
        if damaged:
            return [Captions((wording.alt_text(text, row, self.alt_text),), (text,)) for _, text, row in rows]
        return [wording.in_other_words(text, row) if index % 2 else text for index, text, row in rows]


def imagine(index: Int64[np.ndarray, " n"], seed: int = 0) -> Scene:
    """Chooses what each image shows. Objects never touch, because each has a cell of its own."""
    u = fractions(index, seed, OBJECTS + 8 * MAX_OBJECTS)
    pick = lambda slot, choices: (u[:, slot] * choices).astype(np.int64)  # noqa: E731
    skill = pick(SKILL, len(SKILLS))
    pair = np.isin(skill, [1, 4, 5])
    count = np.where(skill == 2, 2 + pick(COUNT, 3), np.where(pair, 2, 1))
    relation = pick(RELATION, 4)

    objects = u[:, OBJECTS:].reshape(-1, MAX_OBJECTS, 8)
    kind = (objects[:, :, 0] * len(SHAPES)).astype(np.int64)
    colour = (objects[:, :, 1] * len(COLOURS)).astype(np.int64)
    # A pair has two kinds, an attribution two colours, and counted objects have one kind.
    kind[:, 1] = np.where(pair, _other(kind[:, 0], objects[:, 1, 0], len(SHAPES)), kind[:, 1])
    colour[:, 1] = np.where(skill == 5, _other(colour[:, 0], objects[:, 1, 1], len(COLOURS)), colour[:, 1])
    kind = np.where((skill == 2)[:, None], kind[:, :1], kind)

    # Cells: the image, its halves, or its quadrants; (left, top, width, height) in units of the image side.
    vertical = np.where(skill == 4, relation >= 2, u[:, VERTICAL] < 0.5)
    swapped = np.where(skill == 4, relation % 2 == 1, False)
    slot = np.arange(MAX_OBJECTS)[None] ^ swapped[:, None].astype(np.int64)
    missing = pick(MISSING, 4)[:, None]
    quadrant = np.where(count[:, None] == 3, slot + (slot >= missing), slot) % 4
    two, many = (count == 2)[:, None], (count > 2)[:, None]
    down = vertical[:, None]
    left = np.where(many, quadrant % 2 * 0.5, np.where(two & ~down, slot % 2 * 0.5, 0.0))
    top = np.where(many, quadrant // 2 * 0.5, np.where(two & down, slot % 2 * 0.5, 0.0))
    width = np.where(many | (two & ~down), 0.5, 1.0)
    height = np.where(many | (two & down), 0.5, 1.0)
    smallest, largest = np.where(count[:, None] > 1, 0.16, 0.2), np.where(count[:, None] > 1, 0.205, 0.4)
    radius = smallest + (largest - smallest) * objects[:, :, 4]
    gap = radius + 0.03
    x = left + gap + (width - 2 * gap) * objects[:, :, 2]
    y = top + gap + (height - 2 * gap) * objects[:, :, 3]
    grey = 20 + 80 * u[:, BACKGROUND, None] + 12 * (u[:, TINT : TINT + 3] - 0.5)
    return Scene(skill, count, relation, kind, colour, x, y, radius, grey)


def _other(first: Int64[np.ndarray, " n"], u: Float64[np.ndarray, " n"], choices: int) -> Int64[np.ndarray, " n"]:
    """A uniform choice that differs from the first."""
    return (first + 1 + (u * (choices - 1)).astype(np.int64)) % choices


def render(scene: Scene, size: int) -> UInt8[np.ndarray, "n S S 3"]:
    """Renders scenes at size x size pixels, with one pixel of smoothing at the edges."""
    palette = np.array(list(COLOURS.values()), np.float32)
    image = np.broadcast_to(scene.background[:, None, None].astype(np.float32), (len(scene.x), size, size, 3)).copy()
    for rows, k, cover in _covers(scene, size):
        image[rows] += cover[..., None] * (palette[scene.colour[rows, k]][:, None, None] - image[rows])
    return (image + np.float32(0.5)).astype(np.uint8)


def label_pixels(scene: Scene, size: int) -> UInt8[np.ndarray, "n S S 2"]:
    """What lies at each pixel: 1 + the place in SHAPES, and 1 + the place in COLOURS; 0 is the background.

    A pixel belongs to an object that covers at least half of it.
    """
    labels = np.zeros((len(scene.x), size, size, 2), np.uint8)
    for rows, k, cover in _covers(scene, size):
        own = 1 + np.stack([scene.kind[rows, k], scene.colour[rows, k]], axis=-1)[:, None, None]
        labels[rows] = np.where(cover[..., None] >= 0.5, own, labels[rows])
    return labels


def classify(scene: Scene) -> Int64[np.ndarray, " n"]:
    """The class of the first object, shape and colour: one of len(SHAPES) len(COLOURS)."""
    return scene.kind[:, 0] * len(COLOURS) + scene.colour[:, 0]


def _covers(scene: Scene, size: int) -> Iterator[tuple[Int64[np.ndarray, " m"], int, Float32[np.ndarray, "m S S"]]]:
    """For object k: the scenes that have it, k, and how much of each pixel it covers."""
    centre = ((np.arange(size) + 0.5) / size).astype(np.float32)
    for k in range(MAX_OBJECTS):
        rows = np.flatnonzero(scene.count > k)
        if not len(rows):
            break
        x, y, radius = (a[rows, k].astype(np.float32)[:, None, None] for a in (scene.x, scene.y, scene.radius))
        outside = distance(
            (centre[None, None, :] - x) / radius, (centre[None, :, None] - y) / radius, scene.kind[rows, k]
        )
        yield rows, k, np.clip(np.float32(0.5) - outside * radius * np.float32(size), 0, 1)


def distance(
    dx: Float32[np.ndarray, "n 1 S"], dy: Float32[np.ndarray, "n S 1"], kind: Int64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n S S"]:
    """Signed distance to a shape of radius 1, negative inside; beyond corners a lower bound, enough for smoothing."""
    ax, ay = np.abs(dx), np.abs(dy)
    f = np.float32
    circle = np.sqrt(dx * dx + dy * dy) - f(1)
    square = np.maximum(ax, ay) - f(0.86)
    # Apex (0, -1), base from (-1, 0.85) to (1, 0.85); a side's outward normal is (1.85, -1) / 2.103.
    triangle = np.maximum((f(1.85) * ax - (dy + f(1))) / f(2.103), dy - f(0.85))
    cross = np.minimum(np.maximum(ax - f(0.34), ay - f(1)), np.maximum(ax - f(1), ay - f(0.34)))
    kind = kind[:, None, None]
    return np.where(kind == 0, circle, np.where(kind == 1, square, np.where(kind == 2, triangle, cross)))


def describe(scene: Scene) -> list[str]:
    """Captions in plain English, at most eight words, after GenEval's templates (without its "a photo of")."""
    colours = tuple(COLOURS)
    captions = []
    rows = (scene.skill, scene.count, scene.relation, scene.kind, scene.colour)
    for skill, count, relation, kind, colour in zip(*(a.tolist() for a in rows), strict=True):
        first, second = SHAPES[kind[0]], SHAPES[kind[1]]
        name, other = colours[colour[0]], colours[colour[1]]
        captions.append(
            (
                f"a {first}",
                f"a {first} and a {second}",
                f"{NUMBERS.get(count, count)} {PLURALS[kind[0]]}",
                f"{article(name)} {name} {first}",
                f"a {first} {RELATIONS[relation]} a {second}",
                f"{article(name)} {name} {first} and {article(other)} {other} {second}",
            )[skill]
        )
    return captions
