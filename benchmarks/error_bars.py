"""Whether the standard errors of rfjax.evaluation.statistics hold, where the truth is known.

    python -m benchmarks.error_bars [FOLDER] [sets=N]      by default docs/results/metrics and 300 sets: some minutes

Features are Gaussian, so distances of the distributions have closed forms: the reference is N(0, C) with eigenvalues
from 4 to 0.04 that fall geometrically, and the generated pictures' distribution is the same ("true"), slightly off
("near": shifted by 0.1 and wider by 10 %) or clearly off ("far": shifted by 0.5, wider by 50 %). For each number, many
sets of n pictures are drawn against one reference; Fréchet distances have the reference's exact mean and covariance.

Prints, and writes to FOLDER/error_bars.csv, for each case: the number of the distributions where it is known; the mean
over sets, less that (the bias); the deviation over sets, which a standard error should be; the mean standard error
over it; and how many of the 95 % intervals (value +- 1.96 standard errors) hold the mean over sets, and how many the
distributions' own number. 300 sets know a share of 95 % to 1.3 %. FOLDER/error_bars.png shows them.
"""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

if __name__ == "__main__":  # numpy reads it when it is imported
    os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from benchmarks import page
from rfjax.evaluation.statistics import Estimate
from rfjax.evaluation.statistics.extrapolation import frechet_infinity
from rfjax.evaluation.statistics.frechet import Gaussian, frechet
from rfjax.evaluation.statistics.inception_score import inception_score
from rfjax.evaluation.statistics.kernels import cmmd, kid
from rfjax.evaluation.statistics.means import mean_of
from rfjax.evaluation.statistics.neighbours import precision_recall
from rfjax.evaluation.statistics.prdc import density_coverage

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "metrics"
SETS = 300
CASES = {"true": (0.0, 1.0), "near": (0.1, 1.1), "far": (0.5, 1.5)}  # shift, and factor of the deviations
LARGEST, SMALLEST = 4.0, 0.04  # eigenvalues
NORMAL = 1.96  # standard errors of a 95 % interval
SIZES = {16: (100, 400, 1600), 64: (100, 400, 1600)}
NEIGHBOURS = {16: 400, 64: 400}  # pictures, and reference pictures, of the numbers with neighbours and kernels


class Row(NamedTuple):
    """One number in one case.

    Attributes:
        truth: of the distributions; NaN where it is not known.
        mean: over sets.
        spread: deviation over sets.
        error: mean standard error.
        holds_mean: share of intervals that hold the mean over sets.
        holds_truth: share that holds the truth.
    """

    number: str
    features: int
    pictures: int
    case: str
    truth: float
    mean: float
    spread: float
    error: float
    holds_mean: float
    holds_truth: float


