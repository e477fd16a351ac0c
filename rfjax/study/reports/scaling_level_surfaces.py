"""A part of the scaling report: L(N, D) by level of t, and what no size and no data take away."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from rfjax import analysis
from rfjax.study.records import Records
from rfjax.study.reports.drawing import TWO_PANELS
from rfjax.study.reports.scaling_findings import Findings
from rfjax.study.reports.widgets import escape, formatted, section

EXPONENTS = {"alpha": ("tab:blue", "of N, alpha", -0.006), "beta": ("tab:orange", "of D, beta", 0.006)}
HIGHEST = 2.0  # exponent that the figure shows: longer intervals say nothing


def table(surface: analysis.Surface) -> str:
    """A row for each level."""
    rows = []
    for row in surface.levels:
        cells = [row.name, formatted(row.floor, ".4g", "")]
        if row.fit is None:
            rows.append([*cells, "", "", "", "", escape(row.reason)])
            continue
        value, low, high = row.irreducible
        p, spans, held = row.fit.parameters, row.fit.intervals, row.fit.held_out
        cells.append(f"{value:.4g}, known" if row.floor else f"{value:.4g} ({low:.3g} to {high:.3g})")
        cells += [f"{p[k]:.3f} ({spans[k][0]:.2g} to {spans[k][1]:.2g})" for k in ("alpha", "beta")]
        error = max(held.error, key=abs) if held else None
        cells += ["" if error is None else f"{100 * error:+.2f} %, {sum(held.inside)} of {len(held.inside)} held"]
        rows.append([*cells, escape(", ".join(filter(None, [row.reason, *row.fit.bounds_hit])))])
    return section(
        "L(N, D) by level",
        ["level", "known floor", "irreducible (95 %)", "alpha, of N (95 %)", "beta, of D (95 %)",
         "largest held-out error above the floor", "notes"], rows,
        "Each level has its own surface, E + A N^-alpha + B D^-beta, fitted in squares of the log loss above the known "
        "floor. At t = 0 the network sees nothing of the noise, so the floor is exactly the noise's variance and E is "
        "0; elsewhere E is extrapolated in N and D at once, and no run is near it. Runs of one trunk count as one.",
    )  # fmt: skip


def draw(records: Records, findings: Findings) -> Figure:
    """What is irreducible at each level, and both exponents, with 95 % intervals."""
    figure, (left, right) = plt.subplots(1, 2, figsize=TWO_PANELS)
    rows = [row for row in findings.surface.levels if row.fit is not None and row.t is not None]
    t = np.array([row.t for row in rows])
    value, low, high = np.array([row.irreducible for row in rows]).T
    left.errorbar(t, value, yerr=[value - low, high - value], fmt="o", ms=4, capsize=3, label="irreducible (95 %)")
    known = np.array([bool(row.floor) for row in rows])
    left.plot(t[known], value[known], "D", color="black", ms=8, mfc="none", label="known: no model is lower")
    left.set(xlabel="t (0 data, 1 noise)", ylabel="loss without end of size and data", ylim=(0, None))
    left.legend(fontsize=8)
    for name, (colour, words, shift) in EXPONENTS.items():
        middle = np.array([row.fit.parameters[name] for row in rows])
        ends = np.clip([row.fit.intervals[name] for row in rows], 0, HIGHEST).T
        error = np.maximum([middle - ends[0], ends[1] - middle], 0)
        right.errorbar(t + shift, middle, yerr=error, fmt="o", color=colour, ms=4, capsize=3, label=words)
    right.set(xlabel="t (0 data, 1 noise)", ylabel="exponent", ylim=(0, None))
    right.legend(fontsize=8)
    return figure
