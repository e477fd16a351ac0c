"""Decoding, resizing, and cropping, against what the pictures are by construction."""

import io
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from rfjax.data import images
from rfjax.errors import UserError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
sides = st.integers(1, 60)


def encode(image: Image.Image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def fit(array: np.ndarray, size: int, mode: images.Resize = "crop") -> np.ndarray:
    channels = array.shape[-1]
    return images.read(encode(Image.fromarray(array[..., 0] if channels == 1 else array)), size, channels, mode)


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, channels), np.uint8)


def thirds() -> np.ndarray:
    """Returns 30 x 90 pixels: a red, a green and a blue square, side by side."""
    return np.repeat(np.array([[RED, GREEN, BLUE]], np.uint8).repeat(30, axis=0), 30, axis=1)


@settings(max_examples=80, deadline=None)
@given(sides, sides, st.integers(1, 40), st.sampled_from(images.RESIZES), st.sampled_from([1, 3]), st.integers(0, 255))
def test_fit_gives_the_size_and_keeps_a_uniform_picture_uniform(height, width, size, mode, channels, value):
    fitted = fit(np.full((height, width, channels), value, np.uint8), size, mode)
    assert fitted.shape == (size, size, channels) and fitted.dtype == np.uint8 and fitted.flags.c_contiguous
    assert (fitted == value).all()  # the filter's weights sum to one


@settings(max_examples=80, deadline=None)
@given(sides, sides, st.integers(1, 40))
def test_the_shorter_side_becomes_the_size_and_the_aspect_stays(height, width, size):
    scaled = images.shorter_side_at(size, height, width)
    assert min(scaled) == size
    assert abs(max(scaled) - max(height, width) * size / min(height, width)) <= 0.5
    assert (scaled[0] >= scaled[1]) or width > height


@settings(max_examples=80, deadline=None)
@given(sides, sides, st.data())
def test_centre_crop_is_the_middle(height, width, data):
    size = data.draw(st.integers(1, min(height, width)))
    positions = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    crop = images.centre_crop(positions, size)
    before, after = crop[0, 0], np.array([height, width]) - 1 - crop[-1, -1]
    assert crop.shape == (size, size, 2)
    assert (after - before >= 0).all() and (after - before <= 1).all()


def test_centre_crop_refuses_a_small_picture():
    with pytest.raises(ValueError, match="no 8 x 8 crop in a picture of 4 x 9"):
        images.centre_crop(noise(4, 9), 8)


def test_crop_keeps_the_centre_and_squash_keeps_everything():
    assert (fit(thirds(), 30, "crop") == GREEN).all()
    assert (fit(thirds().transpose(1, 0, 2), 30, "crop") == GREEN).all()
    squashed = fit(thirds(), 30, "squash")
    assert [tuple(squashed[15, column]) for column in (3, 15, 26)] == [RED, GREEN, BLUE]


def test_shrinking_is_antialiased():
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    assert np.abs(fit(checkerboard, 8)[1:-1, 1:-1].astype(int) - 127).max() <= 2


def test_a_picture_of_the_size_is_untouched():
    image = noise(16, 16)
    np.testing.assert_array_equal(fit(image, 16), image)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation(orientation, upright):
    stored, exif = noise(5, 7), Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        images.decode(encode(Image.fromarray(stored), exif=exif), 3), upright(stored), err_msg=str(orientation)
    )


def test_transparency_is_laid_over_white():
    pixels = np.array([[(255, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 51)]], np.uint8)
    np.testing.assert_array_equal(
        images.decode(encode(Image.fromarray(pixels)), 3), [[(255, 255, 255), (255, 0, 0), (204, 204, 204)]]
    )
    grey = Image.fromarray(np.array([[(0, 0), (0, 255), (0, 51)]], np.uint8), mode=None)
    np.testing.assert_array_equal(images.decode(encode(grey), 1)[..., 0], [[255, 0, 204]])
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    np.testing.assert_array_equal(images.decode(encode(palette, transparency=0), 3), [[(255, 255, 255), (40, 50, 60)]])


