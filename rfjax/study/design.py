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

from scipy.optimize import brentq

from rfjax import files
from rfjax.analysis import TooFewPoints
from rfjax.analysis.candidates import DEEPEST, candidates, least_width
from rfjax.analysis.design import Designs, Simulated, design
from rfjax.analysis.surface_candidates import candidates as grid_candidates
from rfjax.analysis.surface_candidates import least_width as grid_width
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.jsonl import plain
from rfjax.study import ladder_config, pilot_surface, targets
from rfjax.study import pilot as pilots
from rfjax.study.pilot import Pilot

FOLDER = "design"  # within the pilot's work folder
UNITS = {"flops": "FLOPs", "device_hours": "device-hours", "seconds": "seconds"}


@dataclass(frozen=True)
class Found:
    """All that the job answers.

    Attributes:
        config: the job's.
        x: the target's, and `depth` its depth; with token budgets the share of the way to the target, which is 1.
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

    def at(self, x: float, form: str = ".10g") -> str:
        """A size as a target is written."""
        if not self.pilot.on_grid:
            return f"{self.pilot.x}={x:{form}}"
        n, d = self.pilot.ground.at(x)
        return f"parameters={n:{form}},examples={d:{form}}"

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
    pilot, x, depth = _asked(config, price)
    ground, cost_at = pilot.ground, _cost_at(pilot)
    target_cost = cost_at(x)
    if not math.isfinite(target_cost):
        raise UserError(
            f"the runs in {pilot.folder} record no seconds: set config.design.unit to flops or device_hours"
        )
    least = grid_width(ground, asked.probability) if pilot.on_grid else least_width(ground, x, asked.probability)
    if 0 < asked.width <= least:
        raise UserError(
            f"config.design.width = {asked.width:g} is narrower than any ladder can promise: one run is "
            f"{pilot.noise:.2%} off the law by its seed, so a new run's interval is {least:.3g} wide even if the law "
            f"is known; ask for {1.5 * least:.2g} or more"
        )
    limit = (lambda size: asked.budget) if asked.budget else cost_at
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


def _asked(config: Config, price: Callable[[float, float], float]) -> tuple[Pilot, float, float]:
    """The pilot, the target's x and its depth."""
    asked, folder = config.design, Path(config.workdir)
    target = targets.read(asked.target, pilots.KEY)
    if target.examples is None:
        pilot = pilots.read(folder, 2 * asked.trials, asked.seed, price, asked.compare)
        x, depth = pilots.target_of(asked.target, pilot)
    elif asked.compare:
        raise UserError(
            f"config.design.compare asks for a multiplier of compute along one rule for steps, and {pilots.KEY} = "
            f"'{asked.target}' names examples: leave one of them out"
        )
    else:
        pilot = pilot_surface.read(folder, asked.target, target, (2 * asked.trials, asked.seed), price)
        x, depth = 1.0, _depth_of(pilot, pilot.ground.target[0])
    return replace(pilot, ground=replace(pilot.ground, least_seeds=asked.least_seeds)), x, depth


def _depth_of(pilot: Pilot, size: float) -> float:
    """The depth of a size of the law, which need not be a whole number; at least the pilot's first."""
    first = pilot.ground.depths[0]
    if size <= pilot.ground.size(first):
        return float(first)
    return float(brentq(lambda d: pilot.ground.size(d) - size, first, 2 * DEEPEST))


def _cost_at(pilot: Pilot) -> Callable[[float], float]:
    """Size of the law, or share of the way to a target of both -> the cost of training such a model once."""
    ground = pilot.ground
    if not pilot.on_grid:
        return lambda size: ground.cost(_depth_of(pilot, size), ground.examples)

    def cost(share: float) -> float:
        n, d = ground.at(share)
        return ground.sides[0].run(_depth_of(pilot, n), d / ground.batch, 0)

    return cost


def _too_dear(pilot: Pilot, x: float, limit: float, config: Config) -> str:
    """Why no ladder is possible, and the nearest thing that is."""
    tried = grid_candidates(pilot.ground) if pilot.on_grid else candidates(pilot.ground, x)
    cheapest = min(one.cost for one in tried)
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
    said += f' --config.study.axes.training.steps="{one.budgets}"' if one.budgets else ""
    return said + (f' --config.study.seeds="{seeds}"' if seeds else "")


def curve_rows(found: Found) -> list[list[Any]]:
    """The curve of width against cost, with its header; budgets, in steps, where they are asked for."""
    budgets = ["budgets"] * found.pilot.on_grid
    header = ["cost", "depths", "seeds", *budgets, "examples", "reused", "largest_x", "width", "interval_holds"]
    rows: list[list[Any]] = [header]
    for one in found.designs.curve:
        c = one.candidate
        width = one.width(found.config.design.probability)
        rungs = [" ".join(map(str, values)) for values in (c.depths, c.seeds, *([c.budgets] if c.budgets else []))]
        rows.append([c.cost, *rungs, c.examples, c.reused, c.x[-1], width, one.inside.mean()])
    return rows


def record(found: Found) -> dict[str, Any]:
    """The answer as plain values."""
    asked, designs = found.config.design, found.designs
    describe = lambda one: None if one is None else {  # noqa: E731
        "depths": one.candidate.depths, "seeds": one.candidate.seeds, "validation_examples": one.candidate.examples,
        "budgets": one.candidate.budgets, "reused": one.candidate.reused, "x": one.candidate.x,
        "cost": one.candidate.cost,
        "width": one.width(asked.probability),
        "kept": one.kept(asked.width) if asked.width else None, "interval_holds": float(one.inside.mean()),
        "told_apart": None if one.apart is None else float(one.apart.mean()),
    }  # fmt: skip
    header, *rows = curve_rows(found)
    reach = designs.reach and designs.reach[0]
    x = {"x": found.x, "reach": reach, "promised_at": found.goes_to}
    if found.pilot.on_grid:
        x = {
            "x": found.pilot.ground.target,
            "reach": reach and found.pilot.ground.at(reach).tolist(),
            "promised_at": found.pilot.ground.at(found.goes_to).tolist(),
        }  # parameters and examples
    return {
        "target": asked.target, "compare": asked.compare, "arms": [arm.value for arm in found.pilot.arms],
        "x": x["x"], "depth": found.depth, "width": asked.width,
        "probability": asked.probability, "unit": found.unit, "limit": designs.limit, "target_cost": found.target_cost,
        "least_width": found.least, "noise": found.pilot.noise, "cheapest": describe(designs.wanted),
        "affordable": describe(designs.affordable), "reach": x["reach"],
        "of_reach": describe(designs.reach and designs.reach[1]),
        "curve": [dict(zip(header, row, strict=True)) for row in rows],
        "promised": {"width": found.promised, "at": x["promised_at"], "probability": asked.probability},
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
        target = {"compare": asked.compare, "compare_target": found.at(found.goes_to)}
        return ladder_config.text(found.pilot.config, one, workdir, about, target)
    promise = {
        "promise": found.promised if found.promised <= 1 else 0.0,  # a wider one says nothing, and the key has no room
        "promise_at": found.at(found.goes_to),
        "promise_probability": asked.probability,
    }
    return ladder_config.text(found.pilot.config, one, workdir, about, promise)
