import dataclasses
import functools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from rfjax.data import shapes
from rfjax.data.shapes import COLOURS, RELATIONS, SHAPES, SKILLS, SPLIT_BITS, SPLITS, Shapes
from rfjax.errors import UserError
from rfjax.evaluation.metrics.composition import Claim, Found, holds, parse, read, score

NAMES = tuple(COLOURS)
PALETTE = np.array(list(COLOURS.values()), float)
INDEX = st.integers(0, 2**SPLIT_BITS - 1)


def validation(n):
    return shapes.imagine(np.arange(n) + (SPLITS["validation"] << SPLIT_BITS))


def truth(scene):
    """The objects of each scene, as a perfect reader would find them."""
    fields = (scene.kind.tolist(), scene.colour.tolist(), scene.x.tolist(), scene.y.tolist(), scene.radius.tolist())
    rows = [
        [Found(SHAPES[k], NAMES[c], x, y, r) for k, c, x, y, r in zip(*row, strict=True)]
        for row in zip(*fields, strict=True)
    ]
    return [row[:count] for row, count in zip(rows, scene.count.tolist(), strict=True)]


def contents(found):
    return sorted((o.kind, o.colour) for o in found)


def pixels(image):
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


@functools.cache
def reading(size, n):
    """The first n true renders of the validation split: their captions, what is found, what is there."""
    images, captions = Shapes("validation", size).read(range(n))
    return captions, read(images), truth(validation(n))


@pytest.mark.parametrize(("size", "n"), [(16, 4000), (24, 500), (32, 4000), (64, 100)])
def test_true_renders_are_read_without_a_mistake(size, n):
    """Measured: no scene of 60,000 is misread at 16 pixels and none of 8,000 at 32."""
    captions, found, true = reading(size, n)
    assert [contents(row) for row in found] == [contents(row) for row in true]
    right = [holds(parse(caption), row) for caption, row in zip(captions, found, strict=True)]
    assert np.mean(right) >= 0.999  # GenEval's rule of position fails a true caption in ten thousand
    for mine, there in zip(found, true, strict=True):
        if len(there) == 1:
            assert math.hypot(mine[0].x - there[0].x, mine[0].y - there[0].y) < 0.15 / size  # a sixth of a pixel
            assert abs(mine[0].radius - there[0].radius) < 0.15 / size


def test_a_shuffled_caption_holds_as_often_as_chance_has_it():
    """The chance that a caption of each skill holds of another scene, from the rules by which `imagine` draws.

    A sixth of scenes has each skill; an object has each kind with 1/4, each colour with 1/8. A caption's two kinds are
    a pair's two with 1/6; then its two colours fit with 1/64, or 1/56 if they must differ. Position has no closed
    form, for objects side by side are often one above the other too: there the true scenes give the chance.
    """
    n = 4000
    captions, found, true = reading(16, n)
    claims = [parse(caption) for caption in captions]
    shifts = range(1, 7)
    skill = np.array([SKILLS.index(claim.skill) for claim in claims])
    right = [[holds(claims[i], objects[i - k]) for k in shifts for i in range(n)] for objects in (found, true)]
    rate, exact = (np.array([np.reshape(r, (-1, n))[:, skill == s].mean() for s in range(6)]) for r in right)
    several = np.mean([1 - (7 / 8) ** n for n in (2, 3, 4)])  # at least one of n has a given colour
    chance = np.array([
        (3 * 1 / 4 + 3 * 1 / 2) / 6,
        3 * 1 / 6 / 6,
        1 / 3 * 1 / 4 / 6,
        (2 / 32 + several / 4 + 3 / 16) / 6,
        exact[4],
        (2 / 64 + 1 / 56) / 6 / 6,
    ])  # fmt: skip
    stderr = np.sqrt(chance * (1 - chance) / (np.bincount(skill) * len(shifts)))
    assert (np.abs(rate - chance) < 4 * stderr).all()
    np.testing.assert_allclose(rate, exact, atol=1e-3)


