"""The page of the job `design`: the question, the answer, what it rests on, the curve of width against cost."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from rfjax import files
from rfjax.analysis.design import Simulated
from rfjax.analysis.truths import Truths
from rfjax.study.reports import drawing, page, widgets

if TYPE_CHECKING:
    from rfjax.study.design import Found

SUPPOSED = (
    "Supposed: the law holds from the smallest rung to the target, the noise is equally large, relative to the loss, "
    "at every size, the learning-rate rule suits the target as it does the rungs, and the target is trained on as many "
    "examples as the pilot's runs. Another number of examples has another law. A bend beyond the pilot is not in the "
    "simulations."
)


def sentences(found: "Found") -> list[str]:
    """The question, the answer and what it rests on."""
    asked, designs, pilot = found.config.design, found.designs, found.pilot
    size = "parameters" if pilot.config["study"]["x"] == "parameters" else "training FLOPs"
    what = f"What is the loss at {asked.target} ({size} {found.x:.3g}, depth {found.depth:.3g})"
    what += f", to an interval {asked.width:.2%} wide with probability {asked.probability:.0%}?" if asked.width else "?"
    said = [what]
    if designs.wanted:
        said.append(f"The cheapest ladder: {ladder(found, designs.wanted)}.")
    elif asked.width:
        best = designs.affordable
        said.append(
            f"Too far: no ladder of at most {designs.limit:.3g} {found.unit} keeps that width there; the narrowest "
            f"found is {best.width(asked.probability):.2%} wide."
        )
        if designs.reach:
            said.append(
                f"Not too far is about {size} {designs.reach[0]:.3g}, by {shape(designs.reach[1])} for "
                f"{designs.reach[1].candidate.cost:.3g} {found.unit}."
            )
        else:
            said.append("No size beyond the pilot is near enough: ask for a wider interval, or allow a larger budget.")
    if found.chosen not in (designs.wanted, designs.affordable):
        said.append("The config file is that ladder's.")
    bound = "the budget" if asked.budget else "the cost of training the target once"
    said.append(
        f"The narrowest for at most {bound} ({designs.limit:.3g} {found.unit}): {ladder(found, designs.affordable)}."
    )
    said.append(
        f"The target itself costs {found.target_cost:.3g} {found.unit} a run. No ladder can promise less than "
        f"{found.least:.2%}: one run is {pilot.noise:.2%} off the law, by its seed and by what the law misses."
    )
    truths = pilot.ground.truths
    said.append(
        f"Pilot: {len(pilot.rungs)} rungs, {sum(row[3] for row in pilot.rungs)} runs, {pilot.seen:,} examples each; "
        f"{_laws(truths, found.x)}"
    )
    return [*said, *pilot.notes, SUPPOSED, f"Answered in {found.seconds:.0f} s."]


def shape(one: Simulated) -> str:
    """A ladder in words."""
    c = one.candidate
    seeds = f"{c.seeds} seed{'s'[: c.seeds != 1]}"
    depths = ", ".join(map(str, c.depths))
    return f"{len(c.depths)} rungs (depths {depths}), {seeds} each, {c.examples:,} validation examples"


def ladder(found: "Found", one: Simulated) -> str:
    """A ladder with its cost and what its simulations gave."""
    asked = found.config.design
    kept = f", {one.kept(asked.width):.0%} of them within {asked.width:.2%}" if asked.width else ""
    return (
        f"{shape(one)}, {one.candidate.cost:.3g} {found.unit}; {asked.probability:.0%} of {len(one.inside)} simulated "
        f"ladders were at most {one.width(asked.probability):.2%} wide{kept}, and {one.inside.mean():.0%} of their "
        "intervals held a new run's loss"
    )


def write(found: "Found") -> Path:
    """Writes curve.png and index.html beside the config; returns the page's path."""
    from rfjax.study.design import flags

    with drawing.style():
        figure = _curve(found)
        with files.atomic(found.path.with_name("curve.png")) as partial:
            figure.savefig(partial, format="png")
        svg = drawing.svg(figure)
        plt.close(figure)
    asked = found.config.design
    rows = [
        [f"{one.candidate.cost:.3g}", ", ".join(map(str, one.candidate.depths)), str(one.candidate.seeds),
         f"{one.candidate.examples:,}", f"{one.candidate.x[-1]:.3g}", f"{one.width(asked.probability):.2%}",
         f"{one.inside.mean():.0%}"]
        for one in found.designs.curve
    ]  # fmt: skip
    header = [f"cost, {found.unit}", "depths", "seeds", "validation examples", "largest rung",
              f"width kept with probability {asked.probability:.0%}", "interval holds"]  # fmt: skip
    said = sentences(found)
    rest = [widgets.note(sentence) for sentence in said[2:]]
    commands = (
        f"python -m rfjax.main --config={found.path}\n\nor the pilot's command with\n{flags(found.chosen.candidate)}"
    )
    pilot = [[widgets.escape(name), f"{x:.4g}", f"{loss:.4f}", str(n)] for name, x, loss, n in found.pilot.rungs]
    body = [
        widgets.headline(said[:2], 1 if found.designs.wanted else 0), *rest,
        widgets.figures({"curve": ("Width of the interval against cost", svg, False)}),
        widgets.section("Ladders that were simulated", header, rows), "<h2>To run it</h2>",
        f"<pre>{widgets.escape(commands)}</pre>",
        widgets.section("The pilot", ["rung", "size", "loss, mean over seeds", "seeds"], pilot),
    ]  # fmt: skip
    path = found.path.with_name("index.html")
    files.write(path, page.shell("Which ladder?", found.pilot.config["study"]["name"], body))
    return path


def _laws(truths: Truths, x: float) -> str:
    """What the pilot's laws say of the target."""
    low, high = np.quantile(truths.loss(np.array([x])), [0.025, 0.975])
    alpha = np.quantile(truths.alpha, [0.025, 0.975])
    return (
        f"its laws have exponents from {alpha[0]:.2f} to {alpha[1]:.2f} and put the target's loss between {low:.4g} "
        f"and {high:.4g} (95 %)."
    )


def _curve(found: "Found") -> Figure:
    asked = found.config.design
    figure, axes = plt.subplots()
    points = [(one.candidate.cost, 100 * one.width(asked.probability)) for one in found.designs.curve]
    axes.plot(*zip(*points, strict=True), "o-", label=f"kept with probability {asked.probability:.0%}")
    axes.axhline(100 * found.least, ls=":", color="grey", label="least: one run's scatter")
    if asked.width:
        axes.axhline(100 * asked.width, ls="--", color="C1", label="wanted")
    if found.designs.wanted:
        one = found.designs.wanted
        axes.plot(one.candidate.cost, 100 * one.width(asked.probability), "*", ms=14, color="C1", label="chosen")
    axes.axvline(found.target_cost, ls=":", color="C3", label="the target, trained once")
    drawing.finish(axes, f"cost, {found.unit}", "width of the 95 % interval, % of the loss")
    return figure
