"""Folders of studies of depths and token budgets as runs would leave them, from a known surface, without training."""

from pathlib import Path

import ml_collections
import numpy as np
from synthetic import begin, by_level, write_run
from tiny import tiny

from rfjax import config as configs

TRUTH = {"E": 0.2, "A": 30.0, "B": 4.0, "alpha": 0.5, "beta": 0.6}
BATCH, BUDGETS, DEPTHS = 8, (20, 35, 60, 100), (1, 2, 3, 4, 5)
NOISE = (0.003, 0.002)  # of a trunk, which its branches share, and within


def parameters(depth: float) -> float:
    return 1e4 * depth**3


def loss(n: float, d: float) -> float:
    """The surface."""
    return TRUTH["E"] + TRUTH["A"] * n ** -TRUTH["alpha"] + TRUTH["B"] * d ** -TRUTH["beta"]


def asked(
    folder: Path, depths=DEPTHS, budgets=BUDGETS, seeds=(2,), branches=True, **study
) -> ml_collections.ConfigDict:
    """The config of such a study."""
    c = tiny()
    c.workdir = str(folder)
    c.study.update(surface=True, branches=branches, seeds=seeds, **study)
    c.optimizer.update(decay="wsd" if branches else "cosine", decay_share=0.2)
    c.training.update(steps=BUDGETS[-1], batch=BATCH)  # as a ladder has it: the axis says otherwise
    c.sampling.count = 0
    configs.axes(c, {"model.depth": depths, "training.steps": budgets})
    return c


def write_surface(folder: Path, noise=NOISE, surface=loss, **options) -> Path:
    """A finished study; runs of one depth and seed share luck, where they branch."""
    c = asked(folder, **options)
    runs = begin(folder, c)
    write_runs(folder, runs, noise, surface)
    return folder


def write_runs(folder: Path, runs, noise=NOISE, surface=loss) -> None:
    """Writes those of these runs that are not there."""
    branches = configs.branches(runs)
    for name, config in runs:
        if (folder / "runs" / name).exists():
            continue
        depth, seed, steps = config.model.depth, config.training.seed, config.training.steps
        trunk = np.random.default_rng([depth, seed]).normal() if branches else 0.0
        own = np.random.default_rng([depth, seed, steps]).normal()
        n, d = int(parameters(depth)), steps * BATCH
        final = surface(n, d) * np.exp(noise[0] * trunk + noise[1] * own)
        size = {"parameters": n, "without_modulation": n, "active_per_token": n}
        size |= {"forward_flops": 2 * n, "train_flops": 6 * n}
        start = {"kind": "start", "step": 0, "size": size, "steps": steps, "device": "cpu"}
        if name in branches:
            start |= {"trunk": branches[name].trunk, "trunk_step": branches[name].step}
        done = {"step": steps, "examples": d, "flops": 6 * n * d, "seconds": 0.1 * steps}
        lines = [start, {"kind": "train", **done, "loss": final, "grad_norm": 1.0, "learning_rate": 1e-3}]
        for weights in ("raw", "ema"):
            values = {"grid": "k/8", "loss": final, "stderr": 0.001, **by_level(final)}
            lines.append({"kind": "validation", **done, "weights": weights, **values})
        write_run(folder, name, config, lines)
