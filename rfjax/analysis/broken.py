"""The broken power law: a power law whose exponent goes over into another about one size.

L(x) = A x^-alpha (1 + (x / x_break)^(1/f))^(-(alpha_2 - alpha) f), Caballero et al. 2022 (arXiv 2210.14891, equation 1)
with one break and no offset. Its sharpness f is fixed: a ladder's few rungs can't tell it.
"""

import numpy as np
from scipy.special import expit

from rfjax.analysis.engine import EXPONENTS, Array, Problem, Shape, lowest_minima

PARAMETERS = ("A", "alpha", "alpha_2", "x_break")
SMOOTHNESS = 0.5  # f: four fifths of the change of the exponent happen within a factor e^(4.4 f), 9, of the size
PLACES = 60  # of the break that are tried, evenly spaced in log x


def evaluate(theta: Array, log_x: Array) -> tuple[Array, Array]:
    """Values (n,) and Jacobian (n, 4) in (A at the centre, alpha, alpha_2, log(x_break / centre))."""
    amplitude, first, second, place = theta
    u = log_x[:, 0]
    above = _above(u, place)
    power = np.exp(-first * (u - above) - second * above)
    value = amplitude * power
    by_place = value * (second - first) * expit((u - place) / SMOOTHNESS)
    return value, np.stack([power, -value * (u - above), -value * above, by_place], axis=-1)


def _above(u: Array, place: Array | float) -> Array:
    """By how much log x lies above the break, smoothly 0 below it."""
    return SMOOTHNESS * np.logaddexp(0.0, (u - place) / SMOOTHNESS)


def _bounds(log_x: Array) -> tuple[Array, Array]:
    """Both exponents as every law's; the break leaves two sizes or more on either side."""
    u = np.unique(log_x[:, 0])
    low, high = EXPONENTS
    return np.array([0.0, low, low, u[1]]), np.array([np.inf, high, high, u[-2]])


def _starts(problem: Problem) -> list[Array]:
    """For each place of the break the logarithm of the law is linear in log A and both exponents."""
    low, high = problem.shape.bounds(problem.log_x)
    u, log_y = problem.log_x[:, 0], np.log(problem.y)
    places = np.linspace(low[-1], high[-1], PLACES)
    above = _above(u, places[:, None])
    columns = np.stack([np.ones_like(above), above - u, -above], axis=-1)
    rows = columns * problem.weights[:, None]
    gram = rows.mT @ rows + 1e-9 * np.eye(rows.shape[-1])
    found = np.linalg.solve(gram, (rows.mT @ (problem.weights * log_y))[..., None])[..., 0]
    exponents = np.clip(found[:, 1:], *EXPONENTS)
    rest = log_y - (columns[..., 1:] @ exponents[..., None])[..., 0]
    log_a = rest @ problem.weights**2 / np.sum(problem.weights**2)
    cost = np.sum((problem.weights * (rest - log_a[:, None])) ** 2, axis=-1)
    return [np.array([np.exp(log_a[i]), *exponents[i], places[i]]) for i in lowest_minima(cost)]


SHAPE = Shape(PARAMETERS, evaluate, _starts, _bounds)