def test_sixteen_bits_are_rounded_to_eight():
    values = np.array([[0, 128, 129, 257, 1000, 65535]], np.uint16)
    decoded = images.decode(encode(Image.fromarray(values)), 1)[0, :, 0]
    np.testing.assert_array_equal(decoded, np.rint(values[0] / 257))
    with pytest.raises(ValueError, match="32-bit integers"):
        images.decode(encode(Image.fromarray(np.array([[70000]], np.int32)), "TIFF"), 1)
    with pytest.raises(ValueError, match="floats"):
        images.decode(encode(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_gives_the_channels(mode, channels):
    form = {"CMYK": "TIFF"}.get(mode, "PNG")
    decoded = images.decode(encode(Image.new("RGB", (4, 3), "white").convert(mode), form), channels)
    assert decoded.shape == (3, 4, channels) and (decoded == 255).all()


def test_grey_is_luma():
    decoded = images.decode(encode(Image.fromarray(np.array([[RED, GREEN, BLUE]], np.uint8))), 1)
    np.testing.assert_allclose(decoded[0, :, 0], [0.299 * 255, 0.587 * 255, 0.114 * 255], atol=0.51)


def test_a_jpeg_is_decoded_no_smaller_than_asked():
    ramp = np.linspace(0, 255, 512).astype(np.uint8)
    photo = encode(Image.fromarray(np.tile(ramp, (256, 1))), "JPEG", quality=95)
    assert images.decode(photo, 1, at_least=50).shape == (64, 128, 1)
    assert images.decode(photo, 1, at_least=65).shape == (128, 256, 1)
    assert images.decode(photo, 1).shape == (256, 512, 1)
    full = fit(images.decode(photo, 1), 32)
    assert np.abs(images.read(photo, 32, 1).astype(int) - full).max() <= 2


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_cut_file_is_a_value_error(form):
    whole = encode(Image.fromarray(noise(40, 40)), form)
    with pytest.raises(ValueError, match=r".+"):
        images.decode(whole[: len(whole) // 2], 3)
    with pytest.raises(ValueError, match=r".+"):
        images.decode(whole[: len(whole) // 2], 3, at_least=1)


def test_what_is_no_picture_says_so():
    with pytest.raises(ValueError, match="an empty file"):
        images.decode(b"", 3)
    with pytest.raises(ValueError, match="not a picture that Pillow reads"):
        images.decode(b"<html>not found</html>", 3)


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds in damaged TIFF tags
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 150), st.binary(min_size=1, max_size=6), st.sampled_from(["PNG", "GIF", "TIFF"]))
def test_a_damaged_file_is_a_picture_or_a_value_error(place, damage, form):
    whole = encode(Image.fromarray(noise(6, 6)), form)
    try:
        decoded = images.decode(whole[:place] + damage + whole[place + len(damage) :], 3)
    except ValueError as error:
        assert str(error)
    else:
        assert decoded.shape[-1] == 3 and decoded.dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 3), "image_size"), ((8, 4), "channels"), ((8, 3, "sqash"), "did you mean 'squash'")],
)
def test_check_names_what_is_wrong(arguments, message):
    with pytest.raises(UserError, match=message):
        images.check(*arguments)


def lab(image: Image.Image) -> bytes:
    """The picture as a TIFF in CIE L*a*b*."""
    profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
    return encode(ImageCms.applyTransform(image, ImageCms.buildTransform(*profiles, "RGB", "LAB")), "TIFF")


def every_mode() -> dict[str, bytes]:
    """A picture in every mode that a file of these formats can have."""
    rng = np.random.default_rng(0)
    colour, deep = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)), rng.integers(0, 65536, (6, 8))
    made = {"LAB": lab(colour), "F": encode(Image.fromarray(deep.astype(np.float32)), "TIFF")}
    made |= {"I;16": encode(Image.fromarray(deep.astype(np.uint16)), "PNG"), "I": encode(colour.convert("I"), "TIFF")}
    made |= {"P, see-through": encode(colour.convert("P"), "PNG", transparency=0)}
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA"):
        made[mode] = encode(colour.convert(mode), "TIFF")
    return made


def test_a_picture_that_is_whole_in_colour_is_whole_in_grey_and_at_every_scale():
    for mode, data in every_mode().items():
        whole = set()
        for channels, at_least in ((1, 0), (3, 0), (1, 1), (3, 1)):
            try:
                whole.add(images.decode(data, channels, at_least).shape == (6, 8, channels))
            except ValueError:
                whole.add(False)
        assert whole == {mode != "F"}, mode


def adm(image: Image.Image, size: int) -> np.ndarray:
    """`center_crop_arr` of guided-diffusion, word for word but for its names."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    array = np.array(image)
    top, left = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[top : top + size, left : left + size]


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 150), st.integers(3, 150), st.integers(1, 24))
def test_the_crop_of_adm(height, width, size):
    array = noise(height, width)
    np.testing.assert_array_equal(fit(array, size, "adm"), adm(Image.fromarray(array), size))


def test_the_crop_of_adm_takes_a_jpeg_at_its_full_size():
    photo = encode(Image.fromarray(noise(100, 120)), "JPEG", quality=95)
    with Image.open(io.BytesIO(photo)) as image:
        np.testing.assert_array_equal(images.read(photo, 16, 3, "adm"), adm(image, 16))


def test_the_inks_of_a_jpeg_become_colours():
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow
    np.testing.assert_allclose(images.decode(encode(inks, "JPEG", quality=100), 3)[8, 8], RED, atol=3)


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (1, 1), (3, 1000)])
@pytest.mark.parametrize("mode", images.RESIZES)
def test_a_picture_of_any_shape_fits(shape, mode):
    assert (fit(np.full((*shape, 3), 200, np.uint8), 256, mode) == 200).all()  # whole, 20 GB for the longest


def test_cutting_a_very_long_picture_first_does_not_change_what_is_seen():
    array = np.random.default_rng(0).integers(0, 256, (4, 400, 3), np.uint8)
    whole = images._to_array(images._resize(Image.fromarray(array), 16, 1600))
    np.testing.assert_allclose(fit(array, 16).astype(int), images.centre_crop(whole, 16), atol=1)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_what_unpacks_to_too_much_is_a_value_error_and_takes_no_memory():
    head = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", (50_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0")
    small = encode(Image.new("RGB", (4, 4)))
    text = png_chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(2**26)))
    for bomb in (head + png_chunk(b"IDAT", zlib.compress(b"\0")), small[:33] + text * 3 + small[33:]):
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"decompression bomb|too large"):
            images.decode(bomb, 3)
        assert tracemalloc.get_traced_memory()[1] < 2**26
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_is_its_first_picture(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    assert (images.decode(data, 3) == RED).all()
