"""The report of a contest of formulations: Table 1, Table 2 and Fig. 3 of SD3, the paper's numbers beside ours."""

import html
import math
from collections.abc import Callable

from rfjax.study.records import Records
from rfjax.study.reports import contest, contest_figures, page, paper, rates
from rfjax.study.reports.contest import Findings
from rfjax.study.reports.contest_figures import HIGHLIGHT, SCORES, TABLE_2_STEPS, colour, table_2_settings
from rfjax.study.reports.contest_sentences import floor_of, grid_sentence, headline
from rfjax.study.reports.measures import Setting, canonical, finite

FILE = "ranking.json"
find, record, figures = contest.find, contest.record, contest_figures.figures

COLUMNS = {"all": "all", "five": "5 steps", "fifty": "50 steps"}  # of Table 1
NONE = "–"
NOT_KNOWN = "one seed: not known"


def tables(study: Records, findings: Findings) -> page.Tables:
    """ranks.csv (Table 1 and the paper's) and scores.csv (everything that was measured)."""
    header = [
        "variant",
        *COLUMNS,
        "spread_over_settings",
        "low",
        "high",
        "place",
        *(f"paper_{name}" for name in COLUMNS),
        "paper_place",
    ]
    ranks = []
    for variant in findings.ranked:
        low, high = findings.columns["all"].interval[variant] or ("", "")
        ours, theirs = findings.places["all"].get(variant, ("", ""))
        published = paper.TABLE_1.get(variant)
        ranks.append(
            (
                variant,
                *(findings.columns[name].average[variant] if name in findings.columns else "" for name in COLUMNS),
                *("" if (spread := findings.columns["all"].spread[variant]) is None else spread, low, high, ours),
                *(getattr(published, name) if published else "" for name in COLUMNS),
                theirs,
            )
        )
    fronts = findings.columns["all"].by_setting if findings.columns else {}
    scores = [
        (variant, *setting, *(value if math.isfinite(value) else "" for value in
         (m.score, m.stderr, m.frechet, m.frechet_stderr, m.floor, m.path_length)), m.step, len(m.by_seed), m.grid,
         fronts.get(setting, {}).get(variant, ""))
        for setting in findings.settings
        for variant, m in findings.measures[setting].items()
    ]  # fmt: skip
    columns = (*Setting._fields, "score", "stderr", "frechet", "frechet_stderr", "frechet_floor", "path_length",
               "step", "seeds", "grid", "front")  # fmt: skip
    return {"ranks": (header, ranks), "scores": (("variant", *columns), scores)}


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.config
    datasets = list(dict.fromkeys(rung.dataset for rung in study.rungs)) or [c["data"]["dataset"] or c["data"]["name"]]
    return (
        f"Formulations of flow matching and diffusion (SD3 section 5.1) on {' and '.join(datasets)}: "
        f"{c['model']['backbone']} of depth {c['model']['depth']}, batch {c['training']['batch']}, "
        f"{c['training']['steps']:,} steps"
    )


def opening(study: Records, findings: Findings) -> str:
    """The headline in its box: green where the interval of Spearman's correlation is above 0, red below."""
    spearman = findings.agreement.get("Spearman")
    kind = "open" if spearman is None or spearman.low <= 0 <= spearman.high else "good" if spearman.low > 0 else "bad"
    first, *rest = map(html.escape, headline(findings))
    return page.verdict(kind, f"<b>{first}</b>", *rest)


def lines(study: Records, findings: Findings) -> list[str]:
    """What the terminal shows at the end."""
    said = []
    if findings.columns:
        said.append(f"{'average rank':>24}  {'all':>6} {'5':>6} {'50':>6}   paper's all")
    for variant in findings.ranked:
        ranks = [findings.columns[name].average[variant] if name in findings.columns else None for name in COLUMNS]
        published = paper.TABLE_1.get(variant)
        shown = " ".join(f"{NONE:>6}" if rank is None else f"{rank:6.2f}" for rank in ranks)
        said.append(f"{variant:>24}  {shown}   {published.all if published else NONE}")
    return [*said, "", *headline(findings)]


