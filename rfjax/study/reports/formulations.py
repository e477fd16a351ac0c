"""The report of a contest of formulations: Table 1, Table 2 and Fig. 3 of SD3, the paper's numbers beside ours."""

import html
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfjax import names
from rfjax.study.records import Records
from rfjax.study.reports import contest, drawing, page, paper
from rfjax.study.reports.contest import Findings, Setting

FILE = "ranking.json"
find = contest.find

COLUMNS = {"all": "all", "five": "5 steps", "fifty": "50 steps"}  # of Table 1
TABLE_2_STEPS = 25
SCORES = {"shapes": "composition score", "digits": "classifier accuracy"}
HIGHLIGHT = "rf/lognorm(0.00,1.00)"
COLOURS = {
    "rf/lognorm": "#c2412d", "rf/mode": "#e08a1e", "rf/cosmap": "#b8a31a", "rf": "#7d4fa8", "eps/linear": "#1f6fb4",
    "v/linear": "#36a2c9", "v/cos": "#2c8a4b", "eps/cos": "#7bbf5a", "edm": "#6b7280",
}  # fmt: skip
OTHER = "#111111"  # a family that is not among those
MARKERS = "osD^vPX*"
NONE = "–"


def record(findings: Findings) -> dict[str, Any]:
    """The ranking as plain JSON."""
    return {
        "winners": findings.winners,
        "guidance_of_columns": findings.guidance,
        "columns": {
            name: {
                "settings": len(column.by_setting),
                "average": column.average,
                "stderr": column.stderr,
                "interval": column.interval,
            }
            for name, column in findings.columns.items()
        },
        "fronts": [
            {**setting._asdict(), "fronts": fronts} for setting, fronts in findings.columns["all"].by_setting.items()
        ]
        if findings.columns
        else [],
        "places": {
            name: {variant: {"ours": a, "paper": b} for variant, (a, b) in column.items()}
            for name, column in findings.places.items()
        },
        "agreement": {
            name: {"value": c.value, "low": c.low, "high": c.high, "n": c.n, "p_value": c.p_value, "note": c.note}
            for name, c in findings.agreement.items()
        },
        "paper": {variant: vars(row) for variant, row in paper.TABLE_1.items()},
        "warnings": findings.warnings,
    }


def tables(study: Records, findings: Findings) -> page.Tables:
    """ranks.csv (Table 1 and the paper's) and scores.csv (everything that was measured)."""
    header = ["variant", *COLUMNS, "low", "high", "place", *(f"paper_{name}" for name in COLUMNS), "paper_place"]
    ranks = []
    for variant in findings.ranked:
        low, high = findings.columns["all"].interval[variant] or ("", "")
        ours, theirs = findings.places["all"].get(variant, ("", ""))
        published = paper.TABLE_1.get(variant)
        ranks.append(
            (
                variant,
                *(findings.columns[name].average[variant] if name in findings.columns else "" for name in COLUMNS),
                *(low, high, ours),
                *(getattr(published, name) if published else "" for name in COLUMNS),
                theirs,
            )
        )
    fronts = findings.columns["all"].by_setting if findings.columns else {}
    scores = [
        (variant, *setting, *(value if math.isfinite(value) else "" for value in
         (m.score, m.stderr, m.frechet, m.path_length)), m.step, m.seeds,
         fronts.get(setting, {}).get(variant, ""))
        for setting in findings.settings
        for variant, m in findings.measures[setting].items()
    ]  # fmt: skip
    columns = (*Setting._fields, "score", "stderr", "frechet", "path_length", "step", "seeds", "front")
    return {"ranks": (header, ranks), "scores": (("variant", *columns), scores)}


def figures(study: Records, findings: Findings) -> dict[str, tuple[str, Figure]]:
    """Our ranks against the paper's, and Fig. 3."""
    drawn = {}
    if findings.places.get("all"):
        drawn["ranks"] = ("Average rank: ours and the paper's", against_the_paper(findings))
    if middle := table_2_settings(findings):
        drawn["fronts"] = (f"Score and distance at {TABLE_2_STEPS} steps (EMA weights)", pareto(findings, middle))
    few = [s for s in findings.settings if s.weights == "ema" and s.guidance == findings.guidance]
    if len({setting.steps for setting in few}) > 1:
        title = f"Quality against sampling steps (EMA weights, guidance {findings.guidance:g})"
        drawn["steps"] = (title, against_steps(findings, few))
    return drawn


