"""A fingerprint of weights: the same wherever they lie, another for any other weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rfjax.tensors.fingerprint import SAMPLES, fingerprint_of
from rfjax.tensors.safetensors import write_safetensors


def write(path, tensors, **options):
    write_safetensors(path, tensors.items(), tensors, **options)
    return path


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    shapes = {"a": (40, 30), "b": (3000,), "c": (), "d": (0, 4), "e": (2, 3, 500)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_files_and_shards_do_not_count(tensors, tmp_path):
    file = fingerprint_of(write(tmp_path / "x.safetensors", tensors))
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder", dict(reversed(tensors.items())), max_shard_bytes=5000)
    assert len(list((tmp_path / "folder").glob("*.safetensors"))) > 1
    assert fingerprint_of(tmp_path / "folder") == file


@settings(max_examples=20, deadline=None)
@given(name=st.sampled_from("abe"), place=st.integers(0, SAMPLES - 1))
def test_another_number_at_a_place_that_is_looked_at_is_another_network(tensors, tmp_path_factory, name, place):
    folder = tmp_path_factory.mktemp("x")
    changed = {key: value.copy() for key, value in tensors.items()}
    values = changed[name]
    values[(place * len(values) // SAMPLES,) + (0,) * (values.ndim - 1)] += 1
    one = fingerprint_of(write(folder / "one.safetensors", tensors))
    assert fingerprint_of(write(folder / "two.safetensors", changed)) != one


def test_names_types_and_shapes_count(tensors, tmp_path):
    marks = [fingerprint_of(write(tmp_path / "0.safetensors", tensors))]
    for i, change in enumerate(
        ({"f": tensors["a"]}, {"a": tensors["a"].astype(np.float16)}, {"a": tensors["a"].reshape(30, 40)}), 1
    ):
        marks.append(fingerprint_of(write(tmp_path / f"{i}.safetensors", tensors | change)))
    assert len(set(marks)) == 4
