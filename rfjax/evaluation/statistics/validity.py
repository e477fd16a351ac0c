"""Whether numbers from a file can be what the file says they are."""

from pathlib import Path

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64, Shaped

from rfjax.errors import UserError
from rfjax.evaluation.statistics.frechet import Gaussian

ASYMMETRY = 1e-5  # of the largest value: above what float32 leaves
LEAST_EIGENVALUE = 1e-5  # below 0, of the largest variance: above what float32 leaves of 2,048 features


def checked(
    path: Path,
    output: str,
    values: tuple[Shaped[np.ndarray, "..."], Shaped[np.ndarray, "..."]],
    width: int,
    count: int,
) -> Gaussian:
    """A mean and covariance from a file.

    Raises:
        UserError: if they have another width, are not finite, not symmetric, or negative in some direction.
    """
    mean, covariance = values
    if mean.shape != (width,) or covariance.shape != (width, width):
        raise UserError(
            f"{path} holds a mean of {mean.shape} and a covariance of {covariance.shape}, and '{output}' has {width:,} "
            "features: they are of another network or layer"
        )
    mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise UserError(f"{path} holds NaN or infinity in its statistics of '{output}': make them again")
    if np.abs(covariance - covariance.T).max() > ASYMMETRY * np.abs(covariance).max():
        raise UserError(f"{path} holds a covariance of '{output}' that is not symmetric: make it again")
    if _negative(covariance):
        raise UserError(f"{path} holds a covariance of '{output}' with negative eigenvalues: make it again")
    return Gaussian(mean, covariance, count)


def checked_features(path: Path, features: Shaped[np.ndarray, "..."], width: int) -> Float[np.ndarray, "n F"]:
    """Features from a file, in float32.

    Raises:
        UserError: if they have another width or are not finite.
    """
    if features.ndim != 2 or features.shape[1] != width or len(features) < 2:
        raise UserError(f"{path} holds features of {features.shape}, not of (pictures, {width}): of another network")
    if not np.isfinite(features).all():
        raise UserError(f"{path} holds NaN or infinity in its features: make them again")
    return features.astype(np.float32)


def _negative(covariance: Float64[np.ndarray, "F F"]) -> bool:
    """Whether an eigenvalue is below 0 by more than rounding: whether Cholesky fails with that much added."""
    allowed = LEAST_EIGENVALUE * max(float(np.diag(covariance).max()), 0.0) + np.finfo(np.float64).tiny
    try:
        scipy.linalg.cholesky(covariance + allowed * np.eye(len(covariance)), lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return True
    return False
