"""The job `design`: from a pilot to the cheapest ladder that keeps a promise, its config and a page. Imports no JAX."""

import csv
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rfjax import files
from rfjax.analysis import TooFewPoints
from rfjax.analysis.candidates import DEEPEST, candidates, least_width
from rfjax.analysis.design import Designs, Simulated, design
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.jsonl import plain
from rfjax.study import ladder_config
from rfjax.study import pilot as pilots
from rfjax.study.pilot import Pilot

FOLDER = "design"  # within the pilot's work folder
UNITS = {"flops": "FLOPs", "device_hours": "device-hours", "seconds": "seconds"}


@dataclass(frozen=True)
class Found:
    """All that the job answers.

    Attributes:
        config: the job's.
        x: the target's, and `depth` its depth.
        least: the width that noise allows at best.
        target_cost: of one run of the target.
        chosen: the ladder of the written config.
        goes_to: the size that this ladder's promise is about: x, or, where that is too far, what is not.
        path: of that config.
        seconds: that the job took."""

    config: Config
    pilot: Pilot
    x: float
    depth: float
    least: float
    target_cost: float
    designs: Designs
    chosen: Simulated
    goes_to: float
    path: Path
    seconds: float

    @property
    def unit(self) -> str:
        """Of costs, in words."""
        plan, name = self.config.plan, UNITS[self.config.design.unit]
        return f"{name} on {plan.chip} at {plan.utilisation:.0%}" if name == UNITS["device_hours"] else name

    @property
    def promised(self) -> float:
        """The width that the ladder of the written config promises."""
        asked = self.config.design
        kept = self.chosen is self.designs.wanted or self.goes_to != self.x
        return asked.width if kept else float(f"{1.0005 * self.chosen.width(asked.probability):.4g}")


def price_of(config: Config, peak: float) -> Callable[[float, float], float]:
    """(FLOPs, FLOP/s reached here) -> cost, in config.design.unit; peak: of the chip, FLOP/s."""
    if config.design.unit == "seconds":
        return lambda flops, speed: flops / speed
    return lambda flops, speed: flops / (3600 * peak * config.plan.utilisation if config.design.unit != "flops" else 1)


def run(config: Config, peak: float) -> str:
    """Answers, writes design/ in the pilot's folder, and returns what the terminal shows.

    Args:
        peak: FLOP/s of config.plan.chip, for costs in device-hours.

    Raises:
        UserError: where the question, the pilot or the budget allows no answer.
    """
    from rfjax.study.reports import design as report
    from rfjax.study.reports import design_words as words

    found = answer(config, peak)
    files.write(found.path, config_text(found))
    files.write(found.path.with_name("design.json"), json.dumps(plain(record(found)), indent=1, allow_nan=False) + "\n")
    text = io.StringIO()
    csv.writer(text).writerows(curve_rows(found))
    files.write(found.path.with_name("curve.csv"), text.getvalue())
    page = report.write(found)
    return "\n".join([*words.sentences(found), f"config: {found.path}", f"report: {page}"])


def answer(config: Config, peak: float) -> Found:
    """The answer, without writing it."""
    started, asked = time.time(), config.design
    if not asked.target:
        raise UserError(
            "config.design.target is empty: name the size whose loss is wanted, such as "
            "--config.design.target=parameters=8e9"
        )
    price = price_of(config, peak)
    pilot = pilots.read(Path(config.workdir), 2 * asked.trials, asked.seed, price, asked.compare)
    x, depth = pilots.target_of(asked.target, pilot)
    ground = replace(pilot.ground, least_seeds=asked.least_seeds)
    pilot = replace(pilot, ground=ground)
    target_cost = ground.cost(depth, ground.examples)
    if not math.isfinite(target_cost):
        raise UserError(
            f"the runs in {pilot.folder} record no seconds: set config.design.unit to flops or device_hours"
        )
    least = least_width(ground, x, asked.probability)
    if 0 < asked.width <= least:
        raise UserError(
            f"config.design.width = {asked.width:g} is narrower than any ladder can promise: one run is "
            f"{pilot.noise:.2%} off the law by its seed, so a new run's interval is {least:.3g} wide even if the law "
            f"is known; ask for {1.5 * least:.2g} or more"
        )
    limit = (lambda size: asked.budget) if asked.budget else _cost_at(pilot)
    try:
        designs = design(ground, x, limit, width=asked.width, probability=asked.probability, trials=asked.trials)
    except TooFewPoints as error:
        raise UserError(f"no ladder could be simulated: {error}") from error
    if designs is None:
        raise UserError(_too_dear(pilot, x, limit(x), config))
    chosen = designs.wanted or (designs.reach[1] if designs.reach else designs.affordable)
    goes_to = designs.reach[0] if designs.reach else x
    path = pilot.folder / FOLDER / "ladder.py"
    return Found(config, pilot, x, depth, least, target_cost, designs, chosen, goes_to, path, time.time() - started)