@pytest.mark.parametrize("size", [16, 32])
def test_the_score_falls_as_noise_and_blur_grow(size):
    images, captions = Shapes("validation", size).read(range(6400 // size))
    image = images.astype(float)
    noise = np.random.default_rng(0).standard_normal(image.shape)
    noisy = [score(pixels(image + level * noise), captions).value for level in (0, 30, 60, 130)]
    blurred = [ndimage.gaussian_filter(image, (0, s * size / 16, s * size / 16, 0)) for s in (0, 0.8, 1.2, 3)]
    for values in (noisy, [score(pixels(image), captions).value for image in blurred]):
        assert values[0] == 1
        assert (np.diff(values) < 0).all()
        assert values[-1] < 0.01
    assert score(pixels(image + 15 * noise), captions).value > 0.98
    assert score(pixels(ndimage.gaussian_filter(image, (0, 0.5, 0.5, 0))), captions).value > 0.98


@pytest.mark.parametrize("size", [16, 17, 32])
def test_what_shows_no_object_is_read_as_none(size):
    rng = np.random.default_rng(0)
    grid = (np.arange(size) + 0.5) / size - 0.5
    coloured = lambda cover: pixels(60 + cover[None, ..., None] * (PALETTE[:, None, None] - 60))  # noqa: E731
    junk = [rng.integers(0, 256, (100, size, size, 3), np.uint8)]
    junk += [pixels(60 + level * rng.standard_normal((100, size, size, 3))) for level in (10, 30, 60, 100)]
    junk += [np.full((1, size, size, 3), level, np.uint8) for level in range(0, 256, 15)]
    junk += [coloured(np.ones((size, size))), coloured(np.broadcast_to(grid + 0.5, (size, size)))]
    junk += [coloured(np.exp(-(grid**2 + grid[:, None] ** 2) / (2 * s**2))) for s in (0.15, 0.2, 0.3, 0.4)]
    junk += [coloured((np.abs(grid[:, None]) < 0.12) * (np.abs(grid) < length) * 1.0) for length in (0.3, 0.5)]
    junk += [coloured((grid[:, None] ** 2 + grid**2 < 0.06**2) * 1.0)]  # a speck
    assert sum(len(found) for images in junk for found in read(images)) == 0


@given(INDEX, st.sampled_from([16, 24, 32]), st.permutations(range(8)), st.permutations(range(4)))
def test_other_colours_and_kinds_are_read_as_such(index, size, colours, kinds):
    scene = shapes.imagine(np.array([index]))
    other = dataclasses.replace(scene, colour=np.array(colours)[scene.colour], kind=np.array(kinds)[scene.kind])
    (found,) = read(shapes.render(other, size))
    assert contents(found) == contents(truth(other)[0])


@given(INDEX, st.sampled_from([16, 32]))
def test_a_mirror_swaps_left_and_right(index, size):
    images, (caption,) = Shapes("train", size).read([index])
    claim, (found,), (mirrored,) = parse(caption), read(images), read(images[:, :, ::-1])
    assert contents(found) == contents(mirrored)
    swap = {"left of": "right of", "right of": "left of"}
    swapped = dataclasses.replace(claim, relation=swap.get(claim.relation, claim.relation))
    assert holds(swapped, mirrored) == holds(claim, found)
    if claim.relation in swap:
        assert not holds(claim, mirrored)


@given(INDEX, st.integers(-2, 2), st.integers(-2, 2))
def test_a_shifted_image_has_its_objects_shifted(index, right, down):
    scene = shapes.imagine(np.array([index]))
    room = np.pad(shapes.render(scene, 24), ((0, 0), (4, 4), (4, 4), (0, 0)), mode="edge")
    (here,), (there,) = read(room), read(np.roll(room, (down, right), (1, 2)))
    place = lambda o, x, y: (o.kind, o.colour, round(o.x + x, 3), round(o.y + y, 3), round(o.radius, 3))  # noqa: E731
    assert len(here) == scene.count[0]
    assert {place(o, right / 32, down / 32) for o in here} == {place(o, 0, 0) for o in there}


def test_an_image_reads_the_same_alone_and_among_others():
    images, _ = Shapes("test", 16).read(range(1100))  # more than a chunk
    together = read(images)
    for i in (0, 511, 512, 1099):
        alone = read(images[i : i + 1])[0]
        assert contents(alone) == contents(together[i])
        np.testing.assert_allclose([o.x for o in alone], [o.x for o in together[i]], atol=1e-6)
    assert read(images[:0]) == []


@given(INDEX)
def test_a_caption_parses_to_its_scene(index):
    scene = shapes.imagine(np.array([index]))
    (caption,) = shapes.describe(scene)
    skill, count = SKILLS[scene.skill[0]], int(scene.count[0])
    named = 1 if skill == "counting" else count
    tinted = skill in ("colours", "colour attribution")
    objects = tuple((o.kind, o.colour if tinted else None) for o in truth(scene)[0][:named])
    relation = RELATIONS[scene.relation[0]] if skill == "position" else None
    assert parse(caption) == Claim(skill, objects, count, relation)


@pytest.mark.parametrize(
    "caption",
    ["", "circle", "a Circle", "a circle ", "two circle", "five circles", "a circle and a circle", "a teal circle",
     "a circle near a square", "a red circle and a square", "a photo of a circle", "a red red circle"],
)  # fmt: skip
def test_other_captions_are_refused(caption):
    with pytest.raises(UserError, match="is not a caption of `shapes`"):
        parse(caption)


def test_claims_hold_by_the_rules_of_geneval():
    red, blue = Found("circle", "red", 0.3, 0.3, 0.1), Found("circle", "blue", 0.7, 0.3, 0.1)
    square = Found("square", "red", 0.7, 0.7, 0.1)
    says = lambda caption, *found: holds(parse(caption), found)  # noqa: E731
    assert says("a circle", red, blue, square)
    assert not says("a cross", red, blue, square)
    assert says("two circles", red, blue, square)
    assert not says("two circles", red, square)
    assert not says("two circles", red, blue, red)
    assert says("a square and a circle", red, square)
    assert not says("a square and a circle", red, blue)
    assert says("a red square", red, square)
    assert not says("a blue square", blue, square)
    assert says("a blue circle and a red square", blue, square)
    assert not says("a red circle and a blue square", blue, square)
    # The diagonal is both left and above; (0.4 - 0.04) / 0.566 is over a half.
    assert says("a circle left of a square", red, square)
    assert says("a circle above a square", red, square)
    assert not says("a square left of a circle", red, square)
    assert not says("a circle left of a square", blue, square)
    assert says("a circle left of a square", blue, red, square)  # some circle is
    near = lambda x, y: Found("square", "red", 0.3 + x, 0.3 + y, 0.1)  # noqa: E731
    assert not says("a circle left of a square", red, near(0.07, 0))  # (0.07 - 0.04) / 0.07 is under a half
    assert says("a circle left of a square", red, near(0.09, 0))
    assert not says("a circle left of a square", red, near(0.2, 0.3))


def test_the_score_is_the_mean_over_skills_that_occur():
    images, _ = Shapes("train", 16).read([0])
    (found,) = read(images)
    there, missing = found[0].kind, next(kind for kind in SHAPES if kind not in {o.kind for o in found})
    result = score(np.repeat(images, 4, 0), [f"a {there}", f"a {there}", f"a {missing}", "four triangles"])
    assert result.skills == {"single object": pytest.approx(2 / 3), "counting": 0}
    assert result.counts == {"single object": 3, "counting": 1}
    assert result.value == pytest.approx(1 / 3)
    assert result.stderr == pytest.approx(math.sqrt(2 / 3 * 1 / 3 / 3) / 2)


def test_bad_input_is_refused_in_a_sentence():
    images = np.zeros((2, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="the images hold NaN"):
        read(np.full((2, 16, 16, 3), np.nan, np.float32))
    for other in (images.astype(np.float32), images[0], images[:, :15], images[..., :1], images[:, :8, :8]):
        with pytest.raises(UserError, match="images to read"):
            read(other)
    for captions in (["a circle"], []):
        with pytest.raises(UserError, match=f"a caption for each image, got 2 and {len(captions)}"):
            score(images, captions)
    with pytest.raises(UserError, match="got 0 and 0"):
        score(images[:0], [])


def test_reading_is_fast_enough_for_training():
    """Measured: 5,600 to 9,300 images of 16 pixels a second on one core, as busy as the machine was."""
    images, _ = Shapes("train", 16).read(range(2048))
    read(images[:64])
    start = time.process_time()
    read(images)
    assert len(images) / (time.process_time() - start) > 1500


def test_captions_in_other_words_are_scored_apart():
    source = Shapes("validation", 16, other_words=True)
    images, captions = source.read(range(600))
    found = score(images, captions)
    assert found.value == 1 and set(found.skills) == {*SKILLS, *(f"{name}, other words" for name in SKILLS)}
    assert sum(count for name, count in found.counts.items() if "other" in name) == 300
    wrong = [caption if i % 2 == 0 else captions[i - 2] for i, caption in enumerate(captions)]
    found = score(images, wrong)
    assert all((value == 1) == ("other" not in name) for name, value in found.skills.items())
