"""Grids of depths and token budgets, simulated run by run and fitted by L(N, D) as a study fits them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from rfjax.analysis.candidates import Candidate
from rfjax.analysis.many_surfaces import fit_surfaces
from rfjax.analysis.simulated import Simulated
from rfjax.analysis.surface_candidates import SurfaceGround
from rfjax.analysis.surface_truths import SurfaceTruths


def simulate_surface(
    ground: SurfaceGround,
    one: Candidate,
    shares: Float[np.ndarray, " g"],
    truths: Sequence[SurfaceTruths],
    rng: np.random.Generator,
) -> Simulated:
    """Runs a candidate once on each surface, fits it as a study does, and asks for its intervals.

    Args:
        shares: of the way to the target, where to ask; the last is the target.
        truths: of the one side.
    """
    at = ground.at(shares)
    value, low, high = fit_surfaces(ground.points(one), losses_of(ground, one, truths[0], rng)).new_run(at)
    new = truths[0].loss(at[-1]) * np.exp(truths[0].sigma * rng.normal(size=len(truths[0])))
    return Simulated(one, (high - low) / value, ((low[:, -1] <= new) & (new <= high[:, -1])).astype(float))


def losses_of(
    ground: SurfaceGround, one: Candidate, truths: SurfaceTruths, rng: np.random.Generator
) -> Float[np.ndarray, "m groups each"]:
    """The losses of a candidate's runs; those that are there stay as they are.

    A trunk's luck is normal, given the losses of its branches that are there: where n of them lie off the surface by r
    on average, its mean is s_u^2 n r / (s_w^2 + n s_u^2) and its variance s_u^2 s_w^2 / (s_w^2 + n s_u^2).
    """
    runs = [(depth, seed) for depth, count in zip(one.depths, one.seeds, strict=True) for seed in range(count)]
    x = ground.points(one).reshape(len(runs), len(one.budgets), 2)
    expected = truths.loss(x)
    known = np.full(x.shape[:2], np.nan)
    for row, (depth, seed) in zip(known, runs, strict=True) if one.reused else ():
        there = ground.known(depth, seed, one.budgets)
        row[:] = [there.get(steps, np.nan) for steps in one.budgets]
    there = np.isfinite(known)
    between, within = (part[:, None] ** 2 for part in (truths.between, truths.within))
    off = np.where(there, np.log(np.where(there, known, 1.0) / expected), 0.0).sum(-1)
    total = np.maximum(within + there.sum(-1) * between, np.finfo(float).tiny)
    luck = between * off / total + np.sqrt(between * within / total) * rng.normal(size=expected.shape[:2])
    own = truths.within[:, None, None] * rng.normal(size=expected.shape)
    losses = np.where(there, known, expected * np.exp(luck[..., None] + own))
    return losses if ground.branched else losses.reshape(len(losses), -1, 1)
