"""Do the 95 % intervals hold? Simulated ladders, fitted as a study fits them, predict a rung 4x beyond their last.

Every ladder spans 50x in parameters; each loss carries independent relative noise, and so does the new measurement
that the interval is to hold. For each law, truth and number of rungs: the share of trials in which it did, the binomial
standard error of that share, the median half-width relative to the loss, and the share of fits that hit a bound. Expect
95 % or a little more; the half-widths say what the coverage costs.

    python -m benchmarks.coverage --trials 400     # under 2 minutes on one core
    python -m benchmarks.coverage --trials 2000 --objective log_squares
    python -m benchmarks.coverage --growth 3       # noise at the largest rung three times that at the smallest, untold
"""

import argparse
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from rfjax.analysis import OBJECTIVES, Status, fit_law

RUNGS = (5, 6, 8, 12)
LADDER, BEYOND = (2e5, 1e7), 4.0
CENTRE = 1e6
TRUTHS = {  # (law, E, A at 1e6 parameters, alpha)
    "L = 0.40 + 0.10 (N/1e6)^-0.5": ("power_offset", 0.40, 0.10, 0.5),
    "L = 0.30 + 0.12 (N/1e6)^-0.3": ("power_offset", 0.30, 0.12, 0.3),
    "L = 0.05 + 0.30 (N/1e6)^-0.15": ("power_offset", 0.05, 0.30, 0.15),  # E near its bound
    "L = 0.40 (N/1e6)^-0.1": ("power", 0.0, 0.40, 0.1),
}


def simulate(
    law: str,
    truth: Callable[..., np.ndarray],
    rungs: int,
    *,
    trials: int,
    noise: float,
    growth: float,
    seed: int,
    objective: str,
) -> tuple[float, float, float]:
    """The coverage of the 95 % interval of a new loss, its median relative half-width, the share of fits on a bound.

    The noise is a power of the size: `noise` at the smallest rung, `growth` times that at the largest, and so on to the
    new one.
    """
    rng = np.random.default_rng([seed, rungs])
    x, new = np.geomspace(*LADDER, rungs), np.array(LADDER[1] * BEYOND)
    power = np.log(growth) / np.log(LADDER[1] / LADDER[0])
    spread, beyond = (noise * (n / LADDER[0]) ** power for n in (x, new))
    covered, widths, bounds = [], [], []
    for _ in range(trials):
        fit = fit_law(x, truth(x) * np.exp(spread * rng.normal(size=rungs)), law=law, objective=objective)
        value, low, high = fit.predict(new)
        covered.append(low <= truth(new) * np.exp(beyond * rng.normal()) <= high)
        widths.append((high - low) / (2 * value))
        bounds.append(fit.status is not Status.CONVERGED)
    return float(np.mean(covered)), float(np.median(widths)), float(np.mean(bounds))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--noise", type=float, default=0.003, help="relative standard deviation of a measured loss")
    parser.add_argument("--growth", type=float, default=1.0, help="of that from the smallest rung to the largest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--objective", choices=sorted(OBJECTIVES), action="append", help="default: log_squares, log_huber"
    )
    flags = parser.parse_args()

    table = Table(
        title=f"95 % intervals, {flags.trials} trials, {100 * flags.noise:g} % noise, a rung {BEYOND:g}x beyond"
    )
    for heading in ("objective", "law", "truth"):
        table.add_column(heading)
    for heading in ("rungs", "covers", "±", "half-width", "on a bound"):
        table.add_column(heading, justify="right")
    for objective in flags.objective or ["log_squares", "log_huber"]:
        for truth, (law, offset, amplitude, alpha) in TRUTHS.items():

            def loss(n: np.ndarray, e: float = offset, a: float = amplitude, alpha: float = alpha) -> np.ndarray:
                return e + a * (n / CENTRE) ** -alpha

            for rungs in RUNGS:
                coverage, width, bound = simulate(
                    law,
                    loss,
                    rungs,
                    trials=flags.trials,
                    noise=flags.noise,
                    growth=flags.growth,
                    seed=flags.seed,
                    objective=objective,
                )
                error = np.sqrt(coverage * (1 - coverage) / flags.trials)
                cells = (
                    f"{100 * coverage:.1f} %",
                    f"{100 * error:.1f}",
                    f"{100 * width:.2f} %",
                    f"{100 * bound:.1f} %",
                )
                table.add_row(objective, law, truth, str(rungs), *cells)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
