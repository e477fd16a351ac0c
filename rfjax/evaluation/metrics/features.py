"""Image features for the Fréchet distance on `shapes`: fixed, documented, no download, 47 numbers an image.

FID's 2,048 features come from a network that was trained on photographs, and want tens of thousands of images. These
are few, so that some hundred images do, and each has a meaning. With pixels from 0 to 1 and an image of S x S:

    layout, 12      mean of red, green and blue in each quadrant: where things are, and how bright.
    detail, 15      root of the mean absolute Haar coefficient at 3 scales (blocks of 2, 4, 8 pixels), of brightness
                    across, down and diagonally, and of two colour differences in all directions: noise and blur.
    palette, 8      root of the share of pixels that have each of the set's colours, by a Gaussian window around it:
                    which colours there are.
    outline, 11     of the foreground (pixels whose largest channel is 130 or more of 255; every background is darker,
                    every colour brighter): root of its share of the image, and of the number of its outline's
                    pieces per S, which are vertical, horizontal, convex corners in 4 directions and concave corners in
                    4: which shapes there are. A piece is a 2 x 2 window with one to three pixels of foreground.
    objects, 1      the root, signed, of the foreground's Euler number (objects less holes), at most 8: how many.

The outline and the Euler number are Gray's bit quads (S. B. Gray, "Local properties of binary images in two
dimensions", 1971). Roots even out what an object that is twice as large adds. WEIGHTS set the groups against one
another so that the sampling error of none hides what another shows.
"""

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from rfjax.data.shapes import COLOURS
from rfjax.errors import UserError

WEIGHTS = {"layout": 0.5, "detail": 0.7, "palette": 1.0, "outline": 1.0, "objects": 1.0}
COUNT = 47
_SCALES = 3
_WINDOW = 0.15  # width of a colour's window, in units of the range of a channel
_FOREGROUND = 130
_MAX_EULER = 8.0  # noise has hundreds
_CHUNK = 512  # images at a time: keeps the memory small


def check_images(images: Shaped[np.ndarray, "..."], channels: tuple[int, ...] = (1, 3)) -> None:
    """Raises UserError unless `images` are uint8 (n, H, W, C), with C among `channels`, of at least 8 pixels a side."""
    if np.issubdtype(images.dtype, np.floating) and not np.isfinite(images).all():
        raise UserError("Images to score hold NaN or infinity: the model that drew them has diverged.")
    if images.dtype != np.uint8:
        raise UserError(f"Images to score must be uint8 pixels from 0 to 255 (codec.to_pixels), not {images.dtype}.")
    if images.ndim != 4 or images.shape[-1] not in channels or min(images.shape[1:3]) < 2**_SCALES:
        wanted = " or ".join(map(str, channels))
        raise UserError(
            f"Images to score must be (n, H, W, C) with C = {wanted}, and 8 pixels a side or more, not {images.shape}."
        )


def shapes_features(images: Shaped[np.ndarray, "n H W C"]) -> Float32[np.ndarray, "n 47"]:
    """The 47 features above of uint8 images with 3 channels of any size from 8 pixels; a pure function of each image.

    Raises UserError for another type or shape, and for NaN.
    """
    check_images(images, channels=(3,))
    chunks = [_features(images[i : i + _CHUNK]) for i in range(0, len(images), _CHUNK)]
    return np.concatenate(chunks or [np.zeros((0, COUNT), np.float32)])


def _features(images: Shaped[np.ndarray, "n H W 3"]) -> Float32[np.ndarray, "n 47"]:
    scaled = images.astype(np.float32) / 255
    quadrants = [part for half in np.array_split(scaled, 2, axis=1) for part in np.array_split(half, 2, axis=2)]
    red, green, blue = np.moveaxis(scaled, -1, 0)
    opponents = np.stack([(red + green + blue) / 3, red - blue, green - (red + blue) / 2], axis=-1)
    outline, objects = _outline(images.max(axis=-1) >= _FOREGROUND)
    groups = {
        "layout": np.concatenate([part.mean(axis=(1, 2)) for part in quadrants], axis=1),
        "detail": detail(opponents),
        "palette": _palette(scaled),
        "outline": outline,
        "objects": objects,
    }
    return np.concatenate([WEIGHTS[name] * group for name, group in groups.items()], axis=1).astype(np.float32)


def detail(z: Float32[np.ndarray, "n H W C"]) -> Float32[np.ndarray, "n F"]:
    """Root of the mean absolute Haar coefficient at 3 scales, F = 3 (C + 2); 8 pixels a side or more.

    At each scale, the finest first: channel 0 across, down and diagonally, then each other channel, all directions
    added. In the root of z's units.
    """
    found = []
    for _ in range(_SCALES):
        z = z[:, : z.shape[1] // 2 * 2, : z.shape[2] // 2 * 2]  # an odd last row or column is left out
        a, b, c, d = z[:, ::2, ::2], z[:, ::2, 1::2], z[:, 1::2, ::2], z[:, 1::2, 1::2]
        coefficients = (a - b + c - d, a + b - c - d, a - b - c + d)  # of an orthonormal transform, twice over
        across, down, diagonal = (np.abs(part).mean(axis=(1, 2)) / 2 for part in coefficients)
        found += [across[:, 0], down[:, 0], diagonal[:, 0], *(across + down + diagonal)[:, 1:].T]
        z = (a + b + c + d) / 4
    return np.sqrt(np.stack(found, axis=1))


def _palette(x: Float32[np.ndarray, "n H W 3"]) -> Float32[np.ndarray, "n 8"]:
    colours = np.array(list(COLOURS.values()), np.float32) / 255
    squares = (x**2).sum(axis=-1)[..., None] - 2 * (x @ colours.T) + (colours**2).sum(axis=-1)
    return np.sqrt(np.exp(squares / (-2 * _WINDOW**2)).mean(axis=(1, 2)))


def _outline(mask: Bool[np.ndarray, "n H W"]) -> tuple[Float32[np.ndarray, "n 11"], Float32[np.ndarray, "n 1"]]:
    """The outline's pieces and the Euler number, from counts of 2 x 2 windows, the image framed with background."""
    framed = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    a, b, c, d = framed[:, :-1, :-1], framed[:, :-1, 1:], framed[:, 1:, :-1], framed[:, 1:, 1:]
    on = a.astype(np.int8) + b + c + d
    count = lambda windows: windows.sum(axis=(1, 2), dtype=np.float32)  # noqa: E731
    convex = [count((on == 1) & corner) for corner in (a, b, c, d)]
    concave = [count((on == 3) & ~corner) for corner in (a, b, c, d)]
    straight = [count((on == 2) & (a == c)), count((on == 2) & (a == b))]
    touching = count((on == 2) & (a == d))
    euler = np.clip((sum(convex) - sum(concave) + 2 * touching) / 4, -_MAX_EULER, _MAX_EULER)
    side = np.sqrt(mask.shape[1] * mask.shape[2])
    pieces = [mask.mean(axis=(1, 2)), *(part / side for part in straight + convex + concave)]
    outline = np.sqrt(np.stack(pieces, axis=1))
    return outline.astype(np.float32), (np.sign(euler) * np.sqrt(np.abs(euler)))[:, None].astype(np.float32)
