"""Time and error of the fits of rfjax.analysis, against the multi-start L-BFGS that papers on scaling laws describe.

    python -m benchmarks.fit [ladder] [surface] [seeds=N] [starts=N] [--record]      by default both: a minute

Losses of laws whose parameters are known get independent relative noise of 0.3 % and 1 %, and every contender fits the
same losses, in turn: six rungs that span 50x in parameters, and a surface of 5 x 6 sizes and data budgets.

- rfjax: `fit_law` and `fit_surface`, with the squares of the log loss and with the objective of the plain fits.
- plain: as Hoffmann et al. 2022, appendix D.3, with exact gradients: scipy's L-BFGS-B over log E, log A and alpha, and
  for a surface log B and beta; the sum of Huber's loss (delta = 1e-3) of the log residuals; from every start of their
  grid for a ladder (150), and from 300 of the 4,500 for a surface, since all take 15 times as long. Polished: the best
  five ends go on with tolerances of 1e-15, since scipy's own are made for objectives of order 1. One guess: the same
  from one start, with E at 0.8 of the lowest loss, every exponent 0.4, and the rest of the loss shared by the terms at
  the ladder's middle.

Prints, for each, the median seconds of a fit with the smallest and the largest; the median relative error of the
exponents and of the loss four times beyond the last point, in every input; failures: fits that say they did not
converge, that have an exponent outside 0.011 to 2.9 or that miss that loss by over 10 %; and how far the objective lies
above the lowest that any contender reached with exponents that rfjax allows: in how many fits by over 1e-6 of it, and
the largest. Expect the same minimum from rfjax and the polished grid, from rfjax ten times sooner or more. One good
guess, polished, is faster than rfjax and nearly always as good; it has no intervals, and cannot say whether there is a
lower minimum elsewhere. Errors are the noise's: no fit of the same objective has smaller ones. All use one thread: with
more, linear algebra so small waits for its threads, on a busy machine most of the time.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

if __name__ == "__main__":  # numpy reads it when it is imported
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from scipy import optimize

from benchmarks import page
from benchmarks.race import spread
from rfjax.analysis import Status, fit_law, fit_surface
from rfjax.analysis.engine import EXPONENTS, HUBER_DELTA, TINY

Array = np.ndarray
NOISES, BEYOND = (0.003, 0.01), 4.0
SEEDS, STARTS = {"ladder": 16, "surface": 6}, {"ladder": 150, "surface": 300}
LOG_E, LOG_A, ALPHA = (-1.0, -0.5, 0.0, 0.5, 1.0), (0.0, 5.0, 10.0, 15.0, 20.0, 25.0), (0.0, 0.5, 1.0, 1.5, 2.0)
GUESS = (0.8, 0.4)  # E as a share of the lowest loss, and the exponents
POLISHED, TIGHT = 5, {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 10_000, "maxfun": 100_000}
SANE, MISS, WORSE = (0.011, 2.9), 0.1, 1e-6


@dataclass(frozen=True)
class Task:
    """A law with known parameters, and the sizes at which it is measured.

    Attributes:
        name: of the table. offset: E. terms: (A, centre, exponent) of each input. axes: sizes of each input.
    """

    name: str
    offset: float
    terms: tuple[tuple[float, float, float], ...]
    axes: tuple[tuple[float, ...], ...]

    @property
    def points(self) -> Array:
        """All combinations of the sizes, (points, inputs)."""
        return np.array(list(itertools.product(*self.axes)))

    def loss(self, points: Array) -> Array:
        """The law, without noise."""
        return self.offset + sum(a * (points[..., i] / c) ** -b for i, (a, c, b) in enumerate(self.terms))


def _sizes(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(np.geomspace(low, high, count).tolist())


TASKS = {
    "ladder": (
        Task("L = 0.30 + 0.12 (N/1e6)^-0.3, 6 rungs", 0.30, ((0.12, 1e6, 0.3),), (_sizes(2e5, 1e7, 6),)),
        Task("L = 0.40 + 0.10 (N/1e6)^-0.5, 6 rungs", 0.40, ((0.10, 1e6, 0.5),), (_sizes(2e5, 1e7, 6),)),
    ),
    "surface": (
        Task(
            "L = 0.30 + 0.12 (N/1e6)^-0.3 + 0.10 (D/1e5)^-0.35, 5 x 6 points",
            0.30,
            ((0.12, 1e6, 0.3), (0.10, 1e5, 0.35)),
            (_sizes(2e5, 1e7, 5), _sizes(1e4, 1e6, 6)),
        ),
    ),
}


@dataclass(frozen=True)
class Found:
    """A fit: (log E, log A [and B], alpha [and beta]), whether it calls itself converged, and its seconds."""

    theta: Array
    converged: bool
    seconds: float


def evaluate(theta: Array, log_x: Array) -> tuple[Array, Array]:
    """The logarithm of the law, as a log-sum-exp, and the share of each term: (n,) and (n, 1 + inputs)."""
    m = log_x.shape[-1]
    terms = np.concatenate([np.full((len(log_x), 1), theta[0]), theta[1 : 1 + m] - theta[1 + m :] * log_x], axis=1)
    top = terms.max(axis=1, keepdims=True)
    powers = np.exp(terms - top)
    total = powers.sum(axis=1, keepdims=True)
    return (np.log(total) + top)[:, 0], powers / total


def objective(theta: Array, log_x: Array, log_y: Array) -> tuple[float, Array]:
    """The sum of Huber's loss of the log residuals, and its gradient."""
    value, share = evaluate(theta, log_x)
    residual = value - log_y
    slope = np.clip(residual, -HUBER_DELTA, HUBER_DELTA)
    by_exponent = -(slope[:, None] * share[:, 1:] * log_x).sum(axis=0)
    return float(np.sum(slope * (residual - 0.5 * slope))), np.concatenate([slope @ share, by_exponent])