def _cost_at(pilot: Pilot) -> Callable[[float], float]:
    """Size of the law -> the cost of training a model of that size once, straight between depths in no axis: solved."""
    from scipy.optimize import brentq

    ground, first = pilot.ground, pilot.ground.depths[0]

    def cost(size: float) -> float:
        if size <= ground.size(first):
            return ground.cost(first, ground.examples)
        return ground.cost(brentq(lambda d: ground.size(d) - size, first, 2 * DEEPEST), ground.examples)

    return cost


def _too_dear(pilot: Pilot, x: float, limit: float, config: Config) -> str:
    """Why no ladder is possible, and the nearest thing that is."""
    cheapest = min(one.cost for one in candidates(pilot.ground, x))
    unit = UNITS[config.design.unit]
    if config.design.budget:
        return f"config.design.budget = {limit:.3g} {unit} pays for no ladder: the cheapest costs {cheapest:.3g} {unit}"
    return (
        f"training the target once costs {limit:.3g} {unit}, less than the cheapest ladder below it ({cheapest:.3g} "
        f"{unit}): train it, or ask for a larger target"
    )


def flags(found: Found) -> str:
    """The ladder as flags that follow the pilot's own command."""
    one, config = found.chosen.candidate, found.pilot.config
    seeds = ladder_config.seeds(config, one.seeds)
    said = f'--config.study.axes.model.depth="{one.depths}" --config.validation.examples={one.examples}'
    return said + (f' --config.study.seeds="{seeds}"' if seeds else "")


def curve_rows(found: Found) -> list[list[Any]]:
    """The curve of width against cost, with its header."""
    rows: list[list[Any]] = [["cost", "depths", "seeds", "examples", "reused", "largest_x", "width", "interval_holds"]]
    for one in found.designs.curve:
        c = one.candidate
        width = one.width(found.config.design.probability)
        rungs = [" ".join(map(str, values)) for values in (c.depths, c.seeds)]
        rows.append([c.cost, *rungs, c.examples, c.reused, c.x[-1], width, one.inside.mean()])
    return rows


def record(found: Found) -> dict[str, Any]:
    """The answer as plain values."""
    asked, designs = found.config.design, found.designs
    describe = lambda one: None if one is None else {  # noqa: E731
        "depths": one.candidate.depths, "seeds": one.candidate.seeds, "validation_examples": one.candidate.examples,
        "reused": one.candidate.reused, "x": one.candidate.x, "cost": one.candidate.cost,
        "width": one.width(asked.probability),
        "kept": one.kept(asked.width) if asked.width else None, "interval_holds": float(one.inside.mean()),
        "told_apart": None if one.apart is None else float(one.apart.mean()),
    }  # fmt: skip
    header, *rows = curve_rows(found)
    return {
        "target": asked.target, "compare": asked.compare, "arms": [arm.value for arm in found.pilot.arms],
        "x": found.x, "depth": found.depth, "width": asked.width,
        "probability": asked.probability, "unit": found.unit, "limit": designs.limit, "target_cost": found.target_cost,
        "least_width": found.least, "noise": found.pilot.noise, "cheapest": describe(designs.wanted),
        "affordable": describe(designs.affordable), "reach": designs.reach and designs.reach[0],
        "of_reach": describe(designs.reach and designs.reach[1]),
        "curve": [dict(zip(header, row, strict=True)) for row in rows],
        "promised": {"width": found.promised, "at": found.goes_to, "probability": asked.probability},
        "pilot": {
            "folder": str(found.pilot.folder), "rungs": [arm.rungs for arm in found.pilot.arms],
            "notes": found.pilot.notes,
        },
    }  # fmt: skip


def config_text(found: Found) -> str:
    """A config file of the chosen ladder; it works in the pilot's folder where it contains runs of the pilot."""
    one, asked = found.chosen.candidate, found.config.design
    workdir = mirror.named(found.config.workdir).rstrip("/") + ("" if one.reused else "_designed")
    about = f"The ladder that `design` chose for {asked.target}."
    if asked.compare:
        target = {"compare": asked.compare, "compare_target": f"{found.pilot.x}={found.goes_to:.10g}"}
        return ladder_config.text(found.pilot.config, one, workdir, about, target)
    promise = {
        "promise": found.promised,
        "promise_at": f"{found.pilot.x}={found.goes_to:.10g}",
        "promise_probability": asked.probability,
    }
    return ladder_config.text(found.pilot.config, one, workdir, about, promise)
