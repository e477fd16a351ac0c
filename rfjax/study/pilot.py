"""What a finished study tells the design of the next ladder: possible laws, noise, sizes and costs. Imports no JAX."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq, nnls

from rfjax import analysis
from rfjax import config as configs
from rfjax.analysis.candidates import DEEPEST, MORE_EXAMPLES, Ground
from rfjax.analysis.truths import Truths, draw_truths
from rfjax.errors import UserError, nearest
from rfjax.study import comparable, records
from rfjax.study.records import RunRecord
from rfjax.study.reports import scaling_findings

KINDS = ("parameters", "train_flops", "depth")
FIRST = (
    '--config.study.axes.model.depth="(1,2,3,4,5)" --config.study.axes.training.seed="(0,1,2)" and a --config.workdir '
    "of its own"
)
FREE = ("model.depth", "training.seed")  # what may differ between the runs of a pilot


@dataclass(frozen=True)
class Pilot:
    """A finished study as the ground of a design.

    Attributes:
        config: of its largest run, with the section `study` of the study.
        rungs: (name, x, mean loss, seeds), ascending.
        seen: training examples of a run.
        parameters, flops: depth -> parameters; depth -> FLOPs of a run's training.
        speed: depth -> FLOP/s that its runs reached, those of the nearest rung beyond the ends.
        noise: share of a loss by which a run is off the law, by its seed and by what the law misses; the median.
        notes: sentences on what the design supposes."""

    folder: Path
    config: dict[str, Any]
    rungs: tuple[tuple[str, float, float, int], ...]
    seen: int
    parameters: Callable[[float], float]
    flops: Callable[[float], float]
    speed: Callable[[float], float]
    ground: Ground
    noise: float
    notes: tuple[str, ...]


def read(folder: Path, laws: int, seed: int, price: Callable[..., float]) -> Pilot:
    """Reads a pilot.

    Args:
        folder: of the finished study.
        laws: how many to draw from the posterior.
        seed: of those draws.
        price: (FLOPs, FLOP/s that the pilot reached there) -> cost.

    Raises:
        UserError: where the folder holds no pilot that a ladder can be designed from; the message says what to run.
    """
    study = comparable.comparable(records.read(folder))
    section = study.config["study"]
    runs = [run for run in study.runs if run.final(section["weights"])]
    _check_alike(study, runs)
    found = scaling_findings.analyse(study)
    ladder = found.trend.ladder
    rungs = tuple((rung.name, rung.x, rung.loss, rung.seeds) for rung in ladder.rungs)
    by_name = {run.name: run for run in runs}
    first = [by_name[rung.runs[0].name] for rung in ladder.rungs]
    truths = _truths(folder, ladder, section["law"], laws, seed)
    depths = [run.depth for run in first]
    seen = ladder.rungs[0].runs[0].seen
    parameters = _course(depths, [run.size["parameters"] for run in first])
    flops = _course(depths, [run.size["train_flops"] * seen for run in first])
    speed = _speed(first)
    share, notes = _validation(ladder, truths.sigma)
    examples, evaluations = first[-1].config["validation"]["examples"], _evaluations(first[-1])

    def cost(depth: float, count: int) -> float:
        forward = flops(depth) / seen / 3  # training is taken as three times forward
        return price(flops(depth) + 2 * evaluations * count * forward, speed(depth))

    size = parameters if section["x"] == "parameters" else flops
    ground = Ground(
        truths,
        section["law"],
        section["objective"],
        share,
        examples,
        _more(first[-1], share),
        tuple(depths),
        size,
        cost,
    )
    config = first[-1].config | {"study": section}
    noise = float(np.median(truths.sigma))
    return Pilot(folder, config, rungs, seen, parameters, flops, speed, ground, noise, (*notes, ladder.on_seeds))


def _truths(folder: Path, ladder: analysis.Ladder, law: str, laws: int, seed: int) -> Truths:
    """Draws from the posterior; refuses a ladder that is too short, or whose loss does not fall."""
    flat = [(rung.x, loss) for rung in ladder.rungs for loss in rung.losses]
    rng, rungs = np.random.default_rng(seed), ladder.rungs
    try:
        truths = draw_truths([x for x, _ in flat], [y for _, y in flat], law, laws, rng)
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
    kind, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if kind not in KINDS or not 0 < value < float("inf"):
        hint = nearest(kind, KINDS) if kind and kind not in KINDS else ""
        raise UserError(
            f"config.design.target = '{text}' names no size{hint}: write it like parameters=8e9, train_flops=1e21 or "
            "depth=38"
        )
    of = {"parameters": pilot.parameters, "train_flops": pilot.flops, "depth": float}[kind]
    top = pilot.ground.depths[-1]
    if value <= of(top) * (1 + 1e-9):
        raise UserError(
            f"config.design.target = '{text}' lies inside the pilot's ladder, whose largest rung has "
            f"{kind} = {of(top):.4g}: its loss is measured there; ask for {kind}={2 * of(top):.3g} or more"
        )
    if value > of(DEEPEST):
        raise UserError(
            f"config.design.target = '{text}' would need more than {DEEPEST:,} blocks with this config: ask for "
            f"{kind}={of(DEEPEST):.3g} or less"
        )
    depth = brentq(lambda d: of(d) - value, top, DEEPEST)
    return pilot.ground.size(depth), float(depth)


def _check_alike(study: records.Records, runs: Sequence[RunRecord]) -> None:
    """Refuses runs that no one ladder holds."""
    if study.apart:
        raise UserError(
            f"the data of {', '.join(study.apart)} in {study.folder} are not those of the other runs: remove their "
            "folders and train them again before a design"
        )
    for run in runs[1:]:
        changes = configs.differences(runs[0].config, run.config)
        if changes := [said for said in changes if said.split(" ")[0] not in FREE]:
            key = changes[0].split(" ")[0]
            raise UserError(
                f"{runs[0].name} and {run.name} in {study.folder} are no rungs of one ladder ({changes[0]}): name a "
                f"study whose runs differ in model.depth and training.seed alone, such as one without the axis {key}"
            )
    if runs and (odd := [run.name for run in runs if run.steps != runs[0].steps]):
        raise UserError(
            f"{odd[0]} and {runs[0].name} in {study.folder} have different numbers of steps: no law joins them"
        )


def _course(depths: Sequence[int], values: Sequence[float]) -> Callable[[float], float]:
    """A cubic in depth without negative terms: exact for blocks whose width is fixed or goes with depth."""
    d, y = np.array(depths, float), np.array(values, float)
    terms, _ = nnls(np.stack([d**3, d**2, d, np.ones_like(d)], -1) / y[:, None], np.ones_like(y))
    return lambda depth: float(np.polyval(terms, depth))


def _speed(runs: Sequence[RunRecord]) -> Callable[[float], float]:
    """Depth -> FLOP/s, straight between rungs in logarithms."""
    reached = {run.depth: run.train[-1]["flops"] / run.seconds for run in runs if run.train and run.seconds > 0}
    if not reached:
        return lambda depth: float("nan")
    d, rate = zip(*sorted(reached.items()), strict=True)
    return lambda depth: float(np.exp(np.interp(np.log(depth), np.log(d), np.log(rate))))


def _evaluations(run: RunRecord) -> int:
    every = run.config["training"]["validate_every"]
    whole = not 0 < run.config["validation"].get("along", 0) < run.config["validation"]["examples"]  # else few triples
    return max(1, run.steps // every) if every and whole else 1


def _more(run: RunRecord, share: float) -> tuple[int, ...]:
    """Multiples of the pilot's validation examples that the data have; 1 alone where more would change nothing."""
    have = run.data.data.validation.count if run.data.data else None
    asked = run.config["validation"]["examples"]
    return tuple(n for n in MORE_EXAMPLES if n == 1 or (share > 0 and (have is None or n * asked <= have)))


def _validation(ladder: analysis.Ladder, sigma: Any) -> tuple[float, list[str]]:
    """The share of the variance between seeds that is that of a finite number of triples; 0 where it is not known.

    Two seeds of one model differ from triple to triple: half the variance of those differences, over the number of
    triples, is what more of them take away. What all runs share, being on the same triples, is no part of it.
    """
    shares = []
    for rung in ladder.rungs:
        for a, b in itertools.combinations([run for run in rung.runs if run.triples is not None], 2):
            found = analysis.change((a.loss,), (b.loss,), b.triples - a.triples, len(a.levels), None).example_error
            if found is not None and a.triples.size == b.triples.size:
                shares.append(found**2 / 2 / rung.loss**2)
    if not shares:
        return 0.0, [
            "No rung has two seeds with recorded triples: what more validation examples would give is not known."
        ]
    return min(float(np.mean(shares) / np.median(sigma) ** 2), 1.0), []