def sections(study: Records, findings: Findings) -> list[str]:
    """The tables below the figures."""
    swept = rates.table(findings.rates.sweeps, str)
    return [_ranks(findings), _quality(findings), swept, _skills(findings), _samples(study, findings), _runs(study)]


def _ranks(findings: Findings) -> str:
    """Table 1."""
    if not findings.columns:
        return ""
    rows = []
    for variant in findings.ranked:
        interval, spread = (getattr(findings.columns["all"], name)[variant] for name in ("interval", "spread"))
        ours = [
            f"{findings.columns[name].average[variant]:.2f}" if name in findings.columns else NONE for name in COLUMNS
        ]
        published, places = paper.TABLE_1.get(variant), findings.places["all"].get(variant)
        rows.append(
            [
                _name(variant),
                ours[0],
                f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else NOT_KNOWN,
                NONE if spread is None else f"{spread:.2f}",
                *ours[1:],
                f"{places[0]:g}" if places else NONE,
                *(f"{getattr(published, name):.2f}" if published else NONE for name in COLUMNS),
                f"{places[1]:g}" if places else NONE,
            ]
        )
    header = [
        "variant",
        "all",
        "95 %, seeds",
        "spread, settings",
        "5 steps",
        "50 steps",
        "place",
        "all",
        "5 steps",
        "50 steps",
        "place",
    ]
    counts = ", ".join(f"{len(c.by_setting)} in '{COLUMNS[name]}'" for name, c in findings.columns.items())
    absent = [variant for variant in paper.TABLE_1 if variant not in findings.ranked]
    return (
        "<h2>Average rank (Table 1)</h2>"
        + page.table(header, rows, [("", 1), (f"here, of {len(rows)}", 6), (f"the paper, of {paper.POOL}", 4)])
        + page.note(
            "In each setting (data set x weights x sampler) the Pareto fronts of score and Fréchet distance are "
            f"numbered from 1; a rank is that number, averaged over settings ({counts}; the columns by steps at "
            f"guidance {findings.guidance:g}, with EMA and raw weights). 95 %: Student t over seeds, of which there "
            f"{'is 1' if len(findings.seeds) == 1 else f'are {len(findings.seeds)}'}. Spread: the standard deviation "
            "over settings, which share their training runs: no error of the rank. The paper counts fronts among 61 "
            "variants, so compare places: the order among the variants of both tables, ties sharing the mean. "
            f"{grid_sentence(findings)}"
            "Validation losses rank nothing here: formulations have different targets, and their losses are not "
            "comparable. "
            + (f"In the paper's table but not ranked here: {', '.join(absent)}. " if absent else "")
            + f"Paper: {paper.SOURCE}."
        )
    )


def _quality(findings: Findings) -> str:
    """Table 2, for all variants."""
    settings = table_2_settings(findings)
    if not settings:
        return ""
    ours = {s: findings.measures[s] for s in settings}
    names = [v for v in findings.variants if any(v in found for found in ours.values())]
    cells: list[dict[str, str]] = []
    for measured in ours.values():
        found = {v: m for v, m in measured.items() if m.drawn}
        cells.append(_column({v: (m.score, f"{m.score:.3f}{_error(m.stderr)}") for v, m in found.items()}, max))
        cells.append(
            _column({v: (m.frechet, f"{m.frechet:.3g}{_error(m.frechet_stderr)}") for v, m in found.items()}, min)
        )
    for field, best, form in (
        ("imagenet_clip", max, ".3f"),
        ("imagenet_fid", min, ".2f"),
        ("cc12m_clip", max, ".3f"),
        ("cc12m_fid", min, ".2f"),
    ):
        published = {v: getattr(row, field) for v, row in paper.TABLE_2.items()}
        cells.append(_column({v: (value, format(value, form)) for v, value in published.items()}, best))
    rows = [[_name(v), *(column.get(v, NONE) for column in cells)] for v in names]
    header = ["variant"]
    for setting in settings:
        header += [SCORES.get(setting.dataset, "score"), "Fréchet"]
    groups = [("", 1), *((f"{s.dataset}, here", 2) for s in settings), ("ImageNet, the paper", 2)]
    return (
        f"<h2>Quality at {TABLE_2_STEPS} steps (Table 2)</h2>"
        + page.table([*header, "CLIP", "FID", "CLIP", "FID"], rows, [*groups, ("CC12M, the paper", 2)])
        + page.note(
            f"EMA weights, guidance {findings.guidance:g}; by average rank; best of each column in bold (the "
            "paper's: of its whole table). ± is the standard error over samples (of a distance by a bootstrap; where "
            "it is missing, it was not kept). Scores: higher is better; distances: lower, down to the floor, what as "
            f"many true pictures have: {'; '.join(floor_of(s.dataset, found) for s, found in ours.items())}."
        )
    )


