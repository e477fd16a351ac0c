"""Designs of a scaling study side by side: `study.compare` names the axis whose values are designs.

Each design has a ladder and a law of its own; every two are compared at each rung and at the target, by
`rfjax.analysis.compare`. The rest of the report is of the first design alone.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rfjax import analysis
from rfjax import config as configs
from rfjax.analysis.compare import Design, Pair, compare, make_design
from rfjax.analysis.contrasts import Place
from rfjax.analysis.fit import plain
from rfjax.analysis.multipliers import Estimate
from rfjax.config.grid import SEED
from rfjax.study.records import Records, RunRecord
from rfjax.study.reports.compare import listed
from rfjax.study.reports.scaling_findings import measured_of, size_of

SIZES = "model."  # axes whose values are rungs: of the others a design takes that of the lowest loss at each size
COURSE = 12  # sizes at which the multiplier is drawn
# Keys of a config's section `data` that make no other validation triple.
OPERATIONAL = ("changed", "outside", "cache_mb", "readers", "flip", "synthetic_share")


@dataclass(frozen=True)
class Comparison:
    """All that a study says of its designs.

    Attributes:
        axis: what tells them apart, as `study.compare` has it.
        target: as `study.compare_target` has it.
        levels: of t in the validation.
        refused: (A, B, why their losses are no one quantity).
    """

    axis: str
    x: str
    law: str
    target: str
    designs: tuple[Design, ...]
    pairs: tuple[Pair, ...]
    refused: tuple[tuple[str, str, str], ...]
    warnings: tuple[str, ...]


def designs_of(records: Records) -> dict[str, list[RunRecord]]:
    """Design -> its runs, in the order of the axis; {} where the study compares none."""
    keys = configs.compared_keys(records.config["study"].get("compare", ""))
    found: dict[str, list[RunRecord]] = {}
    for run in records.runs if keys else ():
        found.setdefault(configs.design_of(run.config, keys), []).append(run)
    return found


def one_ladder(records: Records) -> Records:
    """The study with the runs of its first design alone; as it is where it compares none."""
    found = designs_of(records)
    if not found:
        return records
    runs = tuple(next(iter(found.values())))
    return dataclasses.replace(records, runs=runs, study=records.study | {"runs": [run.name for run in runs]})


def analyse_designs(records: Records) -> Comparison | None:
    """Compares the designs; None where the study compares none."""
    study, found = records.config["study"], designs_of(records)
    if not found:
        return None
    law, said = study["law"], []
    ladders = {name: _ladder(name, runs, study, said) for name, runs in found.items()}
    designs = {name: make_design(name, places, law) for name, places in ladders.items() if places}
    said += [f"{name} has no finished run: it is not compared." for name in ladders if name not in designs]
    levels = next((len(end["levels"]) for run in records.runs if (end := run.final(study["weights"]))), 1)
    asked = configs.target_of(study.get("compare_target", ""))
    pairs, refused, names = [], [], list(designs)
    for a, b in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        if why := why_not(found[a], found[b], study["weights"]):
            refused.append((a, b, why))
        else:
            pairs.append(compare(designs[a], designs[b], _target(asked, study["x"], designs[b]), levels, COURSE))
    said += [f"{a} and {b} are not compared: {why}." for a, b, why in refused]
    said += [f"{p.a} and {p.b} are not compared at the target: {p.reason}" for p in pairs if p.reason]
    said += [f"{p.a} and {p.b} have no rung in common." for p in pairs if not p.rungs]
    said += _on_errors(pairs)
    axis, target = study["compare"], study.get("compare_target", "")
    return Comparison(axis, study["x"], law, target, tuple(designs.values()), tuple(pairs), tuple(refused), tuple(said))


def _target(asked: tuple[str, float] | None, x: str, design: Design) -> float:
    """The target's x of a design; 0: that of its largest rung."""
    if asked is None:
        return 0.0
    kind, value = asked
    return value if kind == x or len(design.rungs) < 2 else design.size(value)


