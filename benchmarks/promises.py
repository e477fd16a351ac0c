"""Are designs' promises kept? Truths that the design never sees make a pilot; the ladder it chooses is run on them.

Each trial draws a law L = E + A (N/1e6)^-alpha, a noise between seeds and a target 8 to 60 times beyond a pilot of six
rungs with three seeds each, and asks for a width of 1.3 to 3 times the least that the noise allows. Where the design
promises a ladder, that ladder is run once on the truth, the pilot's runs in it being those that the design saw. Kept:
its interval at the target is as narrow as was wanted. Held: the interval contains one new run's loss. Expect of the
first the share of simulated ladders that kept the width, which is at least the probability asked for (the design takes
the cheapest ladder that it finds, and a pilot that is narrow enough by itself keeps its promise for certain); of the
second 95 %.

With --compare each trial draws two laws, the second near the first, and a correlation between their runs of one seed,
and asks for the compute multiplier at the target to an interval 0.35 to 0.9 times as wide as the pilot's own. Held: the
interval contains the true multiplier.

With --surface each truth is a surface L(N, D) with a noise between trunks and one within, the pilot has five depths
with two seeds each and five token budgets, by branches or (every other truth) by runs apart, and the target has 4 to
20 times the parameters and 2 to 8 times the examples of the pilot's largest run (benchmarks/promises_surface.py).

    nice -n 15 python -m benchmarks.promises --truths 200      # some minutes on two cores
    nice -n 15 python -m benchmarks.promises --truths 150 --compare
    nice -n 15 python -m benchmarks.promises --truths 100 --surface
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks import promises_surface
from rfjax.analysis import target_multiplier
from rfjax.analysis.candidates import Ground, Side, least_width, screened
from rfjax.analysis.design import Search, simulate
from rfjax.analysis.truths import Truths, draw_truths

DEPTHS, SEEDS = (1, 2, 3, 4, 5, 6), 3  # of the pilot
SEEN, EXAMPLES = 9216, 768  # training and validation examples of a run, as in the first command
CENTRE = 1e6


def size(depth: float) -> float:
    """Parameters, about those of the first command's ladder."""
    return 9.1e3 * depth**3 + 5e3 * depth**2


def cost(depth: float, examples: int) -> float:
    """FLOPs of a run: training, and two validations of raw and averaged weights."""
    return size(depth) * (6 * SEEN + 2 * 4 * examples)


def draw(rng: np.random.Generator) -> Truths:
    """A truth: one law and one noise."""
    one = lambda low, high: np.array([rng.uniform(low, high)])  # noqa: E731
    return Truths(one(0.2, 0.5), one(0.05, 0.3), one(0.15, 0.7), np.exp(one(np.log(1e-3), np.log(6e-3))), CENTRE)


def near(truth: Truths, rng: np.random.Generator) -> Truths:
    """The law of another design: its E, A and alpha within 3, 15 and 10 %, its noise the same."""
    one = lambda share: np.array([rng.uniform(1 - share, 1 + share)])  # noqa: E731
    laws = (truth.offset * one(0.03), truth.amplitude * one(0.15), truth.alpha * one(0.1))
    return Truths(*laws, truth.sigma, CENTRE)


def pilot(truths: list[Truths], shared: float, rng: np.random.Generator) -> list[Float[np.ndarray, "k s"]]:
    """The pilot's losses of each side; `shared`: the correlation between both sides' runs."""
    x, first = np.array([size(d) for d in DEPTHS]), rng.normal(size=(len(DEPTHS), SEEDS))
    luck = [first, shared * first + np.sqrt(1 - shared**2) * rng.normal(size=first.shape)]
    return [t.loss(x)[0][:, None] * np.exp(t.sigma[0] * z) for t, z in zip(truths, luck, strict=False)]


