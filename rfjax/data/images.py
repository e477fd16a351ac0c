"""Pictures to arrays: decode, resize, crop. Pillow and numpy only; every function is pure.

Resizing is Pillow's bicubic filter, which widens its support when it shrinks a picture (antialiasing).
"""

import io
from typing import Literal, get_args

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from rfjax.errors import UserError, nearest

Resize = Literal["crop", "squash", "adm"]
RESIZES: tuple[str, ...] = get_args(Resize)
EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})

_FILTER = Image.Resampling.BICUBIC
_MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's mode
_16_TO_8_BITS = 65535 // 255
_TURNED = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
_LONGEST = 64  # times the shorter side, beyond which the longer one is cut before a crop, and not after


def check(image_size: int, channels: int, resize: str = "crop") -> None:
    """Refuses, with a UserError, a side, a number of channels or a way to resize that pictures can't have."""
    if image_size < 1:
        raise UserError(f"config.data.image_size must be at least 1 pixel, not {image_size}")
    if channels not in _MODES:
        raise UserError(f"config.data.channels must be 1 (grey) or 3 (red, green, blue), not {channels}")
    if resize not in RESIZES:
        raise UserError(f"config.data.resize = {resize!r} is not among its choices{nearest(resize, RESIZES)}")


def decode(data: bytes | memoryview, channels: int, at_least: int = 0) -> UInt8[np.ndarray, "H W C"]:
    """Decodes a picture, turned as its EXIF orientation says.

    Transparent pixels become white; 16-bit values are rounded to 8 bits; an animation gives its first frame.

    Args:
        data: the bytes of a PNG, JPEG, WebP or any other file that Pillow reads.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB).
        at_least: pixels; if above 0, a JPEG is decoded at the smallest of its scales 1, 1/2, 1/4, 1/8 that leaves both
            sides at least this long, which is several times faster for photographs.

    Raises:
        ValueError: with the reason in a few words, if the bytes are no whole picture.
    """
    return _to_array(_decode(data, channels, at_least))


def _decode(data: bytes | memoryview, channels: int, at_least: int) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if at_least:
                image.draft(None, (at_least, at_least))  # only a JPEG has other scales
            image.load()
            # Of these formats, this is where Pillow looks for an orientation, which takes time of a small picture.
            if image.format not in ("JPEG", "PNG") or not _TURNED.isdisjoint(image.info):
                ImageOps.exif_transpose(image, in_place=True)
            return _to_mode(image, channels)
    except UnidentifiedImageError as error:
        raise ValueError("not a picture that Pillow reads" if len(data) else "an empty file") from error
    except MemoryError:
        raise
    except Exception as error:  # a broken file raises nearly anything: OSError, SyntaxError, struct.error, IndexError
        raise ValueError(str(error) or type(error).__name__) from error


def _to_mode(image: Image.Image, channels: int) -> Image.Image:
    if image.mode == "F":
        raise ValueError("a picture of floats, whose range is not known")
    if image.mode.startswith("I"):  # "I;16" and kin; older Pillows read a 16-bit PNG as 32-bit "I"
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("a picture of 32-bit integers, whose range is not known")
        image = Image.fromarray(((values + _16_TO_8_BITS // 2) // _16_TO_8_BITS).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image.load()
    if image.mode == "LAB":  # Pillow converts it to grey only over red, green and blue
        image = image.convert("RGB")
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])


def _to_array(image: Image.Image) -> UInt8[np.ndarray, "H W C"]:
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def resize(image: UInt8[np.ndarray, "H W C"], height: int, width: int) -> UInt8[np.ndarray, "height width C"]:
    """The picture at another size (pixels), by the antialiased bicubic filter; C is 1 or 3."""
    whole = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return _to_array(_resize(whole, height, width))


def _resize(image: Image.Image, height: int, width: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), _FILTER)


def shorter_side_at(size: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) scaled so that the shorter is `size`, with the same aspect to the nearest pixel."""
    shorter = min(height, width)
    return max(size, round(height * size / shorter)), max(size, round(width * size / shorter))


def centre_crop(image: UInt8[np.ndarray, "H W C"], size: int) -> UInt8[np.ndarray, "size size C"]:
    """The middle `size` x `size` pixels; an odd margin is larger at the bottom or right. Small pictures: ValueError."""
    height, width = image.shape[:2]
    if min(height, width) < size:
        raise ValueError(f"no {size} x {size} crop in a picture of {height} x {width}")
    top, left = (height - size) // 2, (width - size) // 2
    return image[top : top + size, left : left + size]


def _shortened(image: Image.Image) -> Image.Image:
    """The middle of a very long picture: one of 1 x 100,000 pixels would be scaled to 256 x 25,600,000 to be cut."""
    most = _LONGEST * min(image.size)
    if max(image.size) <= most:
        return image
    left, top = ((side - min(side, most)) // 2 for side in image.size)
    return image.crop((left, top, left + min(image.width, most), top + min(image.height, most)))


def _halved(image: Image.Image, size: int) -> Image.Image:
    """The picture halved by a box filter until its shorter side is less than twice `size`."""
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    return image


def read(data: bytes | memoryview, size: int, channels: int, mode: Resize = "crop") -> UInt8[np.ndarray, "size size C"]:
    """Decodes a picture and fits it to (size, size, channels).

    "crop" scales the shorter side to `size` and cuts out the centre; "squash" changes the aspect. A JPEG is decoded at
    twice `size` or more, so that the antialiasing filter shrinks it. "adm" is the crop of ADM (Dhariwal and Nichol
    2021, `center_crop_arr` of guided-diffusion), from a JPEG at its full size.

    Raises:
        ValueError: if the bytes are no whole picture.
    """
    image, sides = _decode(data, channels, at_least=0 if mode == "adm" else 2 * size), (size, size)
    if mode != "squash":
        image = _shortened(image)
        sides = shorter_side_at(size, image.height, image.width)
    if mode == "adm":
        image = _halved(image, size)
        scale = size / min(image.size)  # rounded as ADM does, so that ties become the same
        sides = round(image.height * scale), round(image.width * scale)
    # An array only now, since each conversion makes threads wait for the interpreter.
    return np.ascontiguousarray(centre_crop(_to_array(_resize(image, *sides)), size))
