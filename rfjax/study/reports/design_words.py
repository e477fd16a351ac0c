"""What the job `design` says: the question, the answer, what would narrow it, what it rests on, in sentences."""

from typing import TYPE_CHECKING

import numpy as np

from rfjax.analysis import target_multiplier
from rfjax.analysis.design import Simulated

if TYPE_CHECKING:
    from rfjax.study.design import Found

SUPPOSED = (
    "Supposed: the law holds from the smallest rung to the target, the noise, relative to the loss, {noise}, the "
    "learning-rate rule suits the target as it does the rungs, and {steps}. A bend beyond the pilot is not in the "
    "simulations."
)
SUPPOSED_ON_GRID = (
    "Supposed: the law E + A N^-alpha + B D^-beta holds from the smallest and shortest run to the target, the noise, "
    "relative to the loss, is equally large at every size and budget, and the learning-rate rule suits all of them as "
    "it does the pilot's runs; examples are fresh, for data that repeat are worth less. A bend beyond the pilot is not "
    "in the simulations."
)
NEARLY = 0.97  # of the least width before: dearer ladders that narrow it by less are not named


def sentences(found: "Found") -> list[str]:
    """The whole answer, the question first, for the terminal."""
    return [question(found), *answers(found), *narrower(found), *grounds(found), f"Answered in {found.seconds:.0f} s."]


def question(found: "Found") -> str:
    asked = found.config.design
    where = f"{asked.target} ({_size(found)} {found.x:.3g}, depth {found.depth:.3g})"
    if found.pilot.on_grid:
        n, d = found.pilot.ground.target
        where = f"{asked.target} (parameters {n:.3g}, depth {found.depth:.3g}, on {d:,.0f} examples)"
    if len(found.pilot.arms) == 2:
        first, second = (arm.value for arm in found.pilot.arms)
        what = f"How many times less compute does {second} need than {first} for its loss at {where}"
    else:
        what = f"What is the loss at {where}"
    to = f", to an interval {width(asked.width)} wide with probability {asked.probability:.0%}" if asked.width else ""
    return f"{what}{to}?"


def answers(found: "Found") -> list[str]:
    """The cheapest ladder, or why there is none and what is near; the narrowest for the money; the target's price."""
    asked, designs = found.config.design, found.designs
    said, best = [], designs.affordable
    if designs.wanted:
        free = "" if designs.wanted.candidate.cost else "The pilot's own runs do it, and nothing need be trained. "
        said.append(f"{free}The cheapest ladder: {ladder(found, designs.wanted)}.")
    elif asked.width:
        said.append(
            f"Too far: no ladder of at most {designs.limit:.3g} {found.unit} keeps that width there; the narrowest "
            f"found is {width(best.width(asked.probability))} wide."
        )
        if designs.reach:
            said.append(
                f"Not too far is about {_place(found, designs.reach[0])}, by {shape(found, designs.reach[1])} for "
                f"{designs.reach[1].candidate.cost:.3g} {found.unit}."
            )
        else:
            said.append("No size beyond the pilot is near enough: ask for a wider interval, or allow a larger budget.")
    if found.chosen not in (designs.wanted, designs.affordable):
        said.append("The config file is that ladder's.")
    bound = "the budget" if asked.budget else "the cost of training the target once"
    said.append(f"The narrowest for at most {bound} ({designs.limit:.3g} {found.unit}): {ladder(found, best)}.")
    said += [_apart(found)] if len(found.pilot.arms) == 2 else []
    both = " of both designs" if len(found.pilot.arms) == 2 else ""
    return [*said, f"The target itself costs {found.target_cost:.3g} {found.unit} a run{both}."]


