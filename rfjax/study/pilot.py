"""What a finished study tells the design of the next ladder: possible laws, noise, sizes and costs. Imports no JAX."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq

from rfjax import analysis
from rfjax.analysis.candidates import DEEPEST, Ground, Side
from rfjax.analysis.many_spreads import course_of
from rfjax.analysis.surface_candidates import SurfaceGround
from rfjax.analysis.truths import Truths, draw_truths
from rfjax.errors import UserError
from rfjax.study import comparable, ladder_config, pilot_costs, records, targets
from rfjax.study.pilot_checks import by_compute, check_alike, check_quantity, steps_by_depth, two_values, value_of
from rfjax.study.records import RunRecord
from rfjax.study.reports import scaling_findings
from rfjax.study.targets import Target

KEY = "config.design.target"
FIRST = (
    '--config.study.axes.model.depth="(1,2,3,4,5)" --config.study.axes.training.seed="(0,1,2)" and a --config.workdir '
    "of its own"
)
UNKNOWN = "No rung has two seeds with recorded triples: what more validation examples would give is not known."


@dataclass(frozen=True)
class Arm:
    """One design of a pilot.

    Attributes:
        value: of the axis that is compared; "" where none is.
        rungs: (name, x, mean loss, seeds), ascending.
        losses: depth -> seed -> loss.
        parameters, flops: depth -> parameters; depth -> FLOPs of a run's training.
        noise: share of a loss by which a run is off the law, by its seed and by what the law misses; the median."""

    value: Any
    rungs: tuple[tuple[str, float, float, int], ...]
    losses: dict[int, dict[int, float]]
    parameters: Callable[[float], float]
    flops: Callable[[float], float]
    noise: float

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(self.losses)


@dataclass(frozen=True)
class Pilot:
    """A finished study as the ground of a design.

    Attributes:
        config: of the study.
        x: what the law is a function of, "parameters" or "train_flops".
        arms: one; or two, whose second is the one that the target is of.
        seen: depth -> training examples of a run.
        notes: sentences on what the design supposes."""

    folder: Path
    config: dict[str, Any]
    x: str
    arms: tuple[Arm, ...]
    seen: Callable[[float], int]
    ground: Ground | SurfaceGround
    notes: tuple[str, ...]

    @property
    def on_grid(self) -> bool:
        """Whether token budgets are asked for as well: the law is a surface L(N, D)."""
        return isinstance(self.ground, SurfaceGround)

    @property
    def runs(self) -> int:
        """How many runs it rests on."""
        return sum(rung[3] for arm in self.arms for rung in arm.rungs)

    @property
    def noise(self) -> float:
        """Of the arm that the target is of."""
        return self.arms[-1].noise


def read(folder: Path, laws: int, seed: int, price: Callable[..., float], compare: str = "") -> Pilot:
    """Reads a pilot.

    Args:
        folder: of the finished study.
        laws: how many to draw from the posterior.
        seed: of those draws.
        price: (FLOPs, FLOP/s that the pilot reached there) -> cost.
        compare: an axis whose two values are the designs to compare; "": one design.

    Raises:
        UserError: where the folder holds no pilot that a ladder can be designed from; the message says what to run.
    """
    study = comparable.comparable(records.read(folder))
    if compare:
        study = by_compute(study)
    section = study.config["study"]
    runs = [run for run in study.runs if run.final(section["weights"])]
    values = two_values(study, runs, compare) if compare else ("",)
    check_alike(study, runs, compare)
    if compare:
        check_quantity(runs, compare, values, section["weights"])
    contained = {many: ladder_config.contained(study.config, runs, many) for many in (True, False)}
    named = bool(contained[True])
    there = contained[named]
    parts = []
    for i, value in enumerate(values):
        own = tuple(run for run in runs if not compare or value_of(run.config, compare) == value)
        parts.append(_arm(dataclasses.replace(study, runs=own), value, there, price, (laws, seed + i)))
    arms, sides, ladders = zip(*parts, strict=True)
    shares = [pilot_costs.validation_share(one, side.truths.sigma) for one, side in zip(ladders, sides, strict=True)]
    share, largest = min(shares), max(runs, key=lambda run: run.depth)
    ground = Ground(
        sides,
        section["law"],
        section["objective"],
        share,
        largest.config["validation"]["examples"],
        pilot_costs.more_examples(largest, share),
        arms[-1].depths,
        named=named,
        correlation=pilot_costs.correlation(arms[0].losses, arms[1].losses) if compare else 0.0,
    )
    said = [] if share else [UNKNOWN]
    if lost := sorted(set(study.study["runs"]) - {run.name for run in runs}):
        said.append(f"No part of the pilot, since it has no final loss: {', '.join(lost)}.")
    said += [(f"{arm.value}: " if compare else "") + one.on_seeds for arm, one in zip(arms, ladders, strict=True)]
    return Pilot(folder, study.config, section["x"], arms, _seen(study.config), ground, tuple(said))


def _arm(
    study: records.Records,
    value: Any,
    there: Mapping[str, RunRecord],
    price: Callable[..., float],
    draw: tuple[int, int],
) -> tuple[Arm, Side, analysis.Ladder]:
    """One design: its laws, sizes and costs, and those of its runs that a ladder may contain.

    Args:
        study: with the finished runs of this design alone.
        there: the runs that a ladder may contain.
        draw: how many laws, and the seed.
    """
    section, seen = study.config["study"], _seen(study.config)
    ladder = scaling_findings.analyse(study).trend.ladder
    by_name = {run.name: run for run in study.runs}
    first = [by_name[rung.runs[0].name] for rung in ladder.rungs]
    truths = _truths(study.folder, ladder, section["law"], *draw)
    depths = [run.depth for run in first]
    parameters = pilot_costs.course(depths, [run.size["parameters"] for run in first])
    each = pilot_costs.course(depths, [run.size["train_flops"] for run in first])
    speed, evaluations = pilot_costs.speeds(first), pilot_costs.evaluations(study.config)

    def flops(depth: float) -> float:
        return each(depth) * seen(depth)

    def cost(depth: float, count: int) -> float:
        forward = each(depth) / 3  # training is taken as three times forward
        return price(flops(depth) + 2 * evaluations(depth) * count * forward, speed(depth))

    losses, done = {}, {}
    for run, rung in zip(first, ladder.rungs, strict=True):
        losses[run.depth] = {by_name[one.name].seed: one.loss for one in rung.runs}
        kept = {by_name[one.name].seed: one.loss for one in rung.runs if one.name in there}
        if not ladder_config.seeded(study.config):
            kept = dict(enumerate(kept.values()))  # its one seed is the config's own
        counted = itertools.takewhile(lambda n, kept=kept: n in kept, itertools.count())
        done[run.depth] = np.array([kept[n] for n in counted])
    size = parameters if section["x"] == "parameters" else flops
    rungs = tuple((rung.name, rung.x, rung.loss, rung.seeds) for rung in ladder.rungs)
    arm = Arm(value, rungs, losses, parameters, flops, float(np.median(truths.sigma)))
    return arm, Side(truths, size, cost, done), ladder


def _seen(config: Mapping[str, Any]) -> Callable[[float], int]:
    """Depth -> examples of a run."""
    steps = steps_by_depth(config)
    return lambda depth: config["training"]["batch"] * steps(depth)


def _truths(folder: Path, ladder: analysis.Ladder, law: str, laws: int, seed: int) -> Truths:
    """Draws from the posterior; refuses a ladder that is too short, or whose loss does not fall."""
    flat = [(rung.x, loss) for rung in ladder.rungs for loss in rung.losses]
    rng, rungs = np.random.default_rng(seed), ladder.rungs
    try:
        truths = draw_truths(
            [x for x, _ in flat], [y for _, y in flat], law, laws, rng, course=course_of(ladder.spread)
        )
    except analysis.TooFewPoints as error:
        raise UserError(
            f"the pilot in {folder} has {len(rungs)} finished rung{'s'[: len(rungs) != 1]} ({len(flat)} runs), and "
            f"{error}: run a study first with {FIRST}"
        ) from error
    if truths is None or rungs[-1].loss >= rungs[0].loss:
        raise UserError(
            f"the loss in {folder} does not fall with size ({rungs[0].name}: {rungs[0].loss:.4g}, {rungs[-1].name}: "
            f"{rungs[-1].loss:.4g}), so no law predicts a larger model: find the learning rate of each rung first, as "
            "--config=configs/scaling.py:learning_rate does, or train for longer"
        )
    return truths


def target_of(text: str, pilot: Pilot) -> tuple[float, float]:
    """The target's x and its depth, which need not be a whole number.

    Raises:
        UserError: if the text is no target, or it lies inside the pilot's ladder.
    """
    target = targets.read(text, KEY)
    kind, value = target.kind, target.value
    arm = pilot.arms[-1]
    of = {"parameters": arm.parameters, "train_flops": arm.flops, "depth": float}[kind]
    top = pilot.ground.depths[-1]
    if value <= of(top) * (1 + 1e-9):
        raise UserError(
            f"{KEY} = '{text}' lies inside the pilot's ladder, whose largest rung has "
            f"{kind} = {of(top):.4g}: its loss is measured there; ask for {kind}={2 * of(top):.3g} or more"
        )
    depth = depth_of(text, target, of, top)
    return pilot.ground.size(depth), depth


def depth_of(text: str, target: Target, of: Callable[[float], float], least: float) -> float:
    """The depth at which `of`, which rises with it, has the target's value; `least` is below it.

    Raises:
        UserError: if no depth has it.
    """
    if target.value > of(DEEPEST):
        raise UserError(
            f"{KEY} = '{text}' would need more than {DEEPEST:,} blocks with this config: ask for "
            f"{target.kind}={of(DEEPEST):.3g} or less"
        )
    return float(brentq(lambda d: of(d) - target.value, least, DEEPEST))
