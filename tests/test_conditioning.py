import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax import flow
from rfjax.conditioning import Conditioning, Group, TextConditioning
from rfjax.encoders.text import Labels, Stored, WordVectors
from rfjax.models import Inputs
from rfjax.objectives.flow_matching import FlowMatching

# Two encoders that share the first tokens, half of the channels each, and one that has the other tokens.
THREE = (Group((0, 2), (0, 3), (0, 2)), Group((0, 2), (3, 6), (2, 4)), Group((2, None), (0, None), (0, 0)))


def ones(n):
    return TextConditioning(jnp.ones((n, 4, 6)), jnp.ones((n, 4)), THREE)


def test_three_encoders_drop_independently_and_their_parts_go_together():
    n = 20_000
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), ones(1))
    formulation, inputs = flow.formulation("rf").arrays, Inputs((1, 1, 1), example)
    sample = lambda key: FlowMatching(0.464).sample_noise(formulation, key, inputs)  # noqa: E731
    noise = jax.jit(jax.vmap(sample))(jax.random.split(jax.random.key(5), n))
    dropped = ones(n).drop(noise.keep)
    context, pooled = np.asarray(dropped.context), np.asarray(dropped.pooled)
    kept = np.stack([context[:, 0, 0], context[:, 0, 3], context[:, 2, 0]], axis=1)
    np.testing.assert_array_equal(kept, noise.keep)
    for i, (tokens, channels, vector) in enumerate(THREE):
        np.testing.assert_array_equal(
            context[:, slice(*tokens), slice(*channels)],
            np.broadcast_to(kept[:, i, None, None], (n, 2, 6 if i == 2 else 3)),
        )
        if i < 2:
            np.testing.assert_array_equal(pooled[:, slice(*vector)], np.broadcast_to(kept[:, i, None], (n, 2)))
    assert kept.mean(0) == pytest.approx(1 - 0.464, abs=4 * 0.5 / n**0.5)
    # 0.464^3 = 9.99 % fully unconditional (SD3 App. B.3)
    assert (kept.sum(1) == 0).mean() == pytest.approx(0.0999, abs=4 * 0.3 / n**0.5)


def test_what_keeps_nothing_is_the_null():
    given = ones(3)
    null, dropped = given.null(), given.drop(jnp.zeros((3, 3), bool))
    assert jax.tree.structure(null) == jax.tree.structure(given)  # the parts too, which are no leaves
    jax.tree.map(np.testing.assert_array_equal, null, dropped)
    assert not any(leaf.any() for leaf in jax.tree.leaves(null))
    jax.tree.map(np.testing.assert_array_equal, given.drop(jnp.ones((3, 3), bool)), given)


ENCODERS = {
    "words": WordVectors(8, 6, 8),
    "words of three": WordVectors(9, 6, 8, 3),
    "sd3": Stored(154, 4096, 2048),
    "one": Stored(8, 6, 8, "one"),
    "labels": Labels(10),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_groups_of_an_encoder_are_all_of_its_text_and_do_not_overlap(name, dtype):
    shapes = ENCODERS[name].output
    text = jax.tree.map(lambda x: jnp.ones((shapes.groups, *x.shape), dtype), shapes)
    assert isinstance(text, Conditioning)
    if name == "sd3":  # CLIP's tokens are filled up with zeros, which are nobody's
        text = text.replace(context=text.context.at[:, :77, 2048:].set(0))
    alone = text.drop(jnp.eye(shapes.groups, dtype=bool))  # row i keeps the encoder i
    for found, whole in zip(jax.tree.leaves(alone), jax.tree.leaves(text), strict=True):
        assert found.dtype == jnp.dtype(dtype)
        np.testing.assert_array_equal(found.astype(jnp.float32).sum(0), whole[0].astype(jnp.float32))


@given(st.lists(st.booleans(), min_size=3, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3))
def test_dropping_twice_is_dropping_what_either_drops(first, second):
    first, second = jnp.array([first]), jnp.array([second])
    twice = ones(1).drop(first).drop(second)
    jax.tree.map(np.testing.assert_array_equal, twice, ones(1).drop(first & second))
