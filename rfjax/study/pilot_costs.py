"""Sizes, costs and noise of runs at other depths, from those of a pilot. Imports no JAX."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from rfjax import analysis
from rfjax.analysis import target_multiplier
from rfjax.analysis.candidates import MORE_EXAMPLES
from rfjax.study.pilot_checks import steps_by_depth
from rfjax.study.records import RunRecord


def course(depths: Sequence[int], values: Sequence[float]) -> Callable[[float], float]:
    """A cubic in depth without negative terms: exact for blocks whose width is fixed or goes with depth."""
    d, y = np.array(depths, float), np.array(values, float)
    terms, _ = nnls(np.stack([d**3, d**2, d, np.ones_like(d)], -1) / y[:, None], np.ones_like(y))
    return lambda depth: float(np.polyval(terms, depth))


def speeds(runs: Sequence[RunRecord]) -> Callable[[float], float]:
    """Depth -> FLOP/s, straight between rungs in logarithms."""
    reached = {run.depth: run.train[-1]["flops"] / run.seconds for run in runs if run.train and run.seconds > 0}
    if not reached:
        return lambda depth: float("nan")
    d, rate = zip(*sorted(reached.items()), strict=True)
    return lambda depth: float(np.exp(np.interp(np.log(depth), np.log(d), np.log(rate))))


def evaluations(config: Mapping[str, Any]) -> Callable[[float], int]:
    """Depth -> how often a run of the study is validated by all its triples."""
    every, steps, validation = config["training"]["validate_every"], steps_by_depth(config), config["validation"]
    whole = not 0 < validation.get("along", 0) < validation["examples"]  # else few triples along the run
    return lambda depth: max(1, steps(depth) // every) if every and whole else 1


def correlation(first: Mapping[int, Mapping[int, float]], second: Mapping[int, Mapping[int, float]]) -> float:
    """Between log losses of two designs' runs of one depth and seed; each is depth -> seed -> loss."""
    pairs = [
        [(losses[seed], second[depth][seed]) for seed in losses if seed in second[depth]]
        for depth, losses in first.items()
        if depth in second
    ]
    pairs = [rows for rows in pairs if len(rows) > 1]
    if not pairs:
        return 0.0
    seeds = np.array([len(rows) for rows in pairs])
    losses = np.ones((2, 1, len(pairs), seeds.max()))
    for i, rows in enumerate(pairs):
        losses[:, 0, i, : len(rows)] = np.array(rows).T
    return float(target_multiplier.correlation(losses[0], losses[1], seeds)[0])


def more_examples(run: RunRecord, share: float) -> tuple[int, ...]:
    """Multiples of the pilot's validation examples that the data have; 1 alone where more would change nothing."""
    have = run.data.data.validation.count if run.data.data else None
    asked = run.config["validation"]["examples"]
    return tuple(n for n in MORE_EXAMPLES if n == 1 or (share > 0 and (have is None or n * asked <= have)))


def validation_share(ladder: analysis.Ladder, sigma: Any) -> float:
    """The share of the variance between seeds that is that of a finite number of triples; 0 where it is not known.

    Two seeds of one model differ from triple to triple: half the variance of those differences, over the number of
    triples, is what more of them take away. What all runs share, being on the same triples, is no part of it.
    """
    shares = []
    for rung in ladder.rungs:
        for a, b in itertools.combinations([run for run in rung.runs if run.triples is not None], 2):
            found = analysis.change((a.loss,), (b.loss,), b.triples - a.triples, len(a.levels), None).example_error
            if found is not None and a.triples.size == b.triples.size:
                shares.append(found**2 / 2 / rung.loss**2)
    return min(float(np.mean(shares) / np.median(sigma) ** 2), 1.0) if shares else 0.0
