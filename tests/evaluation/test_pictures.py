import jax.numpy as jnp
import numpy as np
from PIL import Image

from rfjax import flow
from rfjax.evaluation import pictures


def test_drawing_follows_the_text_and_the_noise():
    """For data that is exactly the text's value c, the velocity is (z - c) / t."""
    network = lambda z, t, context, pooled: (z - pooled[:, :1, None, None]) / t[:, None, None, None]  # noqa: E731
    text = (jnp.zeros((2, 1, 1)), jnp.array([[0.25], [-0.5]]))
    noise = pictures.noise(2, (4, 4, 3))
    for guidance, factor in ((1.0, 1.0), (2.0, 2.0)):
        settings = pictures.Settings("euler", 4, guidance)
        drawn = pictures.draw(network, flow.formulation("rf"), noise, text, settings)
        np.testing.assert_allclose(drawn[0], 0.25 * factor, atol=1e-5)
        np.testing.assert_allclose(drawn[1], -0.5 * factor, atol=1e-5)


def test_noise_of_a_picture_does_not_depend_on_how_many_there_are():
    np.testing.assert_array_equal(pictures.noise(3, (2, 2, 1))[:2], pictures.noise(2, (2, 2, 1)))
    assert np.abs(pictures.noise(2, (2, 2, 1), seed=1) - pictures.noise(2, (2, 2, 1))).max() > 0


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
