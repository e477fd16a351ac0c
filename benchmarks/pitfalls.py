"""What published pitfalls of scaling laws do to simulated ladders whose truth is known, and what rfjax does with them.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.pitfalls [NAME ...] [--trials 60] [--record]    all: two minutes

Every trial draws noise anew (relative, 0.3 % a run unless said) and every way sees the same losses. An error is the
found value over the true one, less 1; `covers` is the share of trials whose 95 % interval held one new run's loss (or
the true parameter), `half-width` that interval's, relative to the value. With --record, into docs/results/pitfalls.md
and its figure. The pitfalls are those of Choshen et al. 2024 (arXiv 2410.11840), (Mis)Fitting (2502.18969), Porian et
al. (2406.19146), Gemstones (2502.06857), Farseer (2506.10972), and what this project measured before.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks import page
from benchmarks.pitfalls_surface import SURFACES

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NOISE, BEYOND = 0.003, 4.0
OFFSET, AMPLITUDE, ALPHA, CENTRE = 0.45, 0.1, 0.35, 1e6
Array = np.ndarray


@dataclass
class Way:
    """One way to read the same losses: the error of each trial, and of its interval whether it held and its width."""

    errors: list[float] = field(default_factory=list)
    held: list[bool] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)

    def add(self, truth: float, found: tuple[float, float, float] | float, measured: float | None = None) -> None:
        """Notes a trial; found: a value, or a value with its interval, which is to hold `measured`, or the truth."""
        value, *ends = found if isinstance(found, tuple) else (found,)
        self.errors.append(value / truth - 1)
        if ends:
            self.held.append(bool(ends[0] <= (truth if measured is None else measured) <= ends[1]))
            self.widths.append((ends[1] - ends[0]) / 2 / abs(value))


Ways = dict[str, Way]


@dataclass(frozen=True)
class Pitfall:
    """A pitfall: what goes wrong, which quantity is looked at, and the simulation: (trials, rng) -> ways."""

    title: str
    quantity: str
    simulate: Callable[[int, np.random.Generator], Ways]


def law(x: Array | float) -> Array:
    """The truth of every ladder here that has no other."""
    return OFFSET + AMPLITUDE * (np.asarray(x) / CENTRE) ** -ALPHA


def ladder(rungs: int) -> Array:
    """Sizes that span a factor of 256."""
    return np.geomspace(1e5, 2.56e7, rungs)


def no_offset(trials: int, rng: np.random.Generator) -> Ways:
    from rfjax.analysis import choose_law, fit_law

    x, ways = ladder(6), {"without E": Way(), "with E": Way(), "mean over laws (6 rungs)": Way()}
    new = BEYOND * x[-1]
    for _ in range(trials):
        y = law(x) * np.exp(NOISE * rng.normal(size=x.size))
        measured = float(law(new) * np.exp(NOISE * rng.normal()))
        found = [fit_law(x, y, law=name).predict(new) for name in ("power", "power_offset")]
        for way, one in zip(ways.values(), [*found, choose_law(x, y).average(new)], strict=True):
            way.add(float(law(new)), tuple(one), measured)
    return ways


def chosen_law(trials: int, rng: np.random.Generator) -> Ways:
    """The truth is each of the three laws in turn."""
    from rfjax.analysis import choose_law

    x, ways = ladder(8), {"the law with E, always": Way(), "that of the largest weight": Way(), "the mean": Way()}
    new = BEYOND * x[-1]
    soft = lambda u: 0.5 * np.logaddexp(0.0, (u - np.log(2e6)) / 0.5)  # noqa: E731
    truths = (
        law,
        lambda n: 0.55 * (np.asarray(n) / CENTRE) ** -0.06,
        lambda n: 0.55 * np.exp(-0.09 * np.log(np.asarray(n) / CENTRE) + 0.05 * soft(np.log(n))),
    )
    for trial in range(trials):
        truth = truths[trial % 3]
        y, measured = truth(x) * np.exp(NOISE * rng.normal(size=8)), float(truth(new) * np.exp(NOISE * rng.normal()))
        choice = choose_law(x, y)
        liked = max(choice.weights, key=choice.weights.__getitem__)
        found = [choice.fits["power_offset"].predict(new), choice.fits[liked].predict(new), choice.average(new)]
        for way, one in zip(ways.values(), found, strict=True):
            way.add(float(truth(new)), tuple(one), measured)
    return ways


def outlier(trials: int, rng: np.random.Generator) -> Ways:
    """One rung of eight, never the last two, is 5 % high."""
    from rfjax.analysis import fit_law

    x, ways = ladder(8), {name: Way() for name in ("squares", "log_squares", "log_huber")}
    new = BEYOND * x[-1]
    for _ in range(trials):
        y = law(x) * np.exp(NOISE * rng.normal(size=x.size))
        y[rng.integers(6)] *= 1.05
        measured = float(law(new) * np.exp(NOISE * rng.normal()))
        for objective, way in ways.items():
            way.add(float(law(new)), tuple(fit_law(x, y, objective=objective).predict(new)), measured)
    return ways


def uneven(trials: int, rng: np.random.Generator) -> Ways:
    """The learning rate is at the edge of its sweep for the three largest of six rungs: 0.5, 1.5 and 3 % too high."""
    from rfjax.analysis import curvature, fit_law

    names = ("every rung tuned", "the large rungs at the edge", "the same, where the bend test warns")
    x, ways = ladder(6), {name: Way() for name in names}
    new, penalty = BEYOND * x[-1], np.array([1, 1, 1, 1.005, 1.015, 1.03])
    for _ in range(trials):
        y, measured = law(x) * np.exp(NOISE * rng.normal(size=6)), float(law(new) * np.exp(NOISE * rng.normal()))
        for name, losses in zip(names, (y, y * penalty), strict=False):
            fit = fit_law(x, losses)
            ways[name].add(float(law(new)), tuple(fit.predict(new)), measured)
        bend = curvature(fit)
        if bend is not None and bend.p < 0.05:
            ways[names[2]].add(float(law(new)), tuple(fit.predict(new)), measured)
    return ways


def counted(trials: int, rng: np.random.Generator) -> Ways:
    """Compute as 6 N D, for MM-DiT of depth 4 to 38 at fixed D (rfjax counts every matrix product)."""
    from rfjax.analysis import fit_law

    depths = np.array([4, 6, 8, 11, 15, 19, 24, 38])
    ratio = np.interp(np.log(depths), np.log([4, 8, 15, 24, 38]), [2.36, 2.64, 2.79, 2.87, 2.91])  # 6ND over the truth
    claimed = 147_456.0 * depths**3 * 6e9
    true, ways = claimed / ratio, {"C = 6 N D": Way(), "C counted": Way()}
    for _ in range(trials):
        y = (0.4 + 0.2 * (true / true[0]) ** -0.3) * np.exp(0.1 * NOISE * rng.normal(size=depths.size))
        for compute, way in zip((claimed, true), ways.values(), strict=True):
            fit = fit_law(compute, y)
            way.add(0.3, (fit.parameters["alpha"], *fit.intervals["alpha"]))
    return ways


def seeds(trials: int, rng: np.random.Generator) -> Ways:
    """As many seeds a rung as said; the interval is of one new run."""
    from rfjax.analysis import fit_law
    from rfjax.analysis.ladder import Ladder, Rung
    from rfjax.analysis.seeds import pooled_spread

    counts = ((1, 1, 1, 1), (3, 3, 3, 3), (1, 1, 1, 1, 1), (3, 3, 2, 1, 1), (1,) * 6, (3, 3, 2, 2, 1, 1))
    ways: Ways = {}
    for count in counts:
        x = ladder(len(count))
        new = BEYOND * x[-1]
        kinds = ("",) if max(count) == 1 else ("", ", seeds for weights alone")
        ours = [ways.setdefault(f"seeds {', '.join(map(str, count))}{kind}", Way()) for kind in kinds]
        for _ in range(trials):
            losses = [law(n) * np.exp(NOISE * rng.normal(size=k)) for n, k in zip(x, count, strict=True)]
            measured, spread = float(law(new) * np.exp(NOISE * rng.normal())), pooled_spread(losses)
            error = lambda row, spread=spread: spread and spread.stderr(row.mean(), row.size, 1.0)  # noqa: E731
            rungs = [Rung("", n, tuple(row), None, (), error(row)) for n, row in zip(x, losses, strict=True)]
            options = Ladder(tuple(rungs), (), spread, ()).fitted
            for way, more in zip(ours, ({}, {"stderr_freedom": None}), strict=False):
                one = spread and spread.relative * float(law(new))
                way.add(float(law(new)), tuple(fit_law(**options | more).predict(new, y_stderr=one)), measured)
    return ways


BEYOND_TEXT = "one run's loss at 4 times the largest rung"
PITFALLS = {
    "no_offset": Pitfall("A law without E", BEYOND_TEXT, no_offset),
    "chosen_law": Pitfall(
        "A law chosen by the losses that it is fitted to (8 rungs; three truths)", BEYOND_TEXT, chosen_law
    ),
    "outlier": Pitfall("One rung 5 % high: objectives", BEYOND_TEXT, outlier),
    "uneven": Pitfall("Learning rates at the edge of their sweep", BEYOND_TEXT, uneven),
    "counted": Pitfall("Compute counted as 6 N D", "the exponent of compute", counted),
    "seeds": Pitfall("Single seeds, and n - p = 1", BEYOND_TEXT, seeds),
} | {name: Pitfall(*parts) for name, parts in SURFACES.items()}


def rows(found: Ways) -> list[list[str]]:
    """A row of the table for each way."""
    made = []
    for name, way in found.items():
        if not way.errors:
            made.append([name, "0", "", "", "", ""])
            continue
        low, middle, high = (f"{100 * q:+.2f} %" for q in np.quantile(way.errors, (0.05, 0.5, 0.95)))
        held = f"{100 * np.mean(way.held):.0f} %" if way.held else ""
        width = f"{100 * np.median(way.widths):.2g} %" if way.widths else ""
        made.append([name, str(len(way.errors)), middle, f"{low} to {high}", held, width])
    return made


def draw(found: dict[str, Ways], path: Path) -> None:
    """The errors of every way, a panel for each pitfall."""
    import matplotlib.pyplot as plt

    from rfjax.study.reports.drawing import style

    with style():
        figure, panels = plt.subplots((len(found) + 1) // 2, 2, figsize=(13, 2.1 * ((len(found) + 1) // 2)))
        for axes, (name, ways) in zip(panels.flat, found.items(), strict=False):
            shown = {label: 100 * np.array(way.errors) for label, way in ways.items() if way.errors}
            for row, errors in enumerate(shown.values()):
                axes.plot(errors, np.full(errors.size, -row), "|", color="tab:blue", ms=9, alpha=0.5)
                axes.plot(np.median(errors), -row, "D", color="tab:red", ms=4)
            axes.axvline(0, color="gray", lw=0.8)
            axes.set_yticks([-row for row in range(len(shown))], list(shown), fontsize=7)
            axes.set_title(PITFALLS[name].title, fontsize=9)
            axes.set_xlabel(f"error of {PITFALLS[name].quantity}, %", fontsize=8)
            axes.set_xscale("symlog", linthresh=5)
            axes.tick_params(axis="x", labelsize=7)
        for axes in list(panels.flat)[len(found) :]:
            axes.set_visible(False)
        figure.savefig(path, dpi=110)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"default: all of {', '.join(PITFALLS)}")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--record", action="store_true")
    flags = parser.parse_args()
    found, lines = {}, []
    for name in flags.names or PITFALLS:
        pitfall = PITFALLS[name]
        found[name] = pitfall.simulate(flags.trials, np.random.default_rng(0))
        head = ["way", "trials", "median error", "5 to 95 % of errors", "covers", "half-width"]
        lines += [f"## {pitfall.title} (`{name}`): {pitfall.quantity}", "", *page.table(head, rows(found[name])), ""]
        print(f"{name}: done", file=sys.stderr, flush=True)
    page.show("pitfalls", lines[:-1], RESULTS / "pitfalls.md")
    if flags.record:
        draw(found, RESULTS / "pitfalls.png")


if __name__ == "__main__":
    main()