def side(losses: Float[np.ndarray, "k s"], laws: int, rng: np.random.Generator) -> Side | None:
    """What the pilot leaves possible of one design."""
    x = np.repeat([size(d) for d in DEPTHS], SEEDS)
    found = draw_truths(x, losses.ravel(), "power_offset", laws, rng)
    return found and Side(found, size, cost, dict(zip(DEPTHS, losses, strict=True)))


def trial(seed: int, probability: float, trials: int, compare: bool) -> dict[str, Any]:
    """One truth, its pilot, the design and the chosen ladder's run; "promised" is False where no ladder was offered."""
    rng = np.random.default_rng([seed, 18])
    truths = [draw(rng)]
    if compare:
        truths.append(near(truths[0], rng))
    shared = rng.uniform(0, 0.7)
    losses = pilot(truths, shared, rng)
    sides = [side(rows, 2 * trials, rng) for rows in losses]
    depth, factor = float(rng.integers(2 * DEPTHS[-1], 4 * DEPTHS[-1] + 1)), rng.uniform(1.3, 3)
    if None in sides:
        return {"promised": False}
    known = target_multiplier.correlation(losses[0][None], losses[-1][None], np.full(len(DEPTHS), SEEDS))[0]
    law = {"law": "power_offset", "objective": "log_squares", "share": 0.0, "examples": EXAMPLES, "more": (1,)}
    ground = Ground(tuple(sides), **law, depths=DEPTHS, correlation=float(known) if compare else 0.0)
    target, limit = size(depth), len(sides) * cost(depth, EXAMPLES)  # of the target, trained once
    best = screened(ground, target, limit, probability)
    width = factor * least_width(ground, target, probability)
    if compare:
        free = simulate(ground, best[0], np.array([target]), [one.truths.some(slice(1)) for one in sides], rng)
        width = rng.uniform(0.35, 0.9) * free.widths[0, 0]
    found = Search(ground, np.array([target]), probability, trials).cheapest(best, width)
    if found is None:
        return {"promised": False}
    one = found.candidate
    true = Ground(tuple(sides), **law, depths=DEPTHS, correlation=shared)
    came = simulate(true, one, np.array([target]), truths, rng)
    return {
        "promised": True, "said": found.kept(width), "kept": bool(came.widths[0, 0] <= width),
        "held": bool(came.inside[0]), "seeds": one.seeds, "rungs": len(one.x),
        "new": sum(one.seeds) * len(sides) - one.reused, "share_of_target": float(one.cost / limit),
        "wanted": width, "width": float(came.widths[0, 0]),
    }  # fmt: skip


def main() -> None:
    """Prints a line for each truth, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truths", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first truth")
    parser.add_argument("--probability", type=float, default=0.8)
    parser.add_argument("--trials", type=int, default=200, help="simulated ladders of a candidate")
    parser.add_argument("--compare", action="store_true", help="two designs and their compute multiplier")
    parser.add_argument("--surface", action="store_true", help="token budgets: L(N, D) at a target of both")
    parser.add_argument("--processes", type=int, default=2)
    flags = parser.parse_args()
    work = partial(trial, compare=flags.compare)
    if flags.surface:
        work = promises_surface.trial
    work = partial(work, probability=flags.probability, trials=flags.trials)
    made, done = 0, []
    with ProcessPoolExecutor(flags.processes, get_context("spawn")) as pool:
        for found in pool.map(work, range(flags.first, flags.first + flags.truths)):
            made += 1
            done += [found] if found["promised"] else []
            print(json.dumps(found), flush=True)
    anew = [one for one in done if one["new"]]
    for some, which in ((done, "promises"), (anew, "promises of ladders with new runs")):
        said = np.mean([one["said"] for one in some]) if some else 0.0
        for key, stated in (("kept", said), ("held", 0.95)) if some else ():
            share, error = np.mean([one[key] for one in some]), np.sqrt(stated * (1 - stated) / len(some))
            print(f"{key}: {share:.1%} of {len(some)} {which} (stated {stated:.1%} +- {error:.1%}); {made} truths")


if __name__ == "__main__":
    main()
