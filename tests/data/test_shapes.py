import hashlib
import time
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rfjax.data import hashing, shapes
from rfjax.data.shapes import COLOURS, NUMBERS, PLURALS, RELATIONS, SHAPES, SKILLS, SPLITS, Shapes


@given(st.integers(0, 2**40 - 1), st.sampled_from(sorted(SPLITS)), st.sampled_from([16, 24, 32]))
def test_an_index_is_the_same_alone_and_in_a_batch(index, split, size):
    source = Shapes(split, size)
    alone = source[index]
    images, captions = source.read([3, index, 7])
    np.testing.assert_array_equal(images[1], alone["image"])
    assert captions[1] == alone["caption"]
    assert alone["image"].shape == (size, size, 3)


def test_every_machine_renders_the_same_bits():
    images, captions = Shapes("train", 16).read(range(500))
    digest = hashlib.sha256(images.tobytes() + "\n".join(captions).encode()).hexdigest()
    assert digest == "86b70b61bc2e6ecfc803f72707146ead2788a48f354f2498839e70e5256d42b6"


def test_splits_never_meet():
    first = {
        split: hashing.fractions(np.arange(5) + (place << shapes.SPLIT_BITS), 0, 4) for split, place in SPLITS.items()
    }
    assert len({array.tobytes() for array in first.values()}) == 3
    assert len(Shapes("train")) == 2**40  # so the highest index of a split is below the lowest of the next


def test_fractions_are_uniform_and_independent_between_slots():
    u = hashing.fractions(np.arange(20_000), 0, 4)
    assert np.abs(u.mean(0) - 0.5).max() < 4 * 0.289 / 20_000**0.5
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 4 / 20_000**0.5
    assert np.abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 4 / 20_000**0.5


def test_captions_say_what_the_scene_holds():
    index = np.arange(3000)
    scene = shapes.imagine(index)
    colours = list(COLOURS)
    for i, caption in enumerate(shapes.describe(scene)):
        words = caption.split()
        first, second = SHAPES[scene.kind[i, 0]], SHAPES[scene.kind[i, 1]]
        skill = SKILLS[scene.skill[i]]
        if skill == "counting":
            assert words == [NUMBERS[scene.count[i]], PLURALS[scene.kind[i, 0]]]
            assert len(set(scene.kind[i, : scene.count[i]])) == 1
        if skill == "position":
            assert f"{first} {RELATIONS[scene.relation[i]]} a {second}" in caption
            dx, dy = scene.x[i, 1] - scene.x[i, 0], scene.y[i, 1] - scene.y[i, 0]
            holds = {"left of": dx > 0, "right of": dx < 0, "above": dy > 0, "below": dy < 0}
            assert holds[RELATIONS[scene.relation[i]]]
        if skill in ("two objects", "position", "colour attribution"):
            assert first != second
            assert scene.count[i] == 2
        if skill == "colour attribution":
            assert scene.colour[i, 0] != scene.colour[i, 1]
            assert f"{colours[scene.colour[i, 1]]} {second}" in caption
        if skill in ("single object", "colours"):
            assert scene.count[i] == 1
        assert len(words) <= 8
    counts = Counter(scene.skill.tolist())
    assert all(abs(counts[k] - 500) < 4 * 20.4 for k in range(6))  # binomial, four standard deviations


def test_objects_never_touch_and_never_leave_the_image():
    scene = shapes.imagine(np.arange(5000))
    for k in range(4):
        has = scene.count > k
        for centre in (scene.x[has, k], scene.y[has, k]):
            assert (centre - scene.radius[has, k] > 0).all()
            assert (centre + scene.radius[has, k] < 1).all()
        for other in range(k):
            apart = np.maximum(
                np.abs(scene.x[has, k] - scene.x[has, other]), np.abs(scene.y[has, k] - scene.y[has, other])
            )
            assert (apart > scene.radius[has, k] + scene.radius[has, other] + 0.05).all()


def test_the_middle_of_an_object_has_its_colour():
    scene = shapes.imagine(np.arange(2000))
    images = shapes.render(scene, 32)
    palette = np.array(list(COLOURS.values()))
    for k in range(4):
        rows = np.flatnonzero(scene.count > k)
        pixel = images[rows, (scene.y[rows, k] * 32).astype(int), (scene.x[rows, k] * 32).astype(int)]
        np.testing.assert_array_equal(pixel, palette[scene.colour[rows, k]])


def test_rendering_is_fast_enough_for_training():
    source = Shapes("train", 16)
    source.read(range(64))
    start = time.process_time()
    for k in range(10):
        source.read(range(64 * k, 64 * k + 64))
    assert 640 / (time.process_time() - start) > 5000
