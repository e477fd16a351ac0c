import numpy as np
import pytest
from PIL import Image

from rfjax.evaluation import montage


def test_a_montage_has_a_cell_for_each_picture_and_keeps_pixels_sharp(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    captions = ["a red circle", "a very long caption that has to be broken into several lines of text", "", "x", "y"]
    montage.save(tmp_path, "ema", images, captions)
    sheet, tiles = Image.open(tmp_path / "ema.png"), Image.open(tmp_path / "ema_tiles.png")
    assert sheet.width > 4 * 128
    assert sheet.height > 2 * 128
    np.testing.assert_array_equal(np.asarray(sheet)[8:136:8, 8:136:8], images[0])
    np.testing.assert_array_equal(np.asarray(tiles)[:, 32:48], images[2])
    montage.save(tmp_path, "grey", images[..., :1], captions)
    assert Image.open(tmp_path / "grey_tiles.png").mode == "L"


@pytest.mark.parametrize(("shape", "room", "expected"), [
    ((16, 32), 128, (128, 64)), ((32, 16), 128, (64, 128)), ((128, 128), 128, (128, 128)),
    ((99, 99), 128, (99, 99)), ((256, 128), 128, (64, 128)), ((256, 128), 256, (128, 256)),
])  # fmt: skip
def test_tiles_keep_their_shape(shape, room, expected):
    assert montage.tile(np.zeros((*shape, 3), np.uint8), room).size == expected


def test_a_montage_of_wide_pictures_has_a_note_above_and_pixels_that_are_sharp():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 16, 3), dtype=np.uint8)
    plain, noted = (montage.montage(images, ["a", "b", "c"], 2, note) for note in ("", "drawn " * 30))
    lines = (noted.height - plain.height) // montage.LINE
    assert lines > 1
    assert (noted.height - plain.height) % montage.LINE == 0
    top = 8 + lines * montage.LINE
    np.testing.assert_array_equal(np.asarray(noted)[top : top + 64 : 8, 8:136:8], images[0])
    np.testing.assert_array_equal(np.asarray(noted)[top : top + 64 : 8, 144:272:8], images[1])


def test_latents_are_shown_by_their_principal_components():
    random = np.random.default_rng(0)
    scores = random.normal(size=(2, 8, 6, 3)) * (9, 3, 1)
    axes = np.linalg.qr(random.normal(size=(16, 3)))[0]
    latents = (scores @ axes.T + 5).astype(np.float32)
    found = montage.principal_components(latents)
    for i in range(3):
        assert abs(np.corrcoef(found[..., i].ravel(), scores[..., i].ravel())[0, 1]) > 0.95
    np.testing.assert_allclose(found.reshape(-1, 3).std(0), 1 / 2.5, rtol=1e-4)
    np.testing.assert_allclose(montage.principal_components(latents[..., :2])[..., 2], 0)
    shown = montage.preview(np.where(np.arange(16) == 3, np.nan, latents))
    assert (shown.shape, shown.dtype) == ((2, 8, 6, 3), np.uint8)
    assert (montage.preview(np.full((1, 2, 2, 3), np.nan, np.float32)) == 128).all()
