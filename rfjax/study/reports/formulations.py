"""The report of a contest of formulations: Table 1, Table 2 and Fig. 3 of SD3, the paper's numbers beside ours."""

import math
from typing import Any

from rfjax import names
from rfjax.analysis import Contest
from rfjax.study.records import Records
from rfjax.study.reports import paper, widgets
from rfjax.study.reports.compare import dataset_name, known_floors, listed
from rfjax.study.reports.formulations_figures import HIGHLIGHT, TABLE_2_STEPS, colour, figures, table_2_settings
from rfjax.study.reports.formulations_findings import Findings, Setting, analyse, to_json, variant_of
from rfjax.study.reports.page import Report
from rfjax.study.reports.widgets import NONE, Tables, bold_best, escape, formatted, note, section, table
from rfjax.study.run_records import finite

COLUMNS = {"all": "all", "five": "5 steps", "fifty": "50 steps"}  # of Table 1
TABLE_2 = {"imagenet_clip": ("higher", ".3f"), "imagenet_fid": ("lower", ".2f"),
           "cc12m_clip": ("higher", ".3f"), "cc12m_fid": ("lower", ".2f")}  # fmt: skip


def _rank_rows(contest: Contest) -> list[tuple[Any, ...]]:
    """Table 1: the rows of ranks.csv."""
    rows = []
    for variant in contest.ranked:
        column, places = contest.columns["all"], contest.agreements["all"].places.get(variant, (None, None))
        here = [contest.columns[name].average[variant] if name in contest.columns else None for name in COLUMNS]
        published = paper.TABLE_1.get(variant) or [None] * len(COLUMNS)
        interval = column.interval[variant] or (None, None)
        rows.append((variant, *here, column.spread[variant], *interval, places[0], *published, places[1]))
    return rows


def tables(study: Records, findings: Findings) -> Tables:
    """ranks.csv (Table 1 and the paper's) and scores.csv (everything that was measured)."""
    contest, scores = findings.contest, []
    beside = [(key, name, q.key) for q in findings.quantities
              for name, key in (("values", q.key), ("errors", q.error), ("floors", q.floor)) if key]  # fmt: skip
    for setting in contest.settings:
        for variant, m in contest.measures[setting].items():
            values = (*(getattr(m, name)[quantity] for _, name, quantity in beside), m.path_length)
            front = contest.fronts.get(setting, {}).get(variant)
            known = [value if math.isfinite(value) else None for value in values]
            scores.append((variant, *setting, *known, m.step, len(m.by_seed), m.grid, front))
    header = ("variant", *COLUMNS, "spread_over_settings", "low", "high", "place",
              *(f"paper_{name}" for name in COLUMNS), "paper_place")  # fmt: skip
    columns = (*Setting._fields, *(key for key, *_ in beside), "path_length", "step", "seeds", "grid", "front")
    return {"ranks": (header, _rank_rows(contest)), "scores": (("variant", *columns), scores)}


def subtitle(study: Records) -> str:
    c = study.config
    datasets = list(dict.fromkeys(run.dataset for run in study.runs)) or [dataset_name(c)]
    return (
        f"Formulations of flow matching and diffusion (SD3 section 5.1) on {' and '.join(datasets)}: "
        f"{c['model']['backbone']} of depth {c['model']['depth']}, batch {c['training']['batch']}, "
        f"{c['training']['steps']:,} steps"
    )


def opening(study: Records, findings: Findings) -> str:
    """The headline in its box: green where the interval of Spearman's correlation is above 0, red below."""
    agreements = findings.contest.agreements
    spearman = agreements["all"].correlations.get("Spearman") if agreements else None
    return widgets.headline(describe(findings), spearman.sign if spearman else 0)


def describe(findings: Findings) -> list[str]:
    """Who wins here, who wins in the paper, how far the two orders agree, in sentences."""
    contest = findings.contest
    if not contest.columns:
        return [findings.warnings[-1] if contest.measures else "No ranks yet: no run has left scores."]
    agreement, average = contest.agreements["all"], contest.columns["all"].average
    first, stands = min(paper.TABLE_1, key=lambda variant: paper.TABLE_1[variant].all), ""
    if first in average and first not in contest.winners:
        stands = f" Here it has {average[first]:.2f}, place {list(average).index(first) + 1}."
    said = [
        contest.verdict,
        f"In the paper {first} wins with {paper.TABLE_1[first].all:.2f} of {paper.POOL} variants over {paper.SETTINGS} "
        f"settings.{stands}",
        *_on_rates(findings),
    ]
    if not agreement.correlations:
        return [*said, agreement.reason]
    n = len(agreement.places)
    return [*said, f"Our ranks and the paper's correlate, over the {n} variants of both: {agreement.text}."]