def _apart(found: "Found") -> str:
    """Whether the ladders within the limit tell two designs apart."""
    asked, limit = found.config.design, found.designs.limit
    within = [one for one in (*found.designs.curve, found.designs.affordable) if one.candidate.cost <= limit]
    best = max(within, key=lambda one: (float(one.apart.mean()), -one.candidate.cost))
    share = float(best.apart.mean())
    rows = [side.truths for side in found.pilot.ground.sides]
    now = target_multiplier.true_multiplier(*rows, np.array([found.x]))[:, 0]
    low, high = np.quantile(now, [0.025, 0.975], method="inverted_cdf")
    first, second = (arm.value for arm in found.pilot.arms)
    never = float(np.mean(~np.isfinite(now)))
    now = f"The pilot's laws put the multiplier between {low:.2g} and {high:.2g} (95 %)."
    if never:
        now += f" By {never:.0%} of them no size of {first} has the loss of {second} there."
    if share >= asked.probability:
        return (
            f"{now} {share:.0%} of simulated ladders for {best.candidate.cost:.3g} {found.unit} tell the two apart: "
            "their interval leaves out 1."
        )
    return (
        f"{now} For at most {limit:.3g} {found.unit} no ladder that was simulated tells the two apart with probability "
        f"{asked.probability:.0%}: at best {share:.0%} of the intervals leave out 1."
    )


def narrower(found: "Found") -> list[str]:
    """What a narrower interval costs, and how narrow it can get."""
    asked = found.config.design
    now = found.chosen.width(asked.probability)
    more = [one for one in envelope(found) if one.width(asked.probability) < NEARLY * now]
    more = [one for one in more if one.candidate.cost > found.chosen.candidate.cost][:4]
    rows = [f"{width(one.width(asked.probability))} for {one.candidate.cost:.3g} {found.unit}" for one in more]
    said = [f"Narrower, with the same probability: {'; '.join(rows)}."] if rows else []
    said += [] if said else ["No ladder that was simulated, up to four times the limit, is much narrower."]
    if found.least:
        said.append(
            f"No ladder can promise less than {width(found.least)}: one run is {found.pilot.noise:.2%} off the law, by "
            "its seed and by what the law misses."
        )
    return said


def grounds(found: "Found") -> list[str]:
    """What the answer rests on."""
    pilot = found.pilot
    if pilot.on_grid:
        return _grounds_of_grid(found)
    rungs = " and ".join(f"{len(arm.rungs)} rungs" for arm in pilot.arms)
    smallest, largest = (pilot.seen(pilot.ground.depths[i]) for i in (0, -1))
    examples = f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"
    steps = (
        "the target is trained on as many examples as the pilot's runs. Another number of examples has another law"
        if smallest == largest
        else "the target is trained by the pilot's rule for steps, whose losses follow one law in size"
    )
    said = [f"Pilot: {rungs}, {pilot.runs} runs, {examples} examples each; {_laws(found)}", *pilot.notes]
    if len(pilot.arms) == 2:
        said.append(
            f"Runs of one depth and seed of both designs share noise: correlation {pilot.ground.correlation:.2f}."
        )
    even = all(side.truths.course.slope == 0 for side in pilot.ground.sides)
    noise = "is equally large at every size" if even else "goes with size as in the pilot"
    return [*said, SUPPOSED.format(noise=noise, steps=steps)]


def _grounds_of_grid(found: "Found") -> list[str]:
    """What an answer of token budgets rests on."""
    pilot, ground = found.pilot, found.pilot.ground
    low, high = np.quantile(ground.truths.loss(ground.at(1.0)), [0.025, 0.975])
    alpha, beta = (np.quantile(ground.truths.theta[:, i], [0.025, 0.975]) for i in (3, 4))
    first, last = (steps * ground.batch for steps in (ground.budgets[0], ground.budgets[-1]))
    trained = "branches of one trunk for each depth and seed" if ground.branched else "runs trained apart"
    said = (
        f"Pilot: {len(ground.depths)} depths at {len(ground.budgets)} budgets of {first:,} to {last:,} examples, "
        f"{pilot.runs} runs, {trained}; its surfaces have exponents from {alpha[0]:.2f} to {alpha[1]:.2f} in size and "
        f"{beta[0]:.2f} to {beta[1]:.2f} in data, and put the target's loss between {low:.4g} and {high:.4g} (95 %)."
    )
    return [said, *pilot.notes, SUPPOSED_ON_GRID]