class World(NamedTuple):
    """The two distributions of a case, of independent features."""

    case: str
    shift: float
    deviations: np.ndarray
    true_deviations: np.ndarray

    @property
    def width(self) -> int:
        return len(self.deviations)

    def samples(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return self.shift / np.sqrt(self.width) + rng.normal(size=(n, self.width)) * self.deviations

    def true(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.normal(size=(n, self.width)) * self.true_deviations

    @property
    def distance(self) -> float:
        return float(self.shift**2 + ((self.deviations - self.true_deviations) ** 2).sum())


def worlds(width: int) -> list[World]:
    deviations = np.sqrt(np.geomspace(LARGEST, SMALLEST, width))
    scale = np.sqrt((deviations**2).sum())
    return [World(case, shift * scale, wider * deviations, deviations) for case, (shift, wider) in CASES.items()]


def summary(number: str, world: World, n: int, truth: float, found: Sequence[Estimate]) -> Row:
    values, errors = (np.array([getattr(one, name) for one in found]) for name in ("value", "stderr"))
    mean = values.mean()
    holds = [
        np.nan if np.isnan(target) else float((np.abs(values - target) <= NORMAL * errors).mean())
        for target in (mean, truth)
    ]
    spread = float(values.std(ddof=1))
    return Row(number, world.width, n, world.case, truth, float(mean), spread, float(errors.mean()), *holds)


def repeated(draw: Callable[[np.random.Generator], dict[str, Estimate]], sets: int) -> dict[str, list[Estimate]]:
    found: dict[str, list[Estimate]] = {}
    for seed in range(sets):
        for name, one in draw(np.random.default_rng((1, seed))).items():
            found.setdefault(name, []).append(one)
    return found


def frechet_rows(world: World, n: int, sets: int) -> Iterator[Row]:
    reference = Gaussian(np.zeros(world.width), np.diag(world.true_deviations**2), 0)

    def draw(rng: np.random.Generator) -> dict[str, Estimate]:
        features = world.samples(rng, n)
        seed = int(rng.integers(2**31))
        return {"FD": frechet(features, reference), "FD_inf": frechet_infinity(features, reference, seed)}

    for name, found in repeated(draw, sets).items():
        yield summary(name, world, n, world.distance, found)


def other_rows(world: World, n: int, sets: int) -> Iterator[Row]:
    reference = world.true(np.random.default_rng(0), n)
    prompts = np.repeat(np.arange(n // 4), 4).tolist()
    variances = [x**2 for x in (world.deviations, world.true_deviations)]

    def draw(rng: np.random.Generator) -> dict[str, Estimate]:
        features = world.samples(rng, n)
        precision, recall = precision_recall(reference, features)
        density, coverage = density_coverage(reference, features)
        shared = np.repeat(rng.normal(size=n // 4), 4) + rng.normal(size=n)
        both = kid(world.true(rng, n), features)  # another reference each time, for the truth of the distributions
        error = float(np.hypot(both.stderr, both.extras["reference_stderr"]))
        return {
            "precision": precision,
            "recall": recall,
            "density": density,
            "coverage": coverage,
            "KID": kid(reference, features),
            "KID, both errors": Estimate(both.value, error),
            "CMMD": cmmd(reference, features),
            "IS": inception_score(2 * features),
            "mean, 4 a prompt": mean_of(shared, prompts),
        }

    # Of zero means E k(x, y) = 1 + 3 tr(C_x C_y) / F^2, so KID is the distance of the covariances.
    known = {"mean, 4 a prompt": 0.0}
    if not world.shift:
        known["KID, both errors"] = 3 * ((variances[0] - variances[1]) ** 2).sum() / world.width**2
    for name, found in repeated(draw, sets).items():
        yield summary(name, world, n, known.get(name, np.nan), found)


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), constrained_layout=True)
    for axis, case in zip(axes, ("true", "near"), strict=False):
        for number, colour in (("FD", "tab:blue"), ("FD_inf", "tab:orange")):
            found = [r for r in rows if (r.number, r.features, r.case) == (number, 64, case)]
            places = np.array([r.pictures for r in found]) * (1.04 if number == "FD_inf" else 0.96)
            means = [r.mean for r in found]
            axis.errorbar(places, means, [r.spread for r in found], fmt="o", color=colour, label=f"{number}: spread")
            errors = [r.error for r in found]
            axis.errorbar(places * 1.08, means, errors, fmt="none", color=colour, alpha=0.45, capsize=4,
                          label=f"{number}: mean standard error")  # fmt: skip
        axis.axhline(found[0].truth, color="black", lw=0.8, label="the distributions' distance")
        axis.set(xscale="log", xlabel="pictures", title=f"Fréchet distance, 64 features, '{case}'")
        axis.legend(fontsize=7)
    shown = [r for r in rows if r.pictures == 400 or r.number.startswith("FD")]
    names = sorted({r.number for r in shown})
    for case, colour in zip(CASES, ("tab:green", "tab:blue", "tab:red"), strict=True):
        some = [r for r in shown if r.case == case]
        axes[2].plot([names.index(r.number) for r in some], [r.error / r.spread for r in some], "o", mfc="none",
                     color=colour, label=case)  # fmt: skip
    axes[2].axhline(1, color="black", lw=0.8)
    axes[2].set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes[2].set(title="standard error over the spread of sets", ylim=(0, None))
    axes[2].legend(fontsize=7)
    figure.savefig(path, dpi=110)


def lines(rows: Sequence[Row]) -> list[str]:
    """The table in Markdown."""
    share = lambda x: "" if np.isnan(x) else f"{x:.0%}"  # noqa: E731
    head = ["number", "features", "pictures", "case", "truth", "bias", "spread", "error / spread", "holds the mean",
            "holds the truth"]  # fmt: skip
    cells = [
        [r.number, str(r.features), str(r.pictures), r.case, "" if np.isnan(r.truth) else f"{r.truth:.4g}",
         "" if np.isnan(r.truth) else f"{r.mean - r.truth:+.2g}", f"{r.spread:.2g}", f"{r.error / r.spread:.2f}",
         share(r.holds_mean), share(r.holds_truth)]
        for r in rows
    ]  # fmt: skip
    return page.table(head, cells)


def main(folder: Path = FOLDER, sets: int = SETS) -> int:
    rows = []
    for width, sizes in SIZES.items():
        for world in worlds(width):
            for n in sizes:
                rows += frechet_rows(world, n, sets)
            rows += other_rows(world, NEIGHBOURS[width], sets)
            print(f"{width} features, {world.case}", file=sys.stderr, flush=True)
    order = list(dict.fromkeys(r.number for r in rows))
    rows.sort(key=lambda r: (order.index(r.number), r.features))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "error_bars.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows)
    draw_figure(rows, folder / "error_bars.png")
    print("\n".join(lines(rows)), "", page.machine(), sep="\n")
    return 0


if __name__ == "__main__":
    words = dict(word.partition("=")[::2] for word in sys.argv[1:])
    folders = [Path(key) for key, value in words.items() if not value]
    sys.exit(main(*(folders[:1] or [FOLDER]), sets=int(words.get("sets", SETS))))
