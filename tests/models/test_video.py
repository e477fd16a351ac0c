"""Videos (F, H, W, C): the same networks with patches of three sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import SMALL, VIDEO, arrays, gradients, jitted, random_parameters

from rfjax.errors import UserError
from rfjax.models import Inputs, build, measure
from rfjax.models.counting import abstract_parameters, traced_matmul_flops
from rfjax.models.positions import sincos, sincos_2d

EACH = pytest.mark.parametrize("backbone", ["mmdit", "dit", "crossdit"])


@EACH
def test_a_video_goes_through_and_every_frame_matters(backbone):
    model = build(backbone, 2, 8, patch=(1, 2, 2))
    params, (z, t, cond) = random_parameters(model, VIDEO), arrays(VIDEO)
    out = jitted(model)(params, z, t, cond)
    assert out.shape == z.shape
    for frame in (0, 3):
        moved = jitted(model)(params, z.at[:, frame].add(1), t, cond) - out
        assert (jnp.abs(moved).max((0, 2, 3, 4)) > 1e-4).all()  # attention is over all frames
    # A network without positions would turn with its frames.
    turned = jitted(model)(params, z[:, ::-1], t, cond)[:, ::-1]
    assert float(jnp.abs(turned - out).max()) > 1e-3
    _, gradient = gradients(model)(params, z, t, cond)
    assert float(jnp.abs(gradient["patch_embed"]["kernel"]).max()) > 0


@EACH
@pytest.mark.parametrize("patch", [(1, 2, 2), (2, 2, 4), (4, 8, 8)])
def test_flops_equal_every_product_in_the_trace(backbone, patch):
    model = build(backbone, 3, 12, patch=patch)
    params = abstract_parameters(model, VIDEO)
    traced = traced_matmul_flops(lambda p, *a: model.apply({"params": p}, *a), params, *VIDEO.abstract(5))
    assert measure(model, VIDEO).forward_flops * 5 == traced


@EACH
def test_a_video_of_one_frame_is_an_image_at_the_first_place(backbone):
    """But for the frame's position, [0 | 1], which is added to every token."""
    image, video = build(backbone, 2, 8), build(backbone, 2, 8, patch=(1, 2, 2))
    params, (z, t, cond) = random_parameters(image, SMALL), arrays(SMALL)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        jnp.shape, abstract_parameters(video, Inputs((1, *SMALL.shape), SMALL.cond))
    )
    first = np.concatenate([np.zeros(8), np.ones(8)]).astype(np.float32)
    embed = params["patch_embed"] | {"bias": params["patch_embed"]["bias"] + first}
    expected = jitted(image)(params | {"patch_embed": embed}, z, t, cond)
    np.testing.assert_allclose(jitted(video)(params, z[:, None], t, cond)[:, 0], expected, rtol=1e-4, atol=1e-4)


def test_a_place_in_a_video_is_its_frame_s_plus_its_place_in_the_frame():
    table = sincos((5, 3, 4), 16).reshape(5, 12, 16)
    waves = np.arange(5)[:, None] * 10_000 ** (-np.arange(8) / 8)
    frames = np.concatenate([np.sin(waves), np.cos(waves)], axis=1)
    np.testing.assert_allclose(table - sincos_2d(3, 4, 16), np.broadcast_to(frames[:, None], table.shape), atol=2e-7)
    np.testing.assert_array_equal(sincos((3, 4), 16), sincos_2d(3, 4, 16))


@EACH
def test_patches_of_another_number_of_axes_are_refused(backbone):
    with pytest.raises(UserError, match="4 x 8 x 8 has another number of axes than the patches of 2 x 2"):
        measure(build(backbone, 2, 8), VIDEO)
    with pytest.raises(UserError, match="can't be cut into patches of 3 x 2 x 2"):
        measure(build(backbone, 2, 8, patch=(3, 2, 2)), VIDEO)
