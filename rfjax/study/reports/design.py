"""The page of the job `design`: the question, the answer, what it rests on, the curve of width against cost."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from rfjax import files
from rfjax.analysis.design import Simulated
from rfjax.study.reports import design_words as words
from rfjax.study.reports import drawing, page, widgets

if TYPE_CHECKING:
    from rfjax.study.design import Found

SHOWN = 100.0  # times the value: wider intervals are not drawn


def write(found: "Found") -> Path:
    """Writes curve.png and index.html beside the config; returns the page's path."""
    from rfjax.study.design import flags

    with drawing.style():
        figure = _curve(found)
        with files.atomic(found.path.with_name("curve.png")) as partial:
            figure.savefig(partial, format="png")
        svg = drawing.svg(figure)
        plt.close(figure)
    commands = f"python -m rfjax.main --config={found.path}\n\nor the pilot's command with\n{flags(found)}"
    pilot = [
        [widgets.escape(name), f"{x:.4g}", f"{loss:.4f}", str(n)]
        for arm in found.pilot.arms
        for name, x, loss, n in arm.rungs
    ]
    said = words.answers(found)
    body = [
        widgets.headline([words.question(found), said[0]], 1 if found.designs.wanted else 0),
        *[widgets.note(sentence) for sentence in said[1:]],
        widgets.figures({"curve": ("Width of the interval against cost", svg, False)}),
        "<h2>What would narrow it</h2>", *[widgets.note(sentence) for sentence in words.narrower(found)],
        "<h2>To run it</h2>", f"<pre>{widgets.escape(commands)}</pre>",
        "<h2>What it rests on</h2>", *[widgets.note(sentence) for sentence in words.grounds(found)],
        widgets.section("Ladders that were simulated", *_table(found)),
        widgets.section("The pilot", ["rung", "size", "loss, mean over seeds", "seeds"], pilot),
    ]  # fmt: skip
    path = found.path.with_name("index.html")
    files.write(path, page.shell("Which ladder?", found.pilot.config["study"]["name"], body))
    return path


def _table(found: "Found") -> tuple[list[str], list[list[str]]]:
    """The header and rows of the simulated ladders."""
    probability = found.config.design.probability
    budgets = found.pilot.on_grid
    header = [f"cost, {found.unit}", "depths", "seeds", *["steps"] * budgets]
    header += ["validation examples", "of the pilot", "largest rung"]
    header += [f"width kept with probability {probability:.0%}", "interval holds"]
    header += ["told apart"] if len(found.pilot.arms) == 2 else []

    def row(one: Simulated) -> list[str]:
        c = one.candidate
        grid = [", ".join(map(str, part)) for part in (c.depths, c.seeds, *[c.budgets] * budgets)]
        cells = [f"{c.cost:.3g}", *grid, f"{c.examples:,}",
                 f"{c.reused} runs", f"{c.x[-1]:.3g}", words.width(one.width(probability)),
                 f"{one.inside.mean():.0%}"]  # fmt: skip
        return cells + ([] if one.apart is None else [f"{one.apart.mean():.0%}"])

    return header, [row(one) for one in found.designs.curve]


def _curve(found: "Found") -> Figure:
    asked, price = found.config.design, found.target_cost
    figure, axes = plt.subplots()
    shown = [one for one in found.designs.curve if one.width(asked.probability) < SHOWN]
    points = [(one.candidate.cost, 100 * one.width(asked.probability)) for one in shown if one.candidate.cost]
    axes.plot(*zip(*points or [((), ())], strict=True), "o", color="C0", alpha=0.5, label="simulated ladders")
    best = [one for one in words.envelope(found) if one in shown]
    if free := [one for one in best if not one.candidate.cost]:  # a cost of 0 has no place on a logarithmic axis
        axes.axhline(100 * free[0].width(asked.probability), ls="-.", color="C0", label="the pilot alone")
    best = [one for one in best if one.candidate.cost]
    cost, width = [one.candidate.cost for one in best], [100 * one.width(asked.probability) for one in best]
    if best:  # none where nothing that costs is narrower than the pilot alone
        axes.step([*cost, max(points)[0]], [*width, width[-1]], where="post", color="C0",
                  label=f"least that is kept with probability {asked.probability:.0%}")  # fmt: skip
    if found.least:
        axes.axhline(100 * found.least, ls=":", color="grey", label="least: one run's scatter")
    if asked.width:
        axes.axhline(100 * asked.width, ls="--", color="C1", label="wanted")
    if found.designs.wanted and found.designs.wanted.candidate.cost:
        one = found.designs.wanted
        axes.plot(one.candidate.cost, 100 * one.width(asked.probability), "*", ms=14, color="C1", label="chosen")
    what = "both designs at the target" if len(found.pilot.arms) == 2 else "the target"
    axes.axvline(price, ls=":", color="C3", label=f"{what}, trained once")
    if found.config.design.budget:
        axes.axvline(found.designs.limit, ls="--", color="C3", label="allowed")
    if width and max(width) > 30 * min(width):
        axes.set_yscale("log")
    of = "multiplier" if len(found.pilot.arms) == 2 else "loss"
    drawing.finish(axes, f"cost of the runs that are not there yet, {found.unit}",
                   f"width of the 95 % interval, % of the {of}")  # fmt: skip
    return figure