def _ladder(name: str, runs: Sequence[RunRecord], study: dict[str, Any], said: list[str]) -> list[Place]:
    """The rungs of a design, as the law of one ladder has them; what is left out of it is said."""
    x, weights = study["x"], study["weights"]
    finished = {run.name: run for run in runs if not run.trunk and run.final(weights)}
    lost = [
        analysis.Lost(run.name, size_of(run, x), run.setting, reason)
        for run in runs
        if (reason := run.why_lost(weights)) and not run.trunk
    ]
    ladder = analysis.build_ladder([measured_of(run, x, weights) for run in finished.values()], lost)
    said += [f"{name}: {sentence}" for sentence in ladder.warnings]
    places = []
    others = [key for key in study["axes"] if key not in configs.compared_keys(study["compare"])]
    keys = [key for key in others if key.startswith(SIZES)]
    chosen = {rung.name: finished[rung.runs[0].name].config for rung in ladder.rungs}
    said += [f"{name}: {s}" for key in others if not key.startswith(SIZES) for s in _edges(key, study, chosen)]
    for rung in ladder.rungs:
        own = [finished[one.name] for one in rung.runs]
        words = (f"{key.rpartition('.')[2]} {configs.design_of(own[0].config, (key,))}" for key in keys)
        curves = {
            run.seed: tuple(zip(*((line["flops"], line["loss"]) for line in run.curve(weights)), strict=True))
            for run in own
        }
        losses = {run.seed: float(run.final(weights)["loss"]) for run in own}
        triples = {run.seed: run.examples[weights] for run in own if weights in run.examples}
        flops = size_of(own[0], "train_flops")
        places.append(Place(", ".join(words) or rung.name, rung.x, flops, losses, triples, curves))
    return places


def _edges(key: str, study: dict[str, Any], chosen: dict[str, Any]) -> list[str]:
    """What is said of rungs that take the lowest or the highest of three or more values of an axis.

    Args:
        chosen: rung -> the config of its runs.
    """
    values = sorted(value for value in study["axes"][key] if isinstance(value, int | float))
    if len(values) < 3 or key == SEED:
        return []
    said = []
    for edge, word, other in ((values[0], "lowest", "lower"), (values[-1], "highest", "higher")):
        section, _, last = key.rpartition(".")
        if names := [name for name, config in chosen.items() if config[section][last] == edge]:
            verb = "takes" if len(names) == 1 else "take"
            said.append(f"{listed(names)} {verb} the {word} {key} that was tried, {edge:g}: a {other} may do better.")
    return said


def why_not(a: Sequence[RunRecord], b: Sequence[RunRecord], weights: str) -> str:
    """Why the validation losses of two designs can't be compared; "" where they are of one quantity.

    The same triple has to have the same example, t and noise, and the network the same thing to predict there.
    """
    ends = [[(run, end) for run in runs if (end := run.final(weights))] for runs in (a, b)]
    if not all(ends):
        return "one of them has no finished run"
    grids = [{end["grid"] for _, end in part} for part in ends]
    if grids[0] != grids[1] or len(grids[0]) > 1:
        return f"they were validated on different grids of t ({', '.join(sorted(grids[0] | grids[1]))})"
    first, second = ({run.config["flow"]["formulation"] for run in runs} for runs in (a, b))
    if len(set(map(configs.validated, first | second))) > 1:
        return (
            f"{listed(sorted(first))} and {listed(sorted(second))} predict different quantities, or see other mixes of "
            "data and noise, so that their losses are on different scales: rank them by samples, with "
            "config.study.report = 'formulations'"
        )
    return _other_data([run for runs in (a, b) for run in runs])


def _other_data(runs: Iterable[RunRecord]) -> str:
    known: dict[str, Any] = {}
    for run in runs:
        asked = {key: value for key, value in run.config["data"].items() if key not in OPERATIONAL}
        parts = {f"config.data.{key}": value for key, value in asked.items()}
        parts["config.autoencoder.path"] = run.config.get("autoencoder", {}).get("path")
        parts["config.validation.examples"] = run.config["validation"]["examples"]
        if run.data.data is not None:
            parts["the recorded validation examples"] = run.data.data.validation.content
        for key, value in parts.items():
            if known.setdefault(key, value) != value:
                return f"they were validated on other data ({key} differs)"
    return ""


def _on_errors(pairs: Sequence[Pair]) -> list[str]:
    """What the intervals lack, and whether the laws fit."""
    found = [pair for pair in pairs if pair.rungs]
    said = []
    if lone := [f"{p.a} and {p.b}" for p in found if all(rung.seeds < 2 for rung in p.rungs)]:
        said.append(
            f"{listed(lone)} have fewer than two seeds in common at every rung: how much of a difference at a rung is "
            "luck is not known, and at the target the residuals about the laws alone say it."
        )
    if blind := [f"{p.a} and {p.b}" for p in found if p.rungs[0].difference.triples is None]:
        said.append(f"{listed(blind)} can't be paired by triples: their intervals lack the error over examples.")
    for p in found:
        if p.target and p.target.misfit is not None and p.target.misfit < 0.05:
            said.append(
                f"The laws of {p.a} and {p.b} leave more scatter about them than seeds explain (p = "
                f"{p.target.misfit:.2g}): their interval at the target rests on that scatter alone."
            )
    return said


