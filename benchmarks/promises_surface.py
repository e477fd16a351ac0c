"""Truths of L(N, D) that a design of token budgets never sees: its pilot, its promise, and what its ladder gives.

The truth is L = E + A (N/1e6)^-alpha + B (D/1e4)^-beta. The new part of the chosen ladder is run on it, its trunks with
the luck that they share with the pilot's branches of the same seed.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from rfjax.analysis.design import Search
from rfjax.analysis.surface_candidates import SurfaceGround, SurfaceSide, least_width
from rfjax.analysis.surface_design import simulate_surface
from rfjax.analysis.surface_screen import screened
from rfjax.analysis.surface_truths import SurfaceTruths, draw_surfaces

DEPTHS, SEEDS, BUDGETS = (1, 2, 3, 4, 5), 2, (48, 80, 136, 232, 384)  # of the pilot; budgets in steps
BATCH, EXAMPLES, SHARE = 32, 256, 0.2  # of training, of validation, of a run that is decay: configs/scaling.py:surface
CENTRE = (1e6, 1e4)


def size(depth: float) -> float:
    """Parameters, about those of the first command's ladder."""
    return 9.1e3 * depth**3 + 5e3 * depth**2


def cost(depth: float, steps: float, first: int) -> float:
    """FLOPs of a run from its first step on, and of a validation of raw and averaged weights."""
    return size(depth) * (6 * BATCH * (steps - first) + 2 * 2 * EXAMPLES)


def decay_start(steps: int) -> int:
    """Where a branch leaves its trunk."""
    return steps - max(1, round(SHARE * steps))


def draw(rng: np.random.Generator, branched: bool) -> SurfaceTruths:
    """A truth: one surface and its noise, of two parts where runs branch."""
    theta = [rng.uniform(*ends) for ends in ((0.1, 0.4), (0.03, 0.2), (0.03, 0.2), (0.2, 0.8), (0.2, 0.8))]
    between, within = np.exp(rng.uniform(np.log(1e-3), np.log(5e-3), 2))
    if not branched:
        between, within = 0.0, np.hypot(between, within)
    return SurfaceTruths(np.array([theta]), np.array([between]), np.array([within]), CENTRE)


def trial(seed: int, probability: float, trials: int) -> dict[str, Any]:
    """One truth, its pilot, the design and the chosen ladder's run; "promised" is False where no ladder was offered."""
    rng, branched = np.random.default_rng([seed, 31]), seed % 2 == 0
    truth = draw(rng, branched)
    n, d = np.array([size(depth) for depth in DEPTHS]), np.array(BATCH * np.array(BUDGETS, float))
    at = np.stack(np.broadcast_arrays(n[:, None, None], d), -1).repeat(SEEDS, 1)  # (depths, seeds, budgets, 2)
    luck = truth.between * rng.normal(size=(*at.shape[:2], 1)) + truth.within * rng.normal(size=at.shape[:3])
    losses = truth.loss(at)[0] * np.exp(luck)
    runs = np.arange(luck.size) // len(BUDGETS) if branched else np.arange(luck.size)
    steps, factor = BUDGETS[-1] * np.exp(rng.uniform(np.log(2), np.log(8))), rng.uniform(1.1, 2)
    depth = DEPTHS[-1] * np.exp(rng.uniform(np.log(4), np.log(20)) / 3)
    found = draw_surfaces(at.reshape(-1, 2), losses.ravel(), runs.tolist(), 2 * trials, rng)
    if found is None:
        return {"promised": False, "branched": branched, "draws": False}
    rows = losses.reshape(-1, len(BUDGETS))
    done = {
        (d, s): dict(zip(BUDGETS, rows[i * SEEDS + s], strict=True)) for i, d in enumerate(DEPTHS) for s in range(2)
    }
    side = SurfaceSide(found, size, cost, decay_start if branched else None, done)
    ground = SurfaceGround((side,), BATCH, DEPTHS, BUDGETS, (size(depth), steps * BATCH), EXAMPLES)
    limit = cost(depth, steps, 0)
    best = screened(ground, limit, probability)
    width = factor * least_width(ground, probability)
    chosen = Search(ground, np.array([1.0]), probability, trials).cheapest(best, width) if best else None
    if chosen is None:
        return {"promised": False, "branched": branched, "draws": True}
    one = chosen.candidate
    true = replace(ground, sides=(replace(side, truths=truth),))
    came = simulate_surface(true, one, np.array([1.0]), [truth], rng)
    runs = sum(one.seeds) * len(one.budgets)
    return {
        "promised": True, "branched": branched, "said": chosen.kept(width), "kept": bool(came.widths[0, 0] <= width),
        "held": bool(came.inside[0]), "depths": one.depths, "seeds": one.seeds, "budgets": one.budgets,
        "new": runs - one.reused, "share_of_target": float(one.cost / limit), "wanted": width,
        "width": float(came.widths[0, 0]), "longer": bool(one.budgets[-1] > BUDGETS[-1]),
    }  # fmt: skip