def against_the_paper(findings: Findings) -> Figure:
    """Our average rank of each variant against Table 1's, with intervals over the settings."""
    figure, axes = plt.subplots(figsize=(7.4, 4.8))
    column, names = findings.columns["all"], list(findings.places["all"])
    xs, ys = [paper.TABLE_1[name].all for name in names], [column.average[name] for name in names]
    for name, x, y in zip(names, xs, ys, strict=True):
        if column.interval[name]:
            axes.plot([x, x], column.interval[name], color=_colour(name), lw=1, alpha=0.35)
        axes.plot(x, y, "o", color=_colour(name), ms=9 if name == HIGHLIGHT else 6, mec="white", mew=0.8)
    axes.set(xscale="log", yscale="log", xlabel=f"average rank in the paper (of {paper.POOL} variants)")
    axes.set_ylabel(f"average rank here (of {len(findings.ranked)})")
    axes.set_xlim(min(xs) / 1.15, max(xs) * 1.15)
    low, high = (math.log(end) for end in (min(ys) / 1.25, max(ys) * 1.25))
    axes.set_ylim(math.exp(low), math.exp(high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
        axis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axis.set_minor_formatter(mpl.ticker.NullFormatter())
    _labels(axes, names, xs, [(math.log(y) - low) / (high - low) for y in ys])
    return figure


def _labels(axes: Axes, names: Sequence[str], xs: Sequence[float], heights: Sequence[float]) -> None:
    """Names in the right margin, apart from each other, each tied to its point by a thin line."""
    gap = min(0.055, 1 / max(len(names), 1))
    order = sorted(range(len(names)), key=lambda i: (heights[i], xs[i]))
    at: list[float] = []
    for i in order:
        at.append(max(heights[i], at[-1] + gap) if at else heights[i])
    over = max(at[-1] - 1.0, 0.0)
    for k in range(len(at) - 1, -1, -1):  # back down, where the last ran over the top
        at[k] = min(at[k], 1.0 - gap * (len(at) - 1 - k)) if over else at[k]
    for i, y in zip(order, at, strict=True):
        axes.annotate(
            names[i],
            (xs[i], heights[i]),
            xycoords=axes.get_xaxis_transform(),
            xytext=(1.03, y),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=_colour(names[i]),
            fontweight="bold" if names[i] == HIGHLIGHT else "normal",
            arrowprops={"arrowstyle": "-", "color": _colour(names[i]), "lw": 0.5, "alpha": 0.4},
            annotation_clip=False,
        )


def table_2_settings(findings: Findings) -> list[Setting]:
    """The setting of Table 2 on each data set that has it."""
    settings = [Setting(dataset, "ema", TABLE_2_STEPS, findings.guidance) for dataset in findings.datasets]
    return [setting for setting in settings if setting in findings.measures]


def pareto(findings: Findings, settings: Sequence[Setting]) -> Figure:
    """What is ranked in one setting: score up, distance down, with a line through the first front."""
    figure, grid = plt.subplots(1, len(settings), figsize=(7.4, 4.8), squeeze=False)
    for setting, axes in zip(settings, grid[0], strict=True):
        found = {variant: m for variant, m in findings.measures[setting].items() if m.drawn}
        for variant in _drawing_order(list(found)):
            m, style = found[variant], _style(variant, findings.variants)
            axes.errorbar(m.frechet, m.score, yerr=m.stderr, elinewidth=0.7, **style | {"ms": style["ms"] + 2, "lw": 0})
        fronts = findings.columns["all"].by_setting.get(setting, {}) if findings.columns else {}
        first = sorted((found[v].frechet, found[v].score) for v, front in fronts.items() if front == 1 and v in found)
        if first:
            axes.plot(*zip(*first, strict=True), color="black", lw=0.9, ls="--", zorder=0, label="first front")
            axes.legend(fontsize=8, loc="lower left")
        axes.set(title=setting.dataset, xlabel="Fréchet distance", ylabel=SCORES.get(setting.dataset, "score"))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%g"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    return figure


def against_steps(findings: Findings, settings: Sequence[Setting]) -> Figure:
    """Fig. 3: Fréchet distance (above) and score (below) against the number of steps; a panel for each data set."""
    datasets = list(dict.fromkeys(setting.dataset for setting in settings))
    figure, grid = plt.subplots(2, len(datasets), figsize=(5.2 * len(datasets) + 2.2, 7.2), sharex=True, squeeze=False)
    for dataset, panels in zip(datasets, grid.T, strict=True):
        there = sorted((s for s in settings if s.dataset == dataset), key=lambda s: s.steps)
        for axes, quantity in zip(panels, ("frechet", "score"), strict=True):
            for variant in _drawing_order(findings.variants):
                cells = [(s.steps, findings.measures[s].get(variant)) for s in there]
                points = [(steps, getattr(cell, quantity)) for steps, cell in cells if cell and cell.drawn]
                if points:
                    axes.plot(*zip(*points, strict=True), label=variant, **_style(variant, findings.variants))
            axes.set_xscale("log")
            axes.set_xticks([s.steps for s in there], [str(s.steps) for s in there])
            axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        panels[0].set(title=dataset, yscale="log", ylabel="Fréchet distance (lower is better)")
        drawing.plain_ticks(panels[0])
        panels[1].set(xlabel="steps", ylabel=SCORES.get(dataset, "score"))
    shown = {}
    for axes in grid[0]:
        shown |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    names = [name for name in findings.variants if name in shown]
    figure.legend([shown[n] for n in names], names, loc="outside right upper", fontsize=8, title="by average rank")
    return figure


def _drawing_order(variants: Sequence[str]) -> list[str]:
    return sorted(variants, key=lambda variant: variant == HIGHLIGHT)  # on top of the others


def _colour(variant: str) -> str:
    return COLOURS.get(names.family(variant), OTHER)


def _style(variant: str, variants: Sequence[str]) -> dict[str, Any]:
    """The colour of the family, a marker within it; the highlight is thick."""
    kin = [v for v in sorted(variants) if names.family(v) == names.family(variant)]
    main = variant == HIGHLIGHT
    style = {"color": _colour(variant), "marker": MARKERS[kin.index(variant) % len(MARKERS)]}
    return style | {"lw": 3.0 if main else 1.2, "ms": 7 if main else 4, "alpha": 1.0 if main else 0.8}


def subtitle(study: Records) -> str:
    """What was trained on what."""
    c = study.config
    datasets = list(dict.fromkeys(rung.dataset for rung in study.rungs)) or [c["data"]["dataset"] or c["data"]["name"]]
    return (
        f"Formulations of flow matching and diffusion (SD3 section 5.1) on {' and '.join(datasets)}: "
        f"{c['model']['backbone']} of depth {c['model']['depth']}, batch {c['training']['batch']}, "
        f"{c['training']['steps']:,} steps"
    )


def headline(findings: Findings) -> list[str]:
    """Who wins here, who wins in the paper, how far the two orders agree."""
    if not findings.columns:
        return ["No ranks yet: no run has left scores."] if not findings.settings else [findings.warnings[-1]]
    column = findings.columns["all"]
    best = " and ".join(findings.winners)
    interval = column.interval[findings.winners[0]]
    span = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    verb = "has" if len(findings.winners) == 1 else "share"
    first = min(paper.TABLE_1, key=lambda variant: paper.TABLE_1[variant].all)
    here = column.average.get(first)
    stands = (
        "" if here is None or first in findings.winners
        else f" Here it has {here:.2f}, place {list(column.average).index(first) + 1}."
    )  # fmt: skip
    said = [
        f"{best} {verb} the best average rank: {column.average[findings.winners[0]]:.2f}{span} of "
        f"{len(findings.ranked)} variants over {len(column.by_setting)} settings.",
        f"In the paper {first} wins with {paper.TABLE_1[first].all:.2f} of {paper.POOL} variants over {paper.SETTINGS} "
        f"settings.{stands}",
    ]
    if not findings.agreement:
        return [*said, findings.reason]
    parts = [
        f"{name} {c.value:+.2f} (95 % interval {c.low:+.2f} to {c.high:+.2f})" for name, c in findings.agreement.items()
    ]
    n = findings.agreement["Spearman"].n
    return [*said, f"Our ranks and the paper's correlate, over the {n} variants of both: {', '.join(parts)}."]


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
    return [_ranks(findings), _quality(findings), _skills(findings), _samples(study, findings), _runs(study)]


def _ranks(findings: Findings) -> str:
    """Table 1."""
    if not findings.columns:
        return ""
    rows = []
    for variant in findings.ranked:
        interval = findings.columns["all"].interval[variant]
        ours = [
            f"{findings.columns[name].average[variant]:.2f}" if name in findings.columns else NONE for name in COLUMNS
        ]
        published, places = paper.TABLE_1.get(variant), findings.places["all"].get(variant)
        rows.append(
            [
                _name(variant),
                ours[0],
                f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else NONE,
                *ours[1:],
                f"{places[0]:g}" if places else NONE,
                *(f"{getattr(published, name):.2f}" if published else NONE for name in COLUMNS),
                f"{places[1]:g}" if places else NONE,
            ]
        )
    header = ["variant", "all", "95 %", "5 steps", "50 steps", "place", "all", "5 steps", "50 steps", "place"]
    counts = ", ".join(f"{len(c.by_setting)} in '{COLUMNS[name]}'" for name, c in findings.columns.items())
    absent = [variant for variant in paper.TABLE_1 if variant not in findings.ranked]
    return (
        "<h2>Average rank (Table 1)</h2>"
        + page.table(header, rows, [("", 1), (f"here, of {len(rows)}", 5), (f"the paper, of {paper.POOL}", 4)])
        + page.note(
            "In each setting (data set x weights x sampler) the Pareto fronts of score and Fréchet distance are "
            f"numbered from 1; a rank is that number, averaged over settings ({counts}; the columns by steps at "
            f"guidance {findings.guidance:g}, with EMA and raw weights). 95 %: Student t over settings, which share "
            "their training runs: what another seed would change is not in it. The paper counts fronts among 61 "
            "variants, so compare places: the order among the variants of both tables, ties sharing the mean. "
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
        cells.append(_column({v: (m.score, f"{m.score:.3f} ± {m.stderr:.3f}") for v, m in found.items()}, max))
        cells.append(_column({v: (m.frechet, f"{m.frechet:.3g}") for v, m in found.items()}, min))
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
            "paper's: of its whole table). ± is the standard error over samples. Scores: higher is better; distances: "
            "lower."
        )
    )


def _column(values: dict[str, tuple[float, str]], best: Callable[..., float]) -> dict[str, str]:
    """The cells of a column, its best in bold."""
    top = best(value for value, _ in values.values()) if values else None
    return {name: f"<b>{text}</b>" if value == top else text for name, (value, text) in values.items()}


def _skills(findings: Findings) -> str:
    """The score by skill or by digit, where it has parts, at the setting with the highest mean score."""
    said = []
    for dataset in findings.datasets:
        mean = {
            s: sum(m.score for m in findings.measures[s].values()) / len(findings.measures[s])
            for s in findings.settings
            if s.dataset == dataset
            and any(m.parts for m in findings.measures[s].values())
            and all(m.drawn for m in findings.measures[s].values())
        }
        if not mean:
            continue
        best = max(mean, key=mean.__getitem__)
        found = findings.measures[best]
        skills = list(dict.fromkeys(name for m in found.values() for name in m.parts))
        columns = [
            _column({v: (m.parts[k], f"{m.parts[k]:.2f}") for v, m in found.items() if k in m.parts}, max)
            for k in skills
        ]
        whole = _column({v: (m.score, f"{m.score:.3f}") for v, m in found.items()}, max)
        rows = [[_name(v), whole[v], *(c.get(v, NONE) for c in columns)] for v in findings.variants if v in found]
        said.append(
            f"<h2>Score by part: {html.escape(dataset)}</h2>"
            + page.table(["variant", "all", *skills], rows)
            + page.note(f"At the setting where the variants score highest on average: {best}.")
        )
    return "".join(said)


def _samples(study: Records, findings: Findings) -> str:
    """Pictures by variant, the captions across, a table for each data set."""
    said = []
    for dataset in dict.fromkeys(rung.dataset for rung in study.rungs):
        by_variant = {}
        for rung in study.rungs:
            if rung.dataset == dataset:
                by_variant.setdefault(contest.canonical(rung.config["flow"]["formulation"]), rung)
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
    dot = f"<span style='color:{_colour(variant)}'>●</span> "
    return dot + (f"<b>{text}</b>" if variant == HIGHLIGHT else text)
