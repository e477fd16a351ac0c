"""What branches of one trunk cost and how far their law is from that of runs trained apart, from two finished studies.

    python -m rfjax.main --config=configs/scaling.py:surface        --config.study.axes.training.seed="(0,1,2)"
    python -m rfjax.main --config=configs/scaling.py:surface_cosine --config.study.axes.training.seed="(0,1,2)"
    python -m benchmarks.branches work/scaling_surface work/scaling_surface_cosine

Prints the loss of the first over that of the second for each depth and number of steps, with Student's interval over
seeds; L(N, D) of each; what each says of sizes beyond; and the FLOPs of both.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np

from rfjax.analysis.laws import SurfaceFit, fit_surface
from rfjax.analysis.multipliers import over_seeds
from rfjax.study import records
from rfjax.study.records import RunRecord

BEYOND = (4, 16)  # times the largest compute
Cell = tuple[int, int]  # depth, steps


def finished(folder: Path, weights: str, least: int) -> list[RunRecord]:
    """The finished runs of a study, of so many steps or more."""
    return [run for run in records.read(folder).runs if run.final(weights) and run.steps >= least]


def measure(runs: list[RunRecord], weights: str) -> tuple[dict[Cell, dict[int, float]], SurfaceFit, dict[str, float]]:
    """Losses by cell and seed; L(N, D) of all ends; FLOPs, FLOPs per parameter and example, largest compute."""
    cells: dict[Cell, dict[int, float]] = defaultdict(dict)
    for run in runs:
        cells[run.depth, run.steps][run.seed] = run.final(weights)["loss"]
    ends = [run.final(weights) for run in runs]
    n, d = ([run.size["parameters"] for run in runs], [end["examples"] for end in ends])
    groups = [run.trunk or run.name for run in runs]
    fit = fit_surface(n, d, [end["loss"] for end in ends], objective="log_squares", groups=groups)
    step = [run.size["train_flops"] * run.config["training"]["batch"] for run in runs]
    flops = [one * run.steps for one, run in zip(step, runs, strict=True)]
    own = [one * (run.steps - run.first) for one, run in zip(step, runs, strict=True)]
    per = float(np.exp(np.mean(np.log(np.array(flops) / np.array(n, float) / np.array(d)))))
    return dict(cells), fit, {"flops": sum(own), "per": per, "largest": max(flops)}


def main() -> None:
    """Prints the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("branches", type=Path)
    parser.add_argument("apart", type=Path)
    parser.add_argument("--weights", default="ema", choices=("ema", "raw"))
    parser.add_argument("--least", type=int, default=0, help="runs of fewer steps are left out of both")
    flags = parser.parse_args()
    studies = [finished(folder, flags.weights, flags.least) for folder in (flags.branches, flags.apart)]
    which = [{(run.depth, run.steps, run.seed) for run in runs} for runs in studies]
    both = [[run for run in runs if (run.depth, run.steps, run.seed) in which[0] & which[1]] for runs in studies]
    (first, ours, spent), (second, theirs, apart) = (measure(runs, flags.weights) for runs in both)
    print(
        f"FLOPs: {spent['flops']:.3g} with branches, {apart['flops']:.3g} apart: {spent['flops'] / apart['flops']:.3f}"
    )
    logs = defaultdict(list)
    for depth, steps in sorted(first.keys() & second.keys()):
        a, b = first[depth, steps], second[depth, steps]
        ratio = over_seeds([100 * np.log(a[seed] / b[seed]) for seed in sorted(a.keys() & b.keys())])
        logs[steps].append(ratio.value)
        span = "" if ratio.low is None else f" ({ratio.low:+.1f} to {ratio.high:+.1f})"
        print(f"depth {depth}, {steps} steps: {ratio.value:+.1f} %{span}")
    for steps, values in sorted(logs.items()):
        print(f"{steps} steps, all depths: {np.mean(values):+.1f} %")
    for name, fit in (("branches", ours), ("apart", theirs)):
        spans = ", ".join(f"{k} {v:.3g} ({fit.intervals[k][0]:.3g} to {fit.intervals[k][1]:.3g})"
                          for k, v in fit.parameters.items())  # fmt: skip
        print(f"{name}: {spans} [{fit.status.value}]")
    for factor in BEYOND:
        compute = factor * apart["largest"]
        best = theirs.optimal_allocation(compute, apart["per"])
        said = [fit.predict(best.n, best.d) for fit in (ours, theirs)]
        words = [f"{one.value:.4f} ({one.low:.4f} to {one.high:.4f})" for one in said]
        own = ours.optimal_allocation(compute, spent["per"])
        print(
            f"{factor} times the largest compute, N = {best.n:.3g}, D = {best.d:.3g}: {words[0]} by branches, "
            f"{words[1]} apart, {100 * (said[0].value / said[1].value - 1):+.2f} %; N* {own.n:.3g} and {best.n:.3g}"
        )


if __name__ == "__main__":
    main()
