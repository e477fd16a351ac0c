"""Approaches 1 and 2 of Hoffmann et al. 2022: the lower envelope of curves, and IsoFLOP parabolas.

Both are for showing. Approach 2 biases intercepts where alpha and beta differ, and exponents where a grid is
off-centre: fit the surface directly (`fit_surface`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.interpolate import PchipInterpolator

from rfjax.analysis.fit import LEVEL


@dataclass(frozen=True)
class IsoFlop:
    """One budget: the rungs' losses there and the parabola L = c0 + c1 u + c2 u^2, u = log(N / centre).

    The interval of n_best: 95 %, by the delta method with Student t, where there are four rungs or more and a minimum.
    d_best is interpolated between rungs.
    """

    budget: float
    n: tuple[float, ...]
    d: tuple[float, ...]
    loss: tuple[float, ...]
    centre: float | None
    coefficients: tuple[float, float, float] | None
    n_best: float | None
    n_interval: tuple[float, float] | None
    d_best: float | None
    loss_best: float | None
    # "minimum inside", "minimum outside the grid" (an extrapolation), "no minimum" (the parabola opens downward), or
    # "too few rungs" (under three curves reach the budget)
    status: str


def isoflop(n: ArrayLike, d: ArrayLike, loss: ArrayLike, compute: ArrayLike, budgets: ArrayLike) -> tuple[IsoFlop, ...]:
    """Cuts the rungs' curves at each budget and fits a parabola of the loss in log N.

    The points of one n form one curve with different compute; points with a loss that is not finite are left out.
    Between points a curve is monotone cubic in log compute; none is extended beyond its ends.

    Args:
        n: parameters, shape (points,).
        d: examples seen, shape (points,).
        loss: shape (points,).
        compute: FLOPs spent, shape (points,).
        budgets: FLOPs, shape (b,).

    Raises:
        ValueError: for unequal shapes, sizes that are not positive, or two points of one curve with the same compute.
    """
    columns = [np.atleast_1d(np.asarray(values, float)) for values in (n, d, loss, compute)]
    if len({values.shape for values in columns}) > 1:
        raise ValueError(f"n, d, loss and compute have different shapes: {[values.shape for values in columns]}.")
    sizes, examples, losses, flops = (values[np.isfinite(columns[2])] for values in columns)
    for name, values in {"n": sizes, "d": examples, "compute": flops}.items():
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name} must be positive and finite at every point.")
    curves = {}
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        rows = rows[np.argsort(flops[rows])]
        if (np.diff(flops[rows]) == 0).any():
            raise ValueError(f"the curve of n = {size:g} has two points with the same compute.")
        if rows.size > 1:
            curves[size] = PchipInterpolator(
                np.log(flops[rows]), np.stack([losses[rows], np.log(examples[rows])], -1), extrapolate=False
            )
    return tuple(_cut(curves, float(budget)) for budget in np.atleast_1d(np.asarray(budgets, float)))


def envelope(compute: ArrayLike, loss: ArrayLike) -> NDArray[np.intp]:
    """The indices, by rising compute, of the points of all curves that no cheaper or equal point beats or equals.

    Points, of shape (points,), that are not finite are never part of it; compute is in FLOPs.
    """
    flops, losses = np.asarray(compute, float), np.asarray(loss, float)
    order = np.lexsort((losses, flops))
    order = order[np.isfinite(flops[order]) & np.isfinite(losses[order])]
    before = np.minimum.accumulate(np.concatenate([[np.inf], losses[order]]))[:-1]
    return order[losses[order] < before]


def _cut(curves: dict[float, PchipInterpolator], budget: float) -> IsoFlop:
    cuts = {size: curve(np.log(budget)) for size, curve in curves.items()}
    cuts = {size: cut for size, cut in cuts.items() if np.isfinite(cut).all()}
    n, losses = np.array(list(cuts)), np.array([cut[0] for cut in cuts.values()])
    log_d = np.array([cut[1] for cut in cuts.values()])
    columns = (tuple(n.tolist()), tuple(np.exp(log_d).tolist()), tuple(losses.tolist()))
    if n.size < 3:
        return IsoFlop(budget, *columns, None, None, None, None, None, None, "too few rungs")
    centre = float(np.exp(np.log(n).mean()))
    u = np.log(n / centre)
    design = np.stack([np.ones_like(u), u, u**2], -1)
    c = np.linalg.lstsq(design, losses)[0]
    fitted = (centre, (float(c[0]), float(c[1]), float(c[2])))
    if c[2] <= 0:
        return IsoFlop(budget, *columns, *fitted, None, None, None, None, "no minimum")
    best = -c[1] / (2 * c[2])
    inside = u.min() <= best <= u.max()
    interval = None
    if n.size > 3:
        variance = np.sum((design @ c - losses) ** 2) / (n.size - 3) * np.linalg.inv(design.T @ design)
        gradient = np.array([0.0, -1 / (2 * c[2]), c[1] / (2 * c[2] ** 2)])
        half = stats.t.ppf((1 + LEVEL) / 2, n.size - 3) * np.sqrt(gradient @ variance @ gradient)
        with np.errstate(over="ignore"):
            interval = (float(centre * np.exp(best - half)), float(centre * np.exp(best + half)))
    d_best = float(np.exp(np.interp(best, u, log_d))) if inside else None
    n_best, loss_best = float(centre * np.exp(best)), float(c[0] - c[1] ** 2 / (4 * c[2]))
    status = "minimum inside" if inside else "minimum outside the grid"
    return IsoFlop(budget, *columns, *fitted, n_best, interval, d_best, loss_best, status)