def grid(inputs: int, most: int) -> list[tuple[float, ...]]:
    """Hoffmann et al.'s starts; where there are more than `most`, so many of them, drawn by chance."""
    every = list(itertools.product(LOG_E, *[LOG_A] * inputs, *[ALPHA] * inputs))
    if most >= len(every):
        return every
    return [every[i] for i in np.random.default_rng(0).permutation(len(every))[:most]]


def guess(log_x: Array, log_y: Array) -> Array:
    """A start as one would guess it from the losses."""
    share, exponent = GUESS
    offset, middle = share * np.exp(log_y.min()), log_x.mean(axis=0)
    terms = np.log((np.exp(log_y.mean()) - offset) / middle.size) + exponent * middle
    return np.array([np.log(offset), *terms, *[exponent] * middle.size])


def descend(log_x: Array, log_y: Array, starts: Sequence[Array], **tolerances: float) -> list[optimize.OptimizeResult]:
    """L-BFGS from every start, the lowest first."""
    ends = [
        optimize.minimize(objective, start, (log_x, log_y), method="L-BFGS-B", jac=True, options=tolerances)
        for start in starts
    ]
    return sorted(ends, key=lambda end: end.fun)


def ours(points: Array, losses: Array, name: str) -> Found:
    """rfjax's fit, with the objective of that name."""
    began = time.perf_counter()
    fit = (fit_law if points.shape[1] == 1 else fit_surface)(*points.T, losses, objective=name)
    seconds = time.perf_counter() - began
    kinds = (("E", "A", "B"), ("alpha", "beta"))
    linear, exponents = ([fit.parameters[k] for k in names if k in fit.parameters] for names in kinds)
    theta = np.concatenate([np.log(np.maximum(linear, TINY)), exponents])
    return Found(theta, fit.status is not Status.ABNORMAL, seconds)


def trial(task: Task, noise: float, seed: int, starts: int) -> dict[str, Found]:
    """Every contender's fit to the same losses."""
    points = task.points
    rng = np.random.default_rng([seed, round(1e6 * noise)])
    losses = task.loss(points) * np.exp(noise * rng.normal(size=len(points)))
    log_x, log_y, inputs = np.log(points), np.log(losses), points.shape[1]
    found = {f"rfjax, {name}": ours(points, losses, name) for name in ("log_squares", "log_huber")}
    every = grid(inputs, starts)

    def note(name: str, work: Callable[[], list[optimize.OptimizeResult]], before: float = 0.0) -> list[Array]:
        began = time.perf_counter()
        ends = work()
        found[name] = Found(ends[0].x, bool(ends[0].success), before + time.perf_counter() - began)
        return [end.x for end in ends]

    for name, starts_of in (("one guess", lambda: [guess(log_x, log_y)]), (f"{len(every):,} starts", lambda: every)):
        rough, fine = f"plain, {name}", f"plain, {name}, polished"
        ends = note(rough, lambda starts=starts_of: descend(log_x, log_y, starts()))
        note(fine, lambda ends=ends: descend(log_x, log_y, ends[:POLISHED], **TIGHT), found[rough].seconds)
    return found


