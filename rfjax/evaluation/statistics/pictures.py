"""PSNR and SSIM of pictures beside their originals, a number a picture; `means.mean_of` gives mean and error.

Pixels are uint8. Rounding an autoencoder's output to uint8 first changes the second decimal of a high PSNR, so say it.
"""

import numpy as np
from jaxtyping import Float64, UInt8

from rfjax.errors import UserError

RANGE = 255.0  # of pixels
TAPS, SIGMA = 11, 1.5  # Wang et al. 2004: the window
K1, K2 = 0.01, 0.03  # the constants, in units of the range


def psnr(images: UInt8[np.ndarray, "n H W C"], originals: UInt8[np.ndarray, "m h w c"]) -> Float64[np.ndarray, " n"]:
    """10 log10(255^2 / MSE) of each picture, in dB; the MSE is over pixels and channels. Infinite for equal pictures.

    Raises:
        UserError: for pictures of different shapes.
    """
    _check(images, originals, 1)
    errors = np.array([np.mean((a.astype(np.float64) - b) ** 2) for a, b in zip(images, originals, strict=True)])
    with np.errstate(divide="ignore"):
        return 10 * np.log10(RANGE**2 / errors)


def ssim(images: UInt8[np.ndarray, "n H W C"], originals: UInt8[np.ndarray, "m h w c"]) -> Float64[np.ndarray, " n"]:
    """The mean structural similarity of each picture (Wang et al. 2004), over channels and pixels with a whole window.

    A Gaussian window of 11 taps and sigma 1.5, population covariances, K = 0.01 and 0.03, as torchmetrics computes it
    and scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255. scikit-image's
    defaults (a uniform window of 7) give another number.

    Raises:
        UserError: for pictures of different shapes, or below 11 pixels a side.
    """
    _check(images, originals, TAPS)
    return np.array([_ssim(a, b) for a, b in zip(images, originals, strict=True)])


def _ssim(a: UInt8[np.ndarray, "H W C"], b: UInt8[np.ndarray, "H W C"]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    mean_x, mean_y = _blur(x), _blur(y)
    square, product = mean_x**2 + mean_y**2, mean_x * mean_y
    variance = _blur(x * x + y * y) - square
    covariance = _blur(x * y) - product
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    return float(np.mean((2 * product + c1) * (2 * covariance + c2) / ((square + c1) * (variance + c2))))


def _blur(x: Float64[np.ndarray, "H W C"]) -> Float64[np.ndarray, "h w C"]:
    """The window's mean around each pixel that is 5 pixels or more from the edge."""
    places = np.arange(TAPS) - TAPS // 2
    taps = np.exp(-(places**2) / (2 * SIGMA**2))
    taps /= taps.sum()
    height, width = len(x) - TAPS + 1, x.shape[1] - TAPS + 1
    x = sum(tap * x[i : i + height] for i, tap in enumerate(taps))
    return sum(tap * x[:, i : i + width] for i, tap in enumerate(taps))


def _check(images: UInt8[np.ndarray, "n H W C"], originals: UInt8[np.ndarray, "m h w c"], least: int) -> None:
    if images.shape != originals.shape:
        raise UserError(f"Pictures of shape {images.shape} can't be compared with originals of {originals.shape}.")
    if min(images.shape[1:3]) < least:
        raise UserError(f"Pictures must have {least} pixels a side or more, not {images.shape[1]} x {images.shape[2]}.")