def _on_rates(findings: Findings) -> list[str]:
    """At whose learning rate the variants are compared."""
    kinds = list(dict.fromkeys(names.prediction(variant) for variant in findings.contest.ranked))
    if findings.rates.choices:
        return ["Variants whose learning rate was swept are compared at the one with their lowest validation loss."]
    if len(kinds) < 2 or len(findings.rates.used) != 1:
        return []
    return [
        f"One learning rate, {findings.rates.used[0]:g}, serves predictions of {', '.join(kinds)}: configs/formulations"
        ".py has it from rf, so the comparison is at rf's rate, not at each prediction's own (the study :learning_rate "
        "measures those)."
    ]


def lines(study: Records, findings: Findings) -> list[str]:
    contest = findings.contest
    said = [f"{'average rank':>24}  {'all':>6} {'5':>6} {'50':>6}   paper's all"] if contest.columns else []
    for variant, *numbers in _rank_rows(contest):
        shown = " ".join(f"{formatted(rank, '.2f'):>6}" for rank in numbers[: len(COLUMNS)])
        published = paper.TABLE_1.get(variant)
        said.append(f"{variant:>24}  {shown}   {published.all if published else NONE}")
    return [*said, "", *describe(findings)]


def sections(study: Records, findings: Findings) -> list[str]:
    return [
        _ranks(findings), _quality(findings), widgets.rate_section(findings.rates.choices, str), _parts(findings),
        _samples(study, findings), _runs(study),
    ]  # fmt: skip


def _ranks(findings: Findings) -> str:
    contest = findings.contest
    if not contest.columns:
        return ""
    rows = []
    for variant, rank, five, fifty, spread, low, high, here, *theirs, there in _rank_rows(contest):
        span = "one seed: not known" if low is None else f"{low:.2f} to {high:.2f}"
        ours = [formatted(value, ".2f") for value in (spread, five, fifty)]
        published = [formatted(value, ".2f") for value in theirs]
        places = [formatted(place, "g") for place in (here, there)]
        rows.append([_name(variant), formatted(rank, ".2f"), span, *ours, places[0], *published, places[1]])
    counts = ", ".join(f"{len(c.by_setting)} in '{COLUMNS[name]}'" for name, c in contest.columns.items())
    absent = [variant for variant in paper.TABLE_1 if variant not in contest.ranked]
    steps, seeds = list(COLUMNS.values())[1:], len(contest.seeds)
    return section(
        "Average rank (Table 1)",
        ["variant", "all", "95 %, seeds", "spread, settings", *steps, "place", "all", *steps, "place"], rows,
        "In each setting (data set x weights x sampler) the Pareto fronts of "
        f"{listed([q.label for q in findings.quantities])} are numbered from 1; a rank is that number, averaged over "
        f"settings ({counts}; the columns by steps at guidance {contest.guidance:g}, with EMA and raw weights). 95 %: "
        f"Student t over seeds, of which there {'is 1' if seeds == 1 else f'are {seeds}'}. Spread: the standard "
        "deviation over settings, which share their training runs: no error of the rank. The paper counts fronts among "
        "61 variants, so compare places: the order among the variants of both tables, ties sharing the mean. "
        f"{contest.on_grids} Validation losses rank nothing here: formulations have different targets, and their "
        "losses are not comparable. "
        + (f"In the paper's table but not ranked here: {', '.join(absent)}. " if absent else "")
        + f"Paper: {paper.SOURCE}.",
        groups=[("", 1), (f"here, of {len(rows)}", 6), (f"the paper, of {paper.POOL}", 4)],
    )  # fmt: skip


