"""What a finished study of depths and token budgets tells the design of the next one. Imports no JAX."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import analysis
from rfjax import config as configs
from rfjax.analysis.design import AT_ONCE
from rfjax.analysis.surface_candidates import SurfaceGround, SurfaceSide
from rfjax.analysis.surface_truths import SurfaceTruths, draw_surfaces
from rfjax.config.grid import SIZE, STEPS
from rfjax.errors import UserError
from rfjax.study import comparable, ladder_config, pilot_costs, records
from rfjax.study.pilot import KEY, Arm, Pilot, depth_of
from rfjax.study.pilot_checks import check_alike
from rfjax.study.records import RunRecord
from rfjax.study.targets import Target

MODEL = "--config=configs/scaling.py:surface"


def read(folder: Path, text: str, target: Target, draw: tuple[int, int], price: Callable[..., float]) -> Pilot:
    """Reads a pilot whose law is a surface L(N, D), and places the target in it.

    Args:
        folder: of the finished study.
        text: the target as it was written, for messages.
        target: with its examples.
        draw: how many surfaces, and the seed.
        price: (FLOPs, FLOP/s that the pilot reached there) -> cost.

    Raises:
        UserError: where the folder holds no such pilot, or the target lies inside it; the message says what to do.
    """
    study = comparable.comparable(records.read(folder))
    section = study.config["study"]
    runs = [run for run in study.runs if run.final(section["weights"])]
    _check(study, runs, text)
    branched = bool(section["branches"])
    truths = _truths(study, runs, branched, draw)
    each = {run.depth: run for run in runs}
    depths = sorted(each)
    size = pilot_costs.course(depths, [each[d].size["parameters"] for d in depths])
    flops = pilot_costs.course(depths, [each[d].size["train_flops"] for d in depths])
    contained = {many: ladder_config.contained(study.config, runs, many) for many in (True, False)}
    named = bool(contained[True])
    side = SurfaceSide(
        truths,
        size,
        _cost(study.config, flops, pilot_costs.speeds(runs), price),
        configs.from_dict(study.config).optimizer.decay_start if branched else None,
        _done(contained[named].values(), section["weights"], ladder_config.seeded(study.config)),
    )
    batch, budgets = study.config["training"]["batch"], sorted({run.steps for run in runs})
    ground = SurfaceGround(
        (side,),
        batch,
        tuple(depths),
        tuple(budgets),
        (size(_depth(text, target, size, depths)), float(target.examples)),
        study.config["validation"]["examples"],
        named=named,
    )
    _check_outside(text, target, ground)
    cells = tuple(_cells(runs, section["weights"]))
    arm = Arm("", cells, {}, size, lambda depth: flops(depth) * ground.target[1], float(np.median(truths.sigma)))
    lost = sorted(set(study.study["runs"]) - {run.name for run in runs})
    said = [f"No part of the pilot, since it has no final loss: {', '.join(lost)}."] if lost else []
    seen = lambda depth: int(batch * budgets[-1])  # noqa: E731
    return Pilot(folder, study.config, "parameters", (arm,), seen, ground, (*said, _on_noise(truths, branched)))


def _check(study: records.Records, runs: Sequence[RunRecord], text: str) -> None:
    """Refuses a study that is no pilot of token budgets."""
    section, folder = study.config["study"], study.folder
    if not section["surface"] or STEPS not in section["axes"] or SIZE not in section["axes"]:
        raise UserError(
            f"{KEY} = '{text}' asks for a number of examples, and the study in {folder} fits no surface "
            f"L(N, D) over depths and token budgets: run a pilot like {MODEL}, or leave examples= out"
        )
    if study.config["training"]["steps_exponent"]:
        raise UserError(
            f"the runs in {folder} have steps that follow depth (config.training.steps_exponent), and a grid of token "
            f"budgets has the same at every depth: run a pilot like {MODEL}"
        )
    if section["objective"] != AT_ONCE:
        raise UserError(
            f"a design of token budgets fits squared errors of the loss's logarithm: set config.study.objective = "
            f"'{AT_ONCE}' in the pilot, not '{section['objective']}'"
        )
    check_alike(study, runs, "", budgets=True)


def _truths(study: records.Records, runs: Sequence[RunRecord], branched: bool, draw: tuple[int, int]) -> SurfaceTruths:
    """Draws from the posterior; refuses a pilot that is too small, or whose loss rises."""
    weights, (laws, seed) = study.config["study"]["weights"], draw
    at = np.array([[run.size["parameters"], run.final(weights)["examples"]] for run in runs], float).reshape(-1, 2)
    losses = np.array([run.final(weights)["loss"] for run in runs], float)
    groups = [(run.depth, run.seed) if branched else run.name for run in runs]
    depths, budgets = (len(set(at[:, i])) for i in (0, 1))
    trunks = len(set(groups))
    what = f"{trunks} {'trunk' if branched else 'run'}{'s'[: trunks != 1]} of {depths} depths and {budgets} budgets"
    try:
        found = draw_surfaces(at, losses, groups, laws, np.random.default_rng(seed))
    except analysis.TooFewPoints as error:
        raise UserError(
            f"the pilot in {study.folder} has {what}, and {error}: run a pilot with more, such as {MODEL} "
            '--config.study.seeds="(2,2,1)"'
        ) from error
    slopes = np.linalg.lstsq(np.column_stack([np.ones(len(at)), np.log(at)]), np.log(losses), rcond=None)[0][1:]
    for slope, name in zip(slopes, ("size", "data"), strict=True):
        if slope >= 0:
            mend = {
                "size": "find the learning rate of each depth first, as --config=configs/scaling.py:learning_rate does",
                "data": "the longer runs need a lower learning rate, or fresh examples",
            }[name]
            raise UserError(
                f"the loss in {study.folder} does not fall with {name} (it goes as {name}^{slope:.2g} over the pilot), "
                f"so no surface predicts more of it: {mend}"
            )
    if found is None:
        raise UserError(
            f"the runs in {study.folder} ({what}) hardly allow a surface whose loss falls with size and data: their "
            'noise hides it; add seeds (--config.study.seeds="(3,3,2,2,1)"), or spread depths and budgets wider'
        )
    return found


def _cost(
    config: Mapping[str, Any],
    flops: Callable[[float], float],
    speed: Callable[[float], float],
    price: Callable[..., float],
) -> Callable[[float, float, int], float]:
    """(depth, steps, first step) -> the cost of a run from that step on; training is taken as three times forward."""
    training, validation = config["training"], config["validation"]
    every, count = training["validate_every"], validation["examples"]
    whole = not 0 < validation.get("along", 0) < count  # else few triples along the run

    def cost(depth: float, steps: float, first: int) -> float:
        often = max(1, int(steps) // every - first // every) if every and whole else 1
        examples = training["batch"] * (steps - first) + 2 * often * count / 3
        return price(flops(depth) * examples, speed(depth))

    return cost


def _done(runs: Sequence[RunRecord], weights: str, seeded: bool) -> dict[tuple[int, int], dict[int, float]]:
    """(depth, seed) -> steps -> loss; without seeds in names, the one seed is the config's own, called 0."""
    found: dict[tuple[int, int], dict[int, float]] = {}
    for run in runs:
        found.setdefault((run.depth, run.seed if seeded else 0), {})[run.steps] = float(run.final(weights)["loss"])
    return found


