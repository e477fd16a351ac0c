"""Do the intervals of compute multipliers hold? Pairs of simulated ladders, compared as a study compares them.

A truth is a law E + A N^-alpha of the first design; the second has the loss of `multiplier` times its size at each
size, so that it needs so many times fewer parameters, and its compute multiplier follows from both designs' FLOPs. Each
rung has seeds whose luck both designs share in part, and validation triples that all runs share. For each case: the
share of 95 % intervals that held the compute multiplier at the target and, over all rungs, the difference of losses;
the median of the interval's upper end over its lower; and the share of pairs whose sizes were said to be clearly apart,
which for equal designs is the rate of false verdicts.

    python -m benchmarks.comparisons --trials 1000      # about 6 minutes on one core
"""

import argparse
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from rfjax.analysis.compare import Pair, compare, make_design
from rfjax.analysis.contrasts import Place

LEVELS = 8
SMALLEST, LARGEST = 1.4e4, 1.1e6  # parameters of the first design's ladder
SMALLER, DEARER, COST = 0.67, 1.5, 1.1  # the second's sizes over the first's; FLOPs = factor x N^COST
EXAMPLES, SHARED, OWN = 384, 0.3, 0.02  # triples; their relative spread that all runs share, and that of one run


@dataclass(frozen=True)
class Case:
    """A kind of study.

    Attributes:
        noise: relative standard deviation of a run's loss with its seed.
        shared: correlation of that noise between designs with the same seed.
        beyond: the target over the second's largest rung.
        apart: standard deviation of the log of the multiplier; 0: equal designs.
        bend: the law's log loss is off by bend x log(N / 2e5)^2, in both designs: then the fitted law is wrong.
    """

    seeds: int = 3
    rungs: int = 5
    noise: float = 0.005
    shared: float = 0.5
    beyond: float = 1.0
    apart: float = 0.3
    bend: float = 0.0


CASES = {
    "3 seeds, 5 rungs, noise 0.5 %, half of it shared": Case(),
    "nothing shared": Case(shared=0.0),
    "0.9 shared": Case(shared=0.9),
    "1 seed": Case(seeds=1),
    "4 rungs": Case(rungs=4),
    "8 rungs": Case(rungs=8),
    "noise 2 %": Case(noise=0.02),
    "target 4 times beyond": Case(beyond=4.0),
    "target 20 times beyond": Case(beyond=20.0),
    "equal designs": Case(apart=0.0),
    "both bent by 2 % at the smallest rung": Case(bend=0.003),
    "both bent by 7 % at the smallest rung": Case(bend=0.01),
}


@dataclass(frozen=True)
class Trial:
    """A simulated comparison and the truth: multiplier of compute at the target, log ratio of losses at each rung."""

    pair: Pair
    compute: float
    differences: np.ndarray

    @property
    def holds(self) -> bool:
        found = self.pair.target.compute
        return found.low <= self.compute <= found.high

    @property
    def rungs(self) -> list[bool]:
        rows = zip(self.pair.rungs, self.differences, strict=True)
        return [abs(rung.difference.value - true) <= rung.difference.half for rung, true in rows]


def simulate(case: Case, rng: np.random.Generator) -> Trial:
    """One comparison."""
    amplitude, multiplier = 20 * np.exp(0.2 * rng.normal()), np.exp(case.apart * rng.normal())

    def loss(n: np.ndarray) -> np.ndarray:
        return (0.24 + amplitude * n**-0.45) * np.exp(case.bend * np.log(n / 2e5) ** 2)

    n = np.geomspace(SMALLEST, LARGEST, case.rungs)
    luck, triples = rng.normal(size=(case.rungs, case.seeds)), rng.normal(size=EXAMPLES)

    def ladder(name: str, sizes: np.ndarray, means: np.ndarray, factor: float) -> list[Place]:
        own = rng.normal(size=luck.shape)
        noise = case.noise * (np.sqrt(case.shared) * luck + np.sqrt(1 - case.shared) * own)
        places = []
        for j, size in enumerate(sizes):
            drawn = means[j] * np.exp(noise[j])[:, None] * (1 + SHARED * triples)
            drawn = drawn * (1 + OWN * rng.normal(size=drawn.shape))
            losses = {seed: float(row.mean()) for seed, row in enumerate(drawn)}
            places.append(Place(f"rung {j}", size, factor * size**COST, losses, dict(enumerate(drawn))))
        return places

    first = make_design("first", ladder("first", n, loss(n), 1.0), "power_offset")
    second = make_design(
        "second", ladder("second", SMALLER * n, loss(SMALLER * n * multiplier), DEARER), "power_offset"
    )
    target = SMALLER * LARGEST * case.beyond
    pair = compare(first, second, target, LEVELS)
    return Trial(pair, multiplier**COST / DEARER, np.log(loss(SMALLER * n * multiplier) / loss(n)))


def row(name: str, case: Case, trials: int) -> list[str]:
    """The table's row of a case."""
    rng = np.random.default_rng(0)
    found = [simulate(case, rng) for _ in range(trials)]
    ends = [t.pair.target.compute.high / max(t.pair.target.compute.low, 1e-9) for t in found]
    size = [t.pair.target.size.low > 1 or t.pair.target.size.high < 1 for t in found]
    holds, rungs = np.mean([t.holds for t in found]), np.mean([t.rungs for t in found])
    return [name, f"{holds:.1%}", f"{np.median(ends):.2f}", f"{rungs:.1%}", f"{np.mean(size):.1%}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    trials = parser.parse_args().trials
    table = Table(title=f"{trials} trials a row; 95 % ± {196 * np.sqrt(0.95 * 0.05 / trials):.1f} %", box=None)
    for heading in ("case", "interval holds", "upper / lower end", "rungs' hold", "sizes clearly apart"):
        table.add_column(heading)
    for name, case in CASES.items():
        table.add_row(*row(name, case, trials))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
