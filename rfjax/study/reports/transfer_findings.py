"""What the report `transfer` finds: the best learning rate of each parameterisation against size, in words too."""

import math
from dataclasses import dataclass
from typing import Any

from rfjax.analysis.transfer import Interval, Losses, Transfer, compared, transfer
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports.compare import listed
from rfjax.study.run_records import finite


@dataclass(frozen=True)
class Findings:
    """All that the report says.

    Attributes:
        axis: what the size is: "depth" or "width".
        both: width and depth grow together.
        losses: parameterisation -> size -> rate -> seed -> loss; NaN: the run diverged.
        found: parameterisation -> how far its best rate moves.
    """

    axis: str
    both: bool
    losses: dict[str, dict[float, dict[float, dict[int, float]]]]
    found: dict[str, Transfer]
    warnings: tuple[str, ...]

    @property
    def sizes(self) -> list[float]:
        """All sizes, ascending."""
        return sorted({size for by_size in self.losses.values() for size in by_size})


def width_of(run: RunRecord) -> int:
    """The width of a run's network."""
    model = run.config["model"]
    return model["width"] or model["width_per_depth"] * model["depth"]


def analyse(study: Records) -> Findings:
    """Reads the final losses, and finds the best rates."""
    weights = study.config["study"]["weights"]
    depths, widths = ({size(run) for run in study.runs} for size in (lambda run: run.depth, width_of))
    axis = "width" if len(depths) < 2 <= len(widths) else "depth"
    losses: dict[str, Any] = {}
    for run in study.runs:
        size = float(width_of(run) if axis == "width" else run.depth)
        final = run.final(weights)
        loss = final["loss"] if final else math.nan if run.state.startswith("failed") else None
        if loss is not None:
            name = run.config["model"].get("parameterisation", "standard")
            by_rate = losses.setdefault(name, {}).setdefault(size, {})
            by_rate.setdefault(run.learning_rate, {})[run.seed] = loss
    wanted = len(study.study["runs"]) // max(len(_names(study)), 1)
    found = {name: transfer(by_size, wanted) for name, by_size in losses.items()}
    warnings = [*_states(study), *_unsure(found, losses, axis)]
    return Findings(axis, len(depths) > 1 and len(widths) > 1, losses, found, tuple(warnings))


def _names(study: Records) -> set[str]:
    return {run.config["model"].get("parameterisation", "standard") for run in study.runs}


def _states(study: Records) -> list[str]:
    """What is amiss with the study; the many runs of a sweep that have not begun in one sentence."""
    said = [sentence for sentence in study.states() if not sentence.startswith("not started yet")]
    missing, asked = len(study.study["runs"]) - len(study.runs), len(study.study["runs"])
    return [*said, f"{missing} of {asked} runs have not started: what follows is of the others."] if missing else said


def _unsure(found: dict[str, Transfer], losses: dict[str, Losses], axis: str) -> list[str]:
    said = []
    for name, one in found.items():
        if one.edges:
            where = listed([f"{axis} {size:g}" for size in dict.fromkeys(size for size, _ in one.edges)])
            said.append(
                f"{name}: the best rate is at the edge of the sweep at {where} ({len(one.edges)} of "
                f"{sum(map(len, one.best.values()))} sweeps): how far it moves is a lower bound."
            )
        if one.diverged:
            said.append(f"{name}: {one.diverged} runs diverged; their rates count as worse than all others.")
        if one.slope and one.slope.seeds == 1:
            said.append(f"{name}: one seed has all sizes, so no interval is known.")
    sizes = {name: tuple(sorted(by_size)) for name, by_size in losses.items()}
    if len(set(sizes.values())) > 1:
        said.append("The parameterisations have different sizes so far: their total moves do not compare.")
    return said


def span(interval: Interval, form: str, scale: float = 1.0) -> str:
    """A mean and its interval, in words."""
    value = format(interval.value * scale, form)
    if interval.low is None or interval.high is None:
        return f"{value} (one seed)"
    return f"{value} ({interval.low * scale:{form}} to {interval.high * scale:{form}})"


def describe(findings: Findings) -> list[str]:
    """Which parameterisation's best rate moves least, how far each moves, and what that costs, in sentences."""
    moved = {name: one for name, one in findings.found.items() if one.slope and one.total}
    if not moved:
        return ["No best rates yet: no seed has three rates at two sizes."]
    order = sorted(moved, key=lambda name: abs(moved[name].slope.value))
    first, sizes = order[0], findings.sizes
    growing = f"{findings.axis} {sizes[0]:g} to {sizes[-1]:g}" + (", width with it" if findings.both else "")
    said = [
        f"Over {growing}, the best learning rate moves least with {first}: by {span(moved[first].slope, '+z.2f')} "
        f"powers of two a doubling, {span(moved[first].total, '+z.2f')} in all."
    ]
    for name in order[1:]:
        less, one = compared(moved[first], moved[name]), moved[name]
        by, whole = span(one.slope, "+z.2f"), span(one.total, "+z.2f")
        said.append(f"With {name} it moves by {by} a doubling, {whole} in all.")
        if less and less.low is not None:
            by = f"{span(less, 'z.2f')} a doubling, paired by seed"
            apart = f"{first} moves less by {by}."
            said[-1] += f" {apart}" if less.low > 0 else f" These seeds can't tell {first} and {name} apart: {by}."
    for name in order:
        if (cost := moved[name].penalty) and finite(cost.value):
            said.append(
                f"{name}: at the best rate of {findings.axis} {sizes[0]:g}, the loss of {findings.axis} {sizes[-1]:g} "
                f"is {span(cost, 'z.1f', 100)} % above its lowest."
            )
    return said


def to_json(findings: Findings) -> dict[str, Any]:
    """The figures of merit."""
    plain = lambda one: None if one is None else vars(one)  # noqa: E731
    return {
        "axis": findings.axis,
        "both": findings.both,
        "warnings": list(findings.warnings),
        "parameterisations": {
            name: {
                "slope_per_doubling": plain(one.slope),
                "total": plain(one.total),
                "penalty": plain(one.penalty),
                "slopes": {str(seed): slope for seed, slope in one.slopes.items()},
                "best": {
                    f"{size:g}": {str(seed): vars(best) for seed, best in by_seed.items()}
                    for size, by_seed in one.best.items()
                },
                "diverged": one.diverged,
                "missing": one.missing,
            }
            for name, one in findings.found.items()
        },
    }