def shape(found: "Found", one: Simulated) -> str:
    """A ladder in words."""
    c = one.candidate
    if c.budgets:
        return _shape_of_grid(found, one)
    few, many = min(c.seeds), max(c.seeds)
    seeds = f"{few} seed{'s'[: few != 1]} each" if few == many else f"seeds {', '.join(map(str, c.seeds))}"
    arms = len(found.pilot.arms)
    new = arms * sum(c.seeds) - c.reused
    runs = f"; {c.reused} runs are the pilot's, and {new or 'none'} {'is' if new == 1 else 'are'} new" * bool(c.reused)
    both = " of both designs" * (arms == 2)
    depths = ", ".join(map(str, c.depths))
    return f"{len(c.depths)} rungs{both} (depths {depths}), {seeds}, {c.examples:,} validation examples{runs}"


def _shape_of_grid(found: "Found", one: Simulated) -> str:
    """A grid of depths and token budgets in words."""
    c, batch = one.candidate, found.pilot.ground.batch
    new = sum(c.seeds) * len(c.budgets) - c.reused
    kind = "trunks" if found.pilot.ground.branched else "runs of each budget"
    runs = f"; {c.reused} runs are the pilot's, and {new or 'none'} {'is' if new == 1 else 'are'} new" * bool(c.reused)
    depths, seeds, budgets = (", ".join(map(str, part)) for part in (c.depths, c.seeds, c.budgets))
    return (
        f"depths {depths} with {seeds} seeds ({sum(c.seeds)} {kind}), each trained for {budgets} steps "
        f"({c.budgets[0] * batch:,} to {c.budgets[-1] * batch:,} examples){runs}"
    )


def ladder(found: "Found", one: Simulated) -> str:
    """A ladder with its cost and what its simulations gave."""
    asked = found.config.design
    kept = f", {one.kept(asked.width):.0%} of them within {width(asked.width)}" if asked.width else ""
    held = "a new run's loss" if one.apart is None else "the true multiplier"
    return (
        f"{shape(found, one)}; {one.candidate.cost:.3g} {found.unit}; {asked.probability:.0%} of {len(one.inside)} "
        f"simulated ladders were at most {width(one.width(asked.probability))} wide{kept}, and "
        f"{one.inside.mean():.0%} of their intervals held {held}"
    )


def width(value: float) -> str:
    """A relative width for people."""
    return f"{value:.2%}" if value < 10 else "over ten times its value" if np.isfinite(value) else "without an end"


def envelope(found: "Found") -> list[Simulated]:
    """Of the simulated ladders, those that no cheaper one beats; the cheapest at least."""
    kept, best = [], np.inf
    for one in found.designs.curve:
        if (here := one.width(found.config.design.probability)) < best or not kept:
            kept.append(one)
            best = here
    return kept


def _place(found: "Found", x: float) -> str:
    """A size of the law in words."""
    if found.pilot.on_grid:
        n, d = found.pilot.ground.at(x)
        return f"parameters {n:.3g} on {d:.3g} examples"
    return f"{_size(found)} {x:.3g}"


def _size(found: "Found") -> str:
    return "parameters" if found.pilot.x == "parameters" else "training FLOPs"


def _laws(found: "Found") -> str:
    """What the pilot's laws say of the target."""
    said, arms = [], found.pilot.arms
    for arm, side in zip(arms, found.pilot.ground.sides, strict=True):
        low, high = np.quantile(side.truths.loss(np.array([found.x])), [0.025, 0.975])
        alpha = np.quantile(side.truths.alpha, [0.025, 0.975])
        of = f" of {arm.value}" * (len(arms) == 2)
        said.append(
            f"its laws{of} have exponents from {alpha[0]:.2f} to {alpha[1]:.2f} and put the target's loss between "
            f"{low:.4g} and {high:.4g} (95 %)"
        )
    return "; ".join(said) + "."
