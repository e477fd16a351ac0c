"""The section on training lengths: each rung's distance from its own compute-optimal point of the fitted surface."""

from rfjax import analysis
from rfjax.analysis.allocation import Distance, distance
from rfjax.study.records import Records
from rfjax.study.reports.widgets import escape, section


def distances(records: Records, trend: analysis.Trend, surface: analysis.Surface) -> tuple[Distance, ...]:
    """A row for each rung of the trend; () without a surface, or where it has no optimum."""
    if surface.fit is None:
        return ()
    by_name = {run.name: run for run in records.runs}
    found = []
    for rung in trend.rungs:
        run = by_name[rung.runs[0].name]
        seen = rung.runs[0].seen
        try:
            flops = float(run.size["train_flops"]) * seen
            found.append(distance(surface.fit, rung.name, float(run.size["parameters"]), float(seen), flops))
        except ValueError:
            return ()
    return tuple(found)


def optimum_section(found: tuple[Distance, ...]) -> str:
    """The table, and what it means; "" without a surface."""
    rows = [
        [escape(one.name), f"{one.n:.3g}", f"{one.d:,.0f}", f"{one.d_optimal:,.0f}", f"{one.training:.2f}",
         f"{one.n_best:.3g}", f"{one.d_best:,.0f}", f"{100 * one.excess:+.2f} %"]
        for one in found
    ]  # fmt: skip
    header = ["rung", "N", "D, examples", "D that suits N", "D / that", "N* at its compute", "D* at its compute",
              "loss above the optimum"]  # fmt: skip
    return section(
        "Distance from the compute-optimal point", header, rows,
        "By the surface above. D / that below 1: the rung is trained for less than its size deserves, and a smaller "
        "one would reach the same loss with its compute; above 1: for more. The last column is what that costs.",
    )  # fmt: skip


def table(found: tuple[Distance, ...]) -> tuple[tuple[str, ...], list[tuple[str | float, ...]]]:
    """The same for optimum.csv."""
    header = ("run", "n", "d", "d_optimal", "d_over_optimal", "n_best", "d_best", "excess")
    return header, [
        (one.name, one.n, one.d, one.d_optimal, one.training, one.n_best, one.d_best, one.excess) for one in found
    ]
