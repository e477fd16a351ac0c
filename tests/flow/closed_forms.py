"""The paths and formulations once more, in float64 and from the papers' closed forms, for the tests to hold ours to."""

import numpy as np
from scipy import special, stats

SIGMA_DATA = 0.5
HALF_PI = np.pi / 2
LDM_BETAS = np.linspace(np.sqrt(0.00085), np.sqrt(0.012), 1000) ** 2
ALPHA_BAR = np.cumprod(1 - LDM_BETAS)  # the float64 product of the facts, abar_0 ... abar_999
DDPM_BETAS = np.linspace(1e-4, 0.02, 1000)
QUIET = {"divide": "ignore", "invalid": "ignore", "over": "ignore"}


def _preserving(log_alpha, slope):
    """(a, b, da, db, log_snr) from L = log a^2 and dL/dt."""
    a, b = np.exp(log_alpha / 2), np.sqrt(-np.expm1(log_alpha))
    with np.errstate(**QUIET):
        return a, b, slope / 2 * a, np.where(b == 0, np.inf, -slope / 2 * a**2 / b), log_alpha - 2 * np.log(b)


def rf(t):
    s = 1 - t  # exact: t comes from float32
    with np.errstate(**QUIET):
        return s, t, -np.ones_like(t), np.ones_like(t), 2 * (np.log(s) - np.log(t))


def cosine(t):
    s = 1 - t
    a = np.where(t > 0.5, np.sin(HALF_PI * s), np.cos(HALF_PI * t))
    b = np.where(t > 0.5, np.cos(HALF_PI * s), np.sin(HALF_PI * t))
    with np.errstate(**QUIET):
        return a, b, -HALF_PI * b, HALF_PI * a, -2 * np.log(b / a)


def linear(t, betas=LDM_BETAS):
    step = np.clip(np.floor(t * 1000), 0, 999).astype(int)
    before = np.concatenate([[0.0], np.log(np.cumprod(1 - betas))])[step]
    slope = 1000 * np.log1p(-betas)[step]
    return _preserving(before + slope * (t - step / 1000), slope)


def ddpm(t):
    return linear(t, DDPM_BETAS)


def vp(t):
    return _preserving(-(t**2) * 19.9 / 2 - 0.1 * t, -(0.1 + 19.9 * t))


def _quantile(t):
    return np.where(t > 0.5, -special.ndtri(1 - t), special.ndtri(t))


def edm(t, mean=-1.2, std=1.2):
    z = _quantile(t)
    with np.errstate(**QUIET):
        b = np.exp(mean + std * z)
        db = np.where(np.isinf(z), np.inf, std * b / stats.norm.pdf(z))  # the inverse function's derivative
        return np.ones_like(t), b, np.zeros_like(t), db, -2 * (mean + std * z)


def edm_rf(t):
    with np.errstate(**QUIET):
        return np.ones_like(t), t / (1 - t), np.zeros_like(t), 1 / (1 - t) ** 2, rf(t)[4]


def edm_cos(t):
    a, b, _, _, log_snr = cosine(t)
    with np.errstate(**QUIET):
        return np.ones_like(t), b / a, np.zeros_like(t), HALF_PI / a**2, log_snr


PATHS = {
    "rf": rf,
    "cosine": cosine,
    "linear": linear,
    "ddpm": ddpm,
    "vp": vp,
    "edm": edm,
    "edm/rf": edm_rf,
    "edm/cos": edm_cos,
}


def lognorm_pdf(t, m, s):
    return np.exp(-((np.log(t / (1 - t)) - m) ** 2) / (2 * s**2)) / (s * np.sqrt(2 * np.pi) * t * (1 - t))


def mode_u(t, s):
    """u with f_mode(u; s) = t, by bisection; f falls (facts 2.1)."""
    low, high = np.zeros_like(t), np.ones_like(t)
    for _ in range(60):
        u = (low + high) / 2
        above = 1 - u - s * (np.cos(HALF_PI * u) ** 2 - 1 + u) > t
        low, high = np.where(above, u, low), np.where(above, high, u)
    return (low + high) / 2


def mode_pdf(t, s):
    return 1 / (1 + s - s * HALF_PI * np.sin(np.pi * mode_u(t, s)))


def cosmap_pdf(t):
    return 2 / (np.pi - 2 * np.pi * t + 2 * np.pi * t**2)