def _quality(findings: Findings) -> str:
    contest = findings.contest
    ours = {s: contest.measures[s] for s in table_2_settings(contest)}
    header, cells = ["variant"], []
    for measured in ours.values():
        for q in findings.quantities:
            errors = {v: f" ± {e:.2g}" for v, m in measured.items() if math.isfinite(e := m.errors[q.key])}
            drawn = {v: m.values[q.key] for v, m in measured.items() if m.drawn}
            cells.append(bold_best(drawn, q.form, q.better, errors))
            header.append(q.label.removesuffix(" distance"))
    for field, (better, form) in TABLE_2.items():
        cells.append(bold_best({v: getattr(row, field) for v, row in paper.TABLE_2.items()}, form, better))
    shown = [v for v in contest.variants if any(v in found for found in ours.values())]
    rows = [[_name(v), *(column.get(v, NONE) for column in cells)] for v in shown]
    old = "not known, for these scores were made before it was measured"
    floors = [
        f"{setting.dataset} {known_floors(((m.count, m.floors) for m in found.values()), q.key) or old}"
        for setting, found in ours.items()
        for q in findings.quantities
        if q.floor
    ]
    return section(
        f"Quality at {TABLE_2_STEPS} steps (Table 2)", [*header, "CLIP", "FID", "CLIP", "FID"], rows,
        f"EMA weights, guidance {contest.guidance:g}; by average rank; best of each column in bold (the paper's: of "
        "its whole table). ± is the standard error over samples (of a distance by a bootstrap; where it is missing, it "
        "was not kept). Scores: higher is better; distances: lower, down to the floor, what as many true pictures "
        f"have: {'; '.join(floors)}.",
        groups=[("", 1), *((f"{s.dataset}, here", len(findings.quantities)) for s in ours),
                ("ImageNet, the paper", 2), ("CC12M, the paper", 2)],
    )  # fmt: skip


def _parts(findings: Findings) -> str:
    """A quantity by its parts, such as the score by skill or digit, at the setting with the best mean."""
    said, contest = [], findings.contest
    for dataset, q in ((dataset, q) for dataset in contest.datasets for q in findings.quantities if q.parts):
        best = contest.parts_setting(dataset, q.key)
        if best is None:
            continue
        found = {v: m for v, m in contest.measures[best].items() if m.drawn}
        broken = [v for v in contest.measures[best] if v not in found]
        parts = list(dict.fromkeys(name for m in found.values() for name in m.parts[q.key]))
        columns = [bold_best({v: m.values[q.key] for v, m in found.items()}, q.form, q.better)]
        for part in parts:
            known = {v: m.parts[q.key][part] for v, m in found.items() if finite(m.parts[q.key].get(part))}
            columns.append(bold_best(known, ".2f", q.better))
        rows = [[_name(v), *(c.get(v, NONE) for c in columns)] for v in contest.variants if v in found]
        without = f" Without {', '.join(broken)}, whose pictures are not finite." if broken else ""
        words = f"At the setting where the variants score highest on average: {best}.{without}"
        title = f"{q.label[0].upper()}{q.label[1:]} by part: {dataset}"
        said.append(section(title, ["variant", "all", *parts], rows, words))
    return "".join(said)


def _samples(study: Records, findings: Findings) -> str:
    """Pictures by variant, the captions across, a table for each data set."""
    said = []
    for dataset in dict.fromkeys(run.dataset for run in study.runs):
        found = {variant_of(run): run for run in reversed(study.runs) if run.dataset == dataset}  # the first of each
        order = dict.fromkeys([*findings.contest.variants, *map(variant_of, study.runs)])
        shown = {v: found[v] for v in order if v in found}
        said.append(widgets.samples(shown, "ema", f"Samples: {dataset}", turned=True))
    return "".join(said)


def _runs(study: Records) -> str:
    rows = []
    for run in study.runs:
        ema = [line["step"] for (weights, _), line in run.last_scores().items() if weights == "ema"]
        steps = [f"{run.steps:,}", f"{ema[-1]:,}" if ema else NONE]
        rows.append([escape(run.name), escape(run.state), *steps, f"{run.seconds:.0f}"])
    said = note("Scored: the weights of the step with the lowest validation loss under EMA weights (App. B.3).")
    return "<h2>Runs</h2>" + table(["run", "state", "steps", "scored at step", "seconds"], rows) + said


def _name(variant: str) -> str:
    """The variant beside a dot in the colour of its family."""
    text = escape(variant)
    return widgets.dotted(f"<b>{text}</b>" if variant == HIGHLIGHT else text, colour(variant))


REPORT = Report("ranking.json", analyse, to_json, tables, figures, subtitle, opening, sections, lines)