def errors(task: Task, found: Found) -> tuple[float, float]:
    """Relative: the mean of the exponents' errors, and that of the loss beyond the ladder."""
    truth = np.array([exponent for *_, exponent in task.terms])
    beyond = BEYOND * task.points.max(axis=0)
    loss = np.exp(evaluate(found.theta, np.log(beyond)[None])[0][0])
    return float(np.mean(np.abs(_exponents(found) / truth - 1))), float(abs(loss / task.loss(beyond) - 1))


def failed(task: Task, found: Found) -> bool:
    """Whether a fit is of no use, by its own word or by its outcome."""
    exponents = _exponents(found)
    sane = np.isfinite(found.theta[1:]).all() and (exponents > SANE[0]).all() and (exponents < SANE[1]).all()
    return not (found.converged and sane and errors(task, found)[1] < MISS)


def excess(task: Task, trials: Sequence[tuple[float, int, dict[str, Found]]], name: str) -> list[float]:
    """How far a contender's objective lies above the lowest found, relative to that, for each trial."""
    above = []
    for noise, seed, found in trials:
        rng = np.random.default_rng([seed, round(1e6 * noise)])
        log_y = np.log(task.loss(task.points)) + noise * rng.normal(size=len(task.points))
        reached = {key: objective(fit.theta, np.log(task.points), log_y)[0] for key, fit in found.items()}
        allowed = [reached[key] for key, fit in found.items() if _allowed(fit)]
        above.append(reached[name] / min(allowed) - 1)
    return above


def _exponents(found: Found) -> Array:
    return found.theta[-(len(found.theta) // 2) :]


def _allowed(found: Found) -> bool:
    exponents = _exponents(found)
    return bool((exponents >= EXPONENTS[0]).all() and (exponents <= EXPONENTS[1]).all())


def section(task: Task, seeds: int, starts: int) -> list[str]:
    """The table of a task."""
    trial(task, NOISES[0], seeds, starts=1)  # imports and caches
    trials = []
    for seed in range(seeds):
        trials += [(noise, seed, trial(task, noise, seed, starts)) for noise in NOISES]
        print(f"{task.name}: {seed + 1} of {seeds} seeds", file=sys.stderr, flush=True)
    head = ["fit", "ms", *(f"{what}, {noise:.1%}" for what in ("exponent", "loss") for noise in NOISES)]
    head += [f"failed of {len(trials)}", f"objective > {WORSE:g} above the lowest", "at most above"]
    rows = []
    for name in trials[0][2]:
        found = [fits[name] for *_, fits in trials]
        cells = [name, spread([fit.seconds for fit in found], 1e-3, 1)]
        for which in (0, 1):
            for noise in NOISES:
                values = [errors(task, fits[name])[which] for level, _, fits in trials if level == noise]
                cells.append(f"{np.median(values):.{(1, 2)[which]}%}")
        above = excess(task, trials, name)
        same = name != "rfjax, log_squares"
        cells.append(str(sum(failed(task, fit) for fit in found)))
        cells += [f"{sum(x > WORSE for x in above)}" if same else "-", f"{max(above):.1g}" if same else "-"]
        rows.append(cells)
    return [f"{task.name}, {seeds} seeds:", "", *page.table(head, rows), ""]


def main(words: Sequence[str]) -> None:
    """Prints a table for each task."""
    numbers = {name: int(value) for name, _, value in (word.partition("=") for word in words) if value}
    lines: list[str] = []
    for kind in [word for word in words if word in TASKS] or TASKS:
        for task in TASKS[kind]:
            lines += section(task, numbers.get("seeds", SEEDS[kind]), numbers.get("starts", STARTS[kind]))
    page.show("fit", lines[:-1])


if __name__ == "__main__":
    main(sys.argv[1:])
