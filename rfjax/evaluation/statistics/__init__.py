"""The numbers of evaluation as functions of arrays: what each metric computes from features, and how far off it may be.

On the host, in float64, unless a protocol says otherwise. Each function's docstring names its protocol: whose code
computes the number so, with which constants. Standard errors are over the generated pictures: the reference is taken
as it is, because all models are compared to the same one. What another reference would change is in
`extras["reference_stderr"]` where it is known.

    moments          count, mean and scatter of features, streamed
    frechet          the Fréchet distance (FID, sFID, CLIP-FID, FD-DINOv2), its error; extrapolation: to infinitely many
    inception_score  IS
    neighbours       precision and recall; prdc: density and coverage
    kernels          KID and CMMD
    means            the CLIP score, and means of pictures that share prompts
    pictures         PSNR and SSIM
    references       files of reference statistics, ours and (`foreign`) those of other projects
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Shaped

from rfjax.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """A number with its sampling error.

    Attributes:
        value: in the units that the function's docstring gives.
        stderr: the standard error over generated pictures; NaN where it is unknown.
        extras: other numbers of the same measurement, by name.
        notes: sentences that a page should show beside the number.
    """

    value: float
    stderr: float = math.nan
    extras: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_features(features: Shaped[np.ndarray, "..."], least: int, what: str) -> None:
    """Raises UserError unless there are `least` rows or more, of one width and with finite values.

    Args:
        features: one row a picture.
        least: rows that the number needs.
        what: the number's name, for the message: "A Fréchet distance".
    """
    if features.ndim != 2:
        raise UserError(f"{what} needs features of shape (pictures, features), not {features.shape}.")
    if len(features) < least:
        raise UserError(f"{what} needs at least {least} images of each kind, not {len(features)}.")
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise UserError(f"{int((~finite).sum())} of {len(features)} feature vectors hold NaN or infinity.")


def check_pair(a: Shaped[np.ndarray, "..."], b: Shaped[np.ndarray, "..."], least: int, what: str) -> None:
    """Raises UserError unless both are as `check_features` wants them, and equally wide."""
    for features in (a, b):
        check_features(features, least, what)
    check_widths(a.shape[1], b.shape[1])


def check_widths(a: int, b: int) -> None:
    """Raises UserError for two numbers of features that differ."""
    if a != b:
        raise UserError(f"These are different features: {a} and {b} of them.")


def jackknife(values: Shaped[np.ndarray, " n"]) -> float:
    """The standard error by the jackknife, from the n values of the statistic that leave out one picture each.

    Efron & Stein 1981: its square is on average not below the variance, and is the variance to first order.
    """
    n = len(values)
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))
