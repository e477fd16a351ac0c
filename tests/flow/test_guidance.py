import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import flow
from rfjax.training import step

THREE = (
    (slice(0, 2), slice(0, 3), slice(0, 2)),
    (slice(0, 2), slice(3, 6), slice(2, 4)),
    (slice(2, None), slice(None), slice(0, 0)),
)


def test_three_encoders_drop_independently_and_their_parts_go_together():
    n = 20_000
    keep = step.Recipe("rf", (1, 1, 1), 3, 0.464, 0).draw(jnp.int32(5), jnp.arange(n)).keep
    context, pooled = flow.drop_text(keep, jnp.ones((n, 4, 6)), jnp.ones((n, 4)), THREE)
    kept = np.stack([context[:, 0, 0], context[:, 0, 3], context[:, 2, 0]], axis=1)
    for i, (tokens, channels, vector) in enumerate(THREE):
        np.testing.assert_array_equal(
            context[:, tokens, channels], np.broadcast_to(kept[:, i, None, None], (n, 2, 6 if i == 2 else 3))
        )
        if i < 2:
            np.testing.assert_array_equal(pooled[:, vector], np.broadcast_to(kept[:, i, None], (n, 2)))
    assert kept.mean(0) == pytest.approx(1 - 0.464, abs=4 * 0.5 / n**0.5)
    # 0.464^3 = 9.99 % fully unconditional (SD3 App. B.3)
    assert (kept.sum(1) == 0).mean() == pytest.approx(0.0999, abs=4 * 0.3 / n**0.5)


def test_guidance_mixes_with_and_without_text():
    network = lambda z, t, context, pooled: z + context.mean((1, 2))[:, None] + pooled.mean(1)[:, None]  # noqa: E731
    context, pooled = jnp.ones((3, 2, 2)), jnp.ones((3, 2))
    z, t = jnp.arange(3.0)[:, None], jnp.zeros(3)
    np.testing.assert_allclose(flow.guided(network, context, pooled, 1.0)(z, t), z + 2)
    np.testing.assert_allclose(flow.guided(network, context, pooled, 0.0)(z, t), z)
    np.testing.assert_allclose(flow.guided(network, context, pooled, 5.0)(z, t), z + 10)