def percent(log: float) -> str:
    """A difference of logarithms in per cent."""
    return f"{100 * math.expm1(log):+.2f} %"


def span(value: float, low: float, high: float) -> str:
    """A factor with its interval: "1.30 (1.10 to 1.60)"; an end that is not bounded is said to be so."""
    if not math.isfinite(low):
        return "any number of"
    if not math.isfinite(value):
        return f"more than {low:.3g}" if low > 0 else "an unknown number of"
    if low <= 0 and not math.isfinite(high):
        return f"{value:.3g} (no bound either way)"
    ends = f"{low:.3g} to {high:.3g}" if math.isfinite(high) and low > 0 else ""
    return f"{value:.3g} ({ends or (f'{low:.3g} or more' if low > 0 else f'{high:.3g} or less')})"


def sentence(pair: Pair, x: str) -> str:
    """The verdict on two designs at the target."""
    found = pair.target
    if found is None:
        return f"{pair.a} and {pair.b} are not compared at a target: {pair.reason}"
    size = f"{found.x:,.0f} parameters" if x == "parameters" else f"{found.x:.3g} training FLOPs"
    far = f", {found.beyond:.3g} times its largest rung" if found.beyond > 1.001 else ""
    where = f"at the loss of {found.loss:.4f}, that of {pair.b}'s law at {size}{far}"
    better, worse, compute, sizes = (pair.b, pair.a, found.compute, found.size)
    if found.compute.value < 1:
        better, worse = worse, better
        compute, sizes = (_inverse(one) for one in (compute, sizes))
    needs = f"{better} needs {span(*compute)} times less compute than {worse}"
    if x == "parameters":
        needs += f" and {span(*sizes)} times fewer parameters"
    if found.clear:
        return f"{needs} {where}."
    if found.seeds is None:
        more = f"up to 99 seeds a rung would not tell{_examples(found)}"
    else:
        more = f"{found.seeds} seeds a rung would tell by compute, if the difference is what it looks like"
    return f"{pair.a} and {pair.b} can't be told apart by compute {where}: {needs}; {more}."


def _inverse(one: Any) -> Any:
    over = lambda value: math.inf if value == 0 else 1 / value  # noqa: E731
    return type(one)(over(one.value), over(one.high), over(one.low))


def _examples(found: Any) -> str:
    blurred = found.same.triples is not None and found.same.runs is not None and found.same.triples > found.same.runs
    return ": more validation examples would narrow it" if blurred else ""


def at_rungs(pair: Pair) -> str:
    """The verdict at the largest rung that both have: the loss, and the compute along the runs."""
    if not pair.rungs:
        return ""
    last = pair.rungs[-1]
    half = last.difference.half
    ends = f" (95 % {percent(last.difference.value - half)} to {percent(last.difference.value + half)})"
    said = f"At {last.name} {pair.b} ends {percent(last.difference.value)}{ends if math.isfinite(half) else ''} off"
    return f"{said} {pair.a}'s loss{_along(pair, last.at_loss.at_end)}."


def _along(pair: Pair, found: Estimate | None) -> str:
    """How much less compute the better of two needs where the slower ends."""
    if found is None:
        return ""
    better = pair.b
    if found.value < 1:
        better, ends = pair.a, (found.low, found.high)
        low, high = (None, None) if None in ends else (1 / ends[1], 1 / ends[0])
        found = Estimate(1 / found.value, low, high)
    return f"; at equal loss along these runs {better} needs {found.text('.3g')} times less compute"


def fit_records(found: Comparison) -> list[dict[str, Any]]:
    """The law of each design, and each pair, as records of fits.json."""
    common = {"of": "validation loss, mean over levels", "compare": found.axis}
    laws = [
        common | {"design": d.name} | (d.fit.record() if d.fit else {"law": None, "reason": d.reason})
        for d in found.designs
    ]
    pairs = [common | {"law": None, "pair": _without_curves(plain(pair))} for pair in found.pairs]
    return [*laws, *pairs, *({**common, "law": None, "refused": row} for row in found.refused)]


def _without_curves(pair: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in pair.items() if key != "course"}
