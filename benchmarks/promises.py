"""Are designs' promises kept? Truths that the design never sees make a pilot; the ladder it chooses is run on them.

Each trial draws a law L = E + A (N/1e6)^-alpha, a noise between seeds and a target 8 to 60 times beyond a pilot of six
rungs with three seeds each, and asks for a width of 1.3 to 3 times the least that the noise allows. Where the design
promises a ladder, that ladder is run once on the truth. Kept: its interval at the target is as narrow as was wanted.
Held: the interval contains one new run's loss. Expect the stated probability or more of the first, 95 % of the second.

    nice -n 19 python -m benchmarks.promises --truths 200      # about 15 minutes on two cores
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from rfjax.analysis.candidates import Ground, least_width, screened
from rfjax.analysis.design import Search, interval
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


def trial(seed: int, probability: float, trials: int) -> dict[str, Any]:
    """One truth, its pilot, the design and the chosen ladder's run; "promised" is False where no ladder was offered."""
    rng = np.random.default_rng([seed, 18])
    truth = draw(rng)
    sigma = truth.sigma[0]
    x = np.array([size(d) for d in DEPTHS])
    runs = truth.loss(x)[0][:, None] * np.exp(sigma * rng.normal(size=(x.size, SEEDS)))
    laws = draw_truths(np.repeat(x, SEEDS), runs.ravel(), "power_offset", 2 * trials, rng)
    depth, factor = float(rng.integers(2 * DEPTHS[-1], 4 * DEPTHS[-1] + 1)), rng.uniform(1.3, 3)
    if laws is None:
        return {"promised": False}
    ground = Ground(laws, "power_offset", "log_squares", 0.0, EXAMPLES, (1,), DEPTHS, size, cost)
    width, target = factor * least_width(ground, probability), size(depth)
    limit = cost(depth, EXAMPLES)  # of the target, trained once
    best = screened(ground, target, limit, probability)
    found = Search(ground, np.array([target]), probability, trials).cheapest(best, width)
    if found is None:
        return {"promised": False}
    one = found.candidate
    losses = truth.loss(np.array(one.x))[0][:, None] * np.exp(sigma * rng.normal(size=(len(one.x), one.seeds)))
    value, low, high = (end[0] for end in interval(ground, one, losses, np.array([target])))
    new = truth.loss(np.array([target]))[0, 0] * np.exp(sigma * rng.normal())
    return {
        "promised": True, "kept": bool((high - low) / value <= width), "held": bool(low <= new <= high),
        "seeds": one.seeds, "rungs": len(one.x), "share_of_target": float(one.cost / limit), "wanted": width,
        "width": float((high - low) / value),
    }  # fmt: skip


def main() -> None:
    """Prints a line for each truth, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truths", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first truth")
    parser.add_argument("--probability", type=float, default=0.8)
    parser.add_argument("--trials", type=int, default=80, help="simulated ladders of a candidate")
    parser.add_argument("--processes", type=int, default=2)
    flags = parser.parse_args()
    work = partial(trial, probability=flags.probability, trials=flags.trials)
    made, done = 0, []
    with ProcessPoolExecutor(flags.processes, get_context("spawn")) as pool:
        for found in pool.map(work, range(flags.first, flags.first + flags.truths)):
            made += 1
            done += [found] if found["promised"] else []
            print(json.dumps(found), flush=True)
    for key, stated in (("kept", flags.probability), ("held", 0.95)):
        share, error = np.mean([one[key] for one in done]), np.sqrt(stated * (1 - stated) / len(done))
        print(f"{key}: {share:.1%} of {len(done)} promises (stated {stated:.0%} +- {error:.1%}); {made} truths")


if __name__ == "__main__":
    main()
