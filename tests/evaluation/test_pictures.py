import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rfjax import flow
from rfjax.evaluation import pictures


class Pointing(nn.Module):
    """For data that is exactly the text's value c, the velocity is (z - c) / t; the one weight scales c."""

    @nn.compact
    def __call__(self, z, t, context, pooled):
        scale = self.param("scale", nn.initializers.ones, ())
        return (z - scale * pooled[:, :1, None, None]) / t[:, None, None, None]


TEXT = (np.zeros((2, 1, 1), np.float32), np.array([[0.25], [-0.5]], np.float32))
TRAINED = pictures.Trained(Pointing(), {"scale": jnp.float32(1)}, flow.formulation("rf"), (4, 4, 3))


# The adaptive solver is as good as its tolerance; the SDE, which needs small steps, keeps noise of its last, 0.04.
TOLERANCE = {"dopri5": 5e-3, "euler_maruyama": 5 * 0.04}


@pytest.mark.parametrize("sampler", flow.SAMPLERS)
def test_drawing_follows_the_text(sampler):
    steps = 100 if sampler == "euler_maruyama" else 8
    for guidance, factor in ((1.0, 1.0), (2.0, 2.0)):
        settings = pictures.Settings(sampler, steps, flow.Guidance(guidance), schedule="repa", room=100)
        drawn = pictures.draw(TRAINED, np.arange(2, dtype=np.int32), TEXT, settings)
        np.testing.assert_allclose(drawn.z[0], 0.25 * factor, atol=TOLERANCE.get(sampler, 1e-5))
        np.testing.assert_allclose(drawn.z[1], -0.5 * factor, atol=TOLERANCE.get(sampler, 1e-5))


def test_one_program_serves_all_steps_scales_and_formulations():
    run = pictures.jit_sampler(Pointing(), "euler", "linear", flow.Guidance(0.0), (4, 4, 3))
    before = run._cache_size()
    for name, steps, scale in (("rf", 2, 2.0), ("rf", 8, 5.0), ("v/cos", 3, 2.0), ("edm(0,0.6)", 8, 3.0)):
        trained = pictures.Trained(TRAINED.model, TRAINED.params, flow.formulation(name), TRAINED.image)
        settings = pictures.Settings("euler", steps, flow.Guidance(scale), room=8)
        pictures.draw(trained, np.arange(2, dtype=np.int32), TEXT, settings)
    assert run._cache_size() <= before + 1


def test_seeds_share_a_program_and_seed_0_is_the_one_of_before():
    run = pictures.jit_sampler(Pointing(), "euler", "linear", flow.Guidance(0.0), (4, 4, 3))
    draw = lambda seed: pictures.draw(  # noqa: E731
        TRAINED, np.arange(2, dtype=np.int32), TEXT, pictures.Settings("euler", 2, flow.Guidance(2.0), seed=seed)
    )
    first = draw(0)
    programs = run._cache_size()
    other = draw(2**32 - 1)
    assert run._cache_size() == programs
    assert np.abs(first.length - other.length).max() > 1e-3
    np.testing.assert_array_equal(draw(0).length, first.length)
    # The first values of seed 0, recorded before there were other seeds.
    noise = np.asarray(pictures.noise(jnp.arange(2), (2, 2, 1))).ravel()
    np.testing.assert_array_equal(noise, np.asarray(pictures.noise(jnp.arange(2), (2, 2, 1), 0, jnp.uint32(0))).ravel())
    np.testing.assert_allclose(noise[:3], (-0.5747799873352051, 0.7998369932174683, -0.2596069872379303), rtol=1e-6)


def test_noise_of_a_picture_does_not_depend_on_how_many_there_are():
    few, many = (pictures.noise(jnp.arange(n), (2, 2, 1)) for n in (2, 3))
    np.testing.assert_array_equal(many[:2], few)
    assert np.abs(pictures.noise(jnp.arange(2), (2, 2, 1), 1) - few).max() > 0


def test_a_grid_has_a_cell_for_each_picture_and_keeps_pixels_sharp(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    captions = ["a red circle", "a very long caption that has to be broken into several lines of text", "", "x", "y"]
    pictures.save(tmp_path, "ema", images, captions)
    grid, tiles = Image.open(tmp_path / "ema.png"), Image.open(tmp_path / "ema_tiles.png")
    assert grid.width > 4 * 128
    assert grid.height > 2 * 128
    np.testing.assert_array_equal(np.asarray(grid)[8:136:8, 8:136:8], images[0])
    np.testing.assert_array_equal(np.asarray(tiles)[:, 32:48], images[2])
    pictures.save(tmp_path, "grey", images[..., :1], captions)
    assert Image.open(tmp_path / "grey_tiles.png").mode == "L"


@pytest.mark.parametrize(("shape", "room", "expected"), [
    ((16, 32), 128, (128, 64)), ((32, 16), 128, (64, 128)), ((128, 128), 128, (128, 128)),
    ((99, 99), 128, (99, 99)), ((256, 128), 128, (64, 128)), ((256, 128), 256, (128, 256)),
])  # fmt: skip
def test_tiles_keep_their_shape(shape, room, expected):
    assert pictures.tile(np.zeros((*shape, 3), np.uint8), room).size == expected


def test_a_grid_of_wide_pictures_has_a_note_above_and_pixels_that_are_sharp():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)
    plain, noted = (pictures.montage(images, ["a", "b", "c"], 2, note) for note in ("", "drawn " * 30))
    lines = (noted.height - plain.height) // pictures.LINE
    assert lines > 1
    assert (noted.height - plain.height) % pictures.LINE == 0
    top = 8 + lines * pictures.LINE
    np.testing.assert_array_equal(np.asarray(noted)[top : top + 64 : 8, 8:136:8], images[0])
    np.testing.assert_array_equal(np.asarray(noted)[top : top + 64 : 8, 144:272:8], images[1])


def test_latents_are_shown_by_their_principal_components():
    random = np.random.default_rng(0)
    scores = random.normal(size=(2, 8, 6, 3)) * (9, 3, 1)
    axes = np.linalg.qr(random.normal(size=(16, 3)))[0]
    latents = (scores @ axes.T + 5).astype(np.float32)
    found = pictures.principal_components(latents)
    for i in range(3):
        assert abs(np.corrcoef(found[..., i].ravel(), scores[..., i].ravel())[0, 1]) > 0.95
    np.testing.assert_allclose(found.reshape(-1, 3).std(0), 1 / 2.5, rtol=1e-4)
    np.testing.assert_allclose(pictures.principal_components(latents[..., :2])[..., 2], 0)
    shown = pictures.to_show(np.where(np.arange(16) == 3, np.nan, latents))
    assert (shown.shape, shown.dtype) == ((2, 8, 6, 3), np.uint8)
    assert (pictures.to_show(np.full((1, 2, 2, 3), np.nan, np.float32)) == 128).all()
