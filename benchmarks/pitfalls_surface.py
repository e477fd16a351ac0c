"""The pitfalls of `benchmarks.pitfalls` that concern L(N, D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import least_squares

if TYPE_CHECKING:
    from benchmarks.pitfalls import Ways

Array = np.ndarray
E, A, B, ALPHA, BETA = 0.3, 25.0, 5.0, 0.4, 0.35
N = np.geomspace(3e4, 3e6, 6)
D = 32.0 * np.array([48, 80, 136, 232, 384])
NOISE, LUCK = 0.001, 0.003  # of a point, and of a run, which all of its points share
NEW = (4 * N[-1], 4 * D[-1])


def loss(n: Array | float, d: Array | float) -> Array:
    """The truth of every surface here that has no other."""
    return E + A * np.asarray(n) ** -ALPHA + B * np.asarray(d) ** -BETA


def _grid() -> tuple[Array, Array, Array]:
    n, d = (grid.ravel() for grid in np.meshgrid(N, D, indexing="ij"))
    return n, d, np.repeat(np.arange(N.size), D.size)


def _noise(run: Array, rng: np.random.Generator) -> Array:
    return np.exp(LUCK * rng.normal(size=run.max() + 1)[run] + NOISE * rng.normal(size=run.size))


def _new(rng: np.random.Generator, truth: float) -> float:
    return float(truth * np.exp(np.hypot(LUCK, NOISE) * rng.normal()))


def _ways(*names: str) -> Ways:
    from benchmarks.pitfalls import Way

    return {name: Way() for name in names}


def trunks(trials: int, rng: np.random.Generator) -> Ways:
    """Five branches of each of six trunks: a trunk's luck, 0.3 %, is in all of its branches."""
    from rfjax.analysis import fit_surface

    ways = _ways("branches as independent points", "a trunk as one run")
    n, d, run = _grid()
    for _ in range(trials):
        y, measured = loss(n, d) * _noise(run, rng), _new(rng, loss(*NEW))
        for way, groups in zip(ways.values(), (None, run.tolist()), strict=True):
            fit = fit_surface(n, d, y, objective="log_squares", groups=groups)
            way.add(float(loss(*NEW)), tuple(fit.predict(*NEW)), measured)
    return ways


def checkpoints(trials: int, rng: np.random.Generator) -> Ways:
    """A checkpoint before the decay is 3 % high, and more within the warm-up; a branch's end is where it decayed."""
    from rfjax.analysis import fit_surface

    ways = _ways("all checkpoints of one schedule", "without the first tenth", "ends of branches")
    share = np.array([0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0])
    n, d = (grid.ravel() for grid in np.meshgrid(N, share * D[-1], indexing="ij"))
    run, early = np.repeat(np.arange(N.size), share.size), np.tile(share, N.size)
    ends = _grid()
    for _ in range(trials):
        luck = _noise(run, rng)
        high = 1 + 0.03 * np.minimum((1 - early) / 0.5, 1) + 0.3 * np.exp(-early / 0.02)
        measured, truth = _new(rng, loss(*NEW)), float(loss(*NEW))
        data = [(n, d, loss(n, d) * high * luck, run)]
        kept = early >= 0.1
        data.append(tuple(column[kept] for column in data[0]))
        data.append((ends[0], ends[1], loss(*ends[:2]) * _noise(ends[2], rng), ends[2]))
        for way, (sizes, examples, y, groups) in zip(ways.values(), data, strict=True):
            fit = fit_surface(sizes, examples, y, objective="log_squares", groups=groups.tolist())
            way.add(truth, tuple(fit.predict(*NEW)), measured)
    return ways


def approach_2(trials: int, rng: np.random.Generator) -> Ways:
    """Epoch's Chinchilla surface, five budgets; grids centred on the optimum, or a factor 3 too large."""
    from rfjax.analysis import fit_surface

    ways: Ways = {}
    e, a, b, alpha, beta, k = 1.817, 482.0, 2085.0, 0.348, 0.366, 6.0
    truth = lambda n, d: e + a * n**-alpha + b * d**-beta  # noqa: E731
    grow = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    best = lambda c: grow * (c / k) ** (beta / (alpha + beta))  # noqa: E731
    budgets, far = np.geomspace(1e18, 1e20, 5), 1e24
    for where, shift in (("grid centred", 1.0), ("grid 3 times too large, drifting", 3.0)):
        parabola, surface = (_ways(f"{name}, {where}") for name in ("approach 2", "surface"))
        ways |= parabola | surface
        for _ in range(trials):
            at = []
            for i, budget in enumerate(budgets):
                n = best(budget) * shift ** (i / 4) * np.geomspace(0.2, 5, 7)
                at += [(size, budget / (k * size), budget) for size in n]
            n, d, c = np.array(at).T
            y = truth(n, d) * np.exp(NOISE * rng.normal(size=n.size))
            minima = []
            for budget in budgets:
                own = c == budget
                fit = np.polyfit(np.log(n[own]), y[own], 2)
                minima.append(-fit[1] / (2 * fit[0]))
            line = np.polyfit(np.log(budgets), minima, 1)
            next(iter(parabola.values())).add(float(best(far)), float(np.exp(np.polyval(line, np.log(far)))))
            found = fit_surface(n, d, y, objective="log_squares").optimal_allocation(far, k)
            next(iter(surface.values())).add(float(best(far)), (found.n, *found.n_interval))
    return ways