def _error(stderr: float) -> str:
    return f" ± {stderr:.2g}" if math.isfinite(stderr) else ""


def _column(values: dict[str, tuple[float, str]], best: Callable[..., float]) -> dict[str, str]:
    """The cells of a column, its best in bold."""
    top = best(value for value, _ in values.values()) if values else None
    return {name: f"<b>{text}</b>" if value == top else text for name, (value, text) in values.items()}


def _skills(findings: Findings) -> str:
    """The score by skill or by digit, where it has parts, at the setting with the highest mean score."""
    said = []
    for dataset in findings.datasets:
        here = {s: found for s, found in findings.measures.items() if s.dataset == dataset}
        drawn = {s: {v: m for v, m in found.items() if m.drawn} for s, found in here.items()}
        mean = {
            s: (len(found), sum(m.score for m in found.values()) / len(found))  # the most variants first
            for s, found in drawn.items()
            if any(m.parts for m in found.values())
        }
        if not mean:
            continue
        best = max(mean, key=mean.__getitem__)
        found, broken = drawn[best], [v for v in here[best] if v not in drawn[best]]
        skills = list(dict.fromkeys(name for m in found.values() for name in m.parts))
        columns = [
            _column({v: (m.parts[k], f"{m.parts[k]:.2f}") for v, m in found.items() if finite(m.parts.get(k))}, max)
            for k in skills
        ]
        whole = _column({v: (m.score, f"{m.score:.3f}") for v, m in found.items()}, max)
        rows = [[_name(v), whole[v], *(c.get(v, NONE) for c in columns)] for v in findings.variants if v in found]
        said.append(
            f"<h2>Score by part: {html.escape(dataset)}</h2>"
            + page.table(["variant", "all", *skills], rows)
            + page.note(
                f"At the setting where the variants score highest on average: {best}."
                + (f" Without {', '.join(broken)}, whose pictures are not finite." if broken else "")
            )
        )
    return "".join(said)


def _samples(study: Records, findings: Findings) -> str:
    """Pictures by variant, the captions across, a table for each data set."""
    said = []
    for dataset in dict.fromkeys(rung.dataset for rung in study.rungs):
        by_variant = {}
        for rung in study.rungs:
            if rung.dataset == dataset:
                by_variant.setdefault(canonical(rung.config["flow"]["formulation"]), rung)
        order = [v for v in findings.variants if v in by_variant] + [
            v for v in by_variant if v not in findings.variants
        ]
        shown = page.samples({v: by_variant[v] for v in order}, "ema", turned=True)
        if shown:
            said.append(f"<h2>Samples: {html.escape(dataset)}</h2>{shown}")
    return "".join(said)


def _runs(study: Records) -> str:
    """The runs, and the step whose weights were scored."""
    rows = []
    for rung in study.rungs:
        ema = [line["step"] for (weights, _), line in rung.last_scores().items() if weights == "ema"]
        seconds = rung.train[-1]["seconds"] if rung.train else 0.0
        scored = f"{ema[-1]:,}" if ema else NONE
        rows.append([html.escape(rung.name), html.escape(rung.state), f"{rung.steps:,}", scored, f"{seconds:.0f}"])
    return (
        "<h2>Runs</h2>"
        + page.table(["run", "state", "steps", "scored at step", "seconds"], rows)
        + page.note("Scored: the weights of the step with the lowest validation loss under EMA weights (App. B.3).")
    )


def _name(variant: str) -> str:
    """The variant beside a dot in the colour of its family."""
    text = html.escape(variant)
    dot = f"<span style='color:{colour(variant)}'>●</span> "
    return dot + (f"<b>{text}</b>" if variant == HIGHLIGHT else text)