def _cells(runs: Sequence[RunRecord], weights: str) -> list[tuple[str, float, float, int]]:
    """Name, parameters, mean loss and seeds at each depth and budget."""
    found: dict[tuple[int, int], list[RunRecord]] = {}
    for run in runs:
        found.setdefault((run.depth, run.steps), []).append(run)
    return [
        (f"d{d}, {some[0].final(weights)['examples']:,} examples", float(some[0].size["parameters"]),
         float(np.mean([run.final(weights)["loss"] for run in some])), len(some))
        for (d, _), some in sorted(found.items())
    ]  # fmt: skip


def _depth(text: str, target: Target, size: Callable[[float], float], depths: Sequence[int]) -> float:
    """The target's depth."""
    of = {"parameters": size, "depth": float}[target.kind]
    if target.value < of(depths[0]):
        raise UserError(
            f"{KEY} = '{text}' is smaller than the pilot's smallest model, of {target.kind} = "
            f"{of(depths[0]):.4g}: ask for that or more"
        )
    return depth_of(text, target, of, depths[0] * (1 - 1e-9))


def _check_outside(text: str, target: Target, ground: SurfaceGround) -> None:
    """Refuses a target inside the pilot's grid, or of fewer examples than any of its runs."""
    (n, d), (most_n, most_d) = ground.target, ground.at(0.0)
    least = ground.budgets[0] * ground.batch
    if d < least:
        raise UserError(
            f"{KEY} = '{text}' has fewer examples than the pilot's shortest runs, {least:,}: ask for that or more"
        )
    if n <= most_n * (1 + 1e-9) and d <= most_d * (1 + 1e-9):
        largest = f"{most_n:.4g} parameters (depth {ground.depths[-1]}) and {most_d:,.0f} examples"
        raise UserError(
            f"{KEY} = '{text}' lies inside the pilot's grid, which goes up to {largest}: its loss is "
            f"measured there; ask for {target.kind}={target.value:g},examples={2 * most_d:.3g}, or for a larger model"
        )


def _on_noise(truths: SurfaceTruths, branched: bool) -> str:
    """The noise, as the pilot's runs tell it."""
    median = lambda values: f"{100 * float(np.median(values)):.2g} %"  # noqa: E731
    if not branched:
        return f"One run is {median(truths.sigma)} off the surface; runs trained apart share nothing."
    return (
        f"One run is {median(truths.sigma)} off the surface: {median(truths.between)} by its trunk, which its branches "
        f"share, and {median(truths.within)} of its own."
    )