def farseer(trials: int, rng: np.random.Generator) -> Ways:
    """The exponent of D grows with N, from 0.30 to 0.40 over the ladder: the form L = E + A N^-a + B D^-b is wrong."""
    from rfjax.analysis import fit_surface

    ways = _ways("surface, beta the same at every N", "surface, where it grows with N")
    n, d, run = _grid()
    exponent = lambda size: BETA + 0.1 * np.log(np.asarray(size) / np.sqrt(N[0] * N[-1])) / np.log(N[-1] / N[0])  # noqa: E731
    bent = lambda size, data: E + A * size**-ALPHA + B * data ** -exponent(size)  # noqa: E731
    for _ in range(trials):
        luck = _noise(run, rng)
        for way, truth in zip(ways.values(), (loss, bent), strict=True):
            fit = fit_surface(n, d, truth(n, d) * luck, objective="log_squares", groups=run.tolist())
            way.add(float(truth(*NEW)), tuple(fit.predict(*NEW)), _new(rng, float(truth(*NEW))))
    return ways


LEVELS = ((0.0, 0.9), (0.4, 1.0), (0.8, 0.6))  # E and size of the rest at three levels; the first floor is known


def levels(trials: int, rng: np.random.Generator) -> Ways:
    """Three levels of t; the floor of the first is known. Exponents shared by levels, or one of each level."""
    from rfjax.analysis import fit_surface

    names = ("with E", "with the known floor", "with exponents shared by the levels")
    ways: Ways = {}
    n, d, run = _grid()
    for words, spread in (("levels alike", 0.0), ("levels 20 % apart", 0.2)):
        own = _ways(*(f"{words}: {name}" for name in names))
        ways |= own
        powers = [1 + spread * step for step in (-1, 0, 1)]
        for _ in range(trials):
            losses = [
                (
                    e
                    + s
                    * (
                        A * n ** (-ALPHA * p) * 1e6 ** (ALPHA * (p - 1))
                        + B * d ** (-BETA * p) * 1e4 ** (BETA * (p - 1))
                    )
                )
                * _noise(run, rng)
                for (e, s), p in zip(LEVELS, powers, strict=True)
            ]
            for name, law in zip(own, ("surface", "surface_floor"), strict=False):
                fit = fit_surface(n, d, losses[0], objective="log_squares", law=law, groups=run.tolist())
                own[name].add(ALPHA * powers[0], (fit.parameters["alpha"], *fit.intervals["alpha"]))
            own[f"{words}: {names[2]}"].add(ALPHA * powers[0], _shared(n, d, losses))
    return ways


def _shared(n: Array, d: Array, losses: list[Array]) -> float:
    """alpha of a joint fit to all levels, E of the first 0."""
    u, v = np.log(n / np.exp(np.log(n).mean())), np.log(d / np.exp(np.log(d).mean()))

    def residual(theta: Array) -> Array:
        offsets, a, b = np.append(0.0, theta[:2]), theta[2:5], theta[5:8]
        parts = [
            np.log(offsets[i] + a[i] * np.exp(-theta[8] * u) + b[i] * np.exp(-theta[9] * v)) - np.log(y)
            for i, y in enumerate(losses)
        ]
        return np.concatenate(parts)

    start = np.array([0.4, 0.8, *[0.1] * 3, *[0.2] * 3, 0.4, 0.35])
    return float(least_squares(residual, start, bounds=(1e-6, 5.0), x_scale=np.abs(start)).x[8])


BEYOND = "one run's loss at 4 times N and D"
SURFACES = {
    "trunks": ("Branches of one trunk share its luck", BEYOND, trunks),
    "checkpoints": ("Checkpoints of an undecayed schedule, and of its start", BEYOND, checkpoints),
    "approach_2": ("IsoFLOP parabolas (approach 2)", "N* at 10,000 times the largest budget", approach_2),
    "farseer": ("An exponent of D that depends on N", BEYOND, farseer),
    "levels": ("L(N, D) by level", "alpha at the level whose floor is known", levels),
}
