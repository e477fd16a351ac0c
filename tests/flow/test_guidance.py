from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import flow
from rfjax.conditioning import TextConditioning
from rfjax.errors import UserError


class Asked:
    """A network that adds the means of its text to z, and notes the batches that it sees."""

    def __init__(self):
        self.batches = []

    def __call__(self, z, time, cond):
        assert z.shape[:1] == time.shape == cond.context.shape[:1] == cond.pooled.shape[:1]
        self.batches.append(z.shape[0])
        return z + time[:, None] + cond.context.mean((1, 2))[:, None] + cond.pooled.mean(1)[:, None]


TEXT = TextConditioning(jnp.ones((3, 2, 2)), jnp.ones((3, 2)))
Z, TIME = jnp.arange(12.0).reshape(3, 4), jnp.array([0.1, 0.2, 0.3])


def ask(guidance, now=0.5):
    network = Asked()
    out = flow.guided(network, TEXT, guidance)(Z, TIME, jnp.float32(now)) - Z - TIME[:, None]
    return out, network.batches


@pytest.mark.parametrize("scale", [0.0, 2.5, 5.0])
def test_both_branches_go_through_the_network_as_one_batch(scale):
    out, batches = ask(flow.Guidance(scale))
    np.testing.assert_allclose(out, 2 * scale, atol=1e-5)  # the text adds 2, its absence 0
    assert batches == [6]


def test_scale_1_asks_for_the_conditional_half_only():
    out, batches = ask(flow.Guidance(1.0))
    np.testing.assert_allclose(out, 2, atol=1e-5)
    assert batches == [3]
    assert ask(flow.Guidance(1))[1] == [3]


def test_a_traced_scale_of_1_is_the_same():
    found = jax.jit(lambda scale: ask(flow.Guidance(scale))[0])(jnp.float32(1))
    np.testing.assert_allclose(found, 2, atol=1e-5)


@pytest.mark.parametrize(("now", "on"), [(0.0, True), (0.3, True), (0.7, True), (0.70001, False), (1.0, False)])
def test_guidance_is_on_inside_its_interval_only(now, on):
    """REPA's [0, 0.7]: the ends belong to it, the noisiest part is conditional."""
    out, _ = ask(flow.Guidance(5.0, high=0.7), now)
    np.testing.assert_allclose(out, 10 if on else 2, atol=1e-5)


def test_outside_the_interval_the_batch_is_not_doubled():
    sizes = []

    def network(z, time, cond):
        jax.debug.callback(lambda: sizes.append(z.shape[0]))
        return z

    bound = flow.guided(network, TEXT, flow.Guidance(5.0, low=0.2, high=0.7))
    for now in (0.1, 0.2, 0.5, 0.9):
        jax.block_until_ready(bound(Z, TIME, jnp.float32(now)))
        jax.effects_barrier()
    assert sizes == [3, 6, 6, 3]


def test_only_the_first_channels_are_guided():
    """DiT's and SiT's 3 of 4 channels; the last is conditional."""
    out, _ = ask(flow.Guidance(5.0, channels=3))
    np.testing.assert_allclose(out, np.broadcast_to([10, 10, 10, 2], (3, 4)), atol=1e-5)
    np.testing.assert_allclose(ask(flow.Guidance(5.0, channels=4))[0], 10, atol=1e-5)


def test_three_guided_channels_by_the_facts():
    """A 3-channel scale 1 + x moves the mean over 4 channels as a 4-channel one of 1 + 3 x / 4 does (DiT #12)."""
    three, four = ask(flow.Guidance(1.5, channels=3))[0], ask(flow.Guidance(1.375))[0]
    assert float(three.mean()) == pytest.approx(float(four.mean()), rel=1e-5)


def test_an_unconditional_model_cannot_be_guided():
    plain = lambda z, time: z * 2  # noqa: E731
    np.testing.assert_array_equal(flow.guided(plain, None, flow.Guidance())(Z, TIME, jnp.float32(0.5)), Z * 2)
    with pytest.raises(UserError, match="guidance needs a model with text"):
        flow.guided(plain, None, flow.Guidance(2.0))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: flow.Guidance(2.0, low=0.8, high=0.2), r"interval within \[0, 1\], not \[0\.8, 0\.2\]"),
        (lambda: flow.Guidance(2.0, high=1.5), r"interval within \[0, 1\], not \[0, 1\.5\]"),
        (lambda: flow.Guidance(2.0, channels=0), "at least one channel, not 0"),
    ],
)
def test_guidance_that_is_none_is_refused(make, words):
    with pytest.raises(UserError, match=words):
        make()


def test_any_conditioning_can_be_guided():
    """A class of one's own that keeps the contract: its leaves and its null are all that guidance reads."""

    class Depth(flax.struct.PyTreeNode):
        map: Any

        @property
        def groups(self):
            return 1

        def drop(self, keep):
            return self.replace(map=self.map * keep)

        def null(self):
            return self.replace(map=-jnp.ones_like(self.map))

    network = lambda z, time, cond: z + cond.map  # noqa: E731
    found = flow.guided(network, Depth(2 * jnp.ones((3, 4))), flow.Guidance(3.0))(Z, TIME, jnp.float32(0.5))
    np.testing.assert_allclose(found, Z - 1 + 3 * (2 + 1), rtol=1e-6)


def test_guiding_the_prediction_is_guiding_the_drift():
    """REPA guides the drift of its SDE, which is linear in the prediction: the same for every prediction."""
    made = flow.formulation("v/cos")
    at = made.coefficients(jnp.float32(0.4))
    z, text, none = (jax.random.normal(jax.random.key(k), (2, 3)) for k in range(3))

    def drift(value):
        x0, eps = flow.Denoiser(lambda z, time, t: value, made).predict(z, at)
        return at.da_ds * x0 + (at.db_ds + at.b) * eps  # v - w / 2 score with w = 2 b^2

    guided = drift(none + 3 * (text - none))
    np.testing.assert_allclose(guided, drift(none) + 3 * (drift(text) - drift(none)), rtol=1e-4, atol=1e-5)
