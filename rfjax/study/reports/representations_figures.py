"""The figures of the report of hidden states: against the block at each noise level, and along training."""

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from rfjax.study.records import Records
from rfjax.study.reports.drawing import Figures, colours

PANEL = (4.4, 4.0)  # inches
STYLES = ("-", "--", ":", "-.")  # of noise levels, in figures along training
LEGEND = 12  # runs that a legend names at most


def short(name: str) -> str:
    """A name for an encoder that fits a legend: the last part of the folder that it was read from."""
    return name.rpartition("@")[2].rstrip("/").rpartition("/")[2] or name


def figures(study: Records, found: Any) -> Figures:
    """Of each quantity: against the block at the last step, a panel for each noise level; then against steps."""
    colour = colours(list(dict.fromkeys(curve.run for curve in found.curves)))
    blocks, steps = {}, {}
    for number, quantity in enumerate(found.quantities, 1):
        curves = [curve for curve in found.curves if curve.quantity == quantity]
        file, title = f"cknna_{number}", f"CKNNA with {short(quantity)}"
        if curves[0].count:
            file, title = "probe", "Probe accuracy"
        blocks[f"{file}_blocks"] = (f"{title} after each block", _by_block(found, quantity, colour))
        if any(len(curve.steps) > 1 for curve in curves):
            steps[f"{file}_steps"] = (f"{title} at the followed block", _by_step(found, quantity, colour))
    return blocks | steps


def _by_block(found: Any, quantity: str, colour: dict[str, Any]) -> Any:
    levels = found.levels
    figure, row = plt.subplots(
        1, len(levels), figsize=(PANEL[0] * len(levels), PANEL[1]), sharey=True, squeeze=False
    )  # fmt: skip
    for axes, t in zip(row[0], levels, strict=True):
        for curve in found.of(quantity, t):
            blocks = range(1, len(curve.last) + 1)
            _draw(axes, blocks, curve.last, curve, colour=colour[curve.run], label=curve.run)
            if curve.aligned and math.isfinite(curve.last[curve.block - 1]):
                axes.plot(curve.block, curve.last[curve.block - 1], "*", ms=12, color=colour[curve.run])
        axes.set(xlabel="block", title=f"t = {t:g}")
        axes.xaxis.get_major_locator().set_params(integer=True)
        _chance(axes, found, quantity)
    row[0][0].set_ylabel(_label(found, quantity))
    _legend(row[0][0], len(colour))
    return figure


def _by_step(found: Any, quantity: str, colour: dict[str, Any]) -> Any:
    figure, axes = plt.subplots()
    for style, t in zip(STYLES, found.levels, strict=False):
        for curve in found.of(quantity, t):
            values = [curve.values[step][curve.block - 1] for step in curve.steps]
            label = f"{curve.run}, block {curve.block}, t = {t:g}"
            _draw(axes, curve.steps, values, curve, colour=colour[curve.run], style=style, label=label)
    _chance(axes, found, quantity)
    axes.set(xlabel="steps", ylabel=_label(found, quantity))
    _legend(axes, len(axes.get_legend_handles_labels()[1]))
    return figure


def _draw(axes: Axes, x: Any, y: Any, curve: Any, *, colour: Any, style: str = "-", label: str = "") -> None:
    """A curve, and the interval of each accuracy around it."""
    axes.plot(x, y, f"o{style}", ms=3.5, lw=1.3, color=colour, label=label)
    if curve.count:
        low, high = np.transpose([curve.interval(value) for value in y])
        axes.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)


def _chance(axes: Axes, found: Any, quantity: str) -> None:
    if found.of(quantity, found.levels[0]) and found.of(quantity, found.levels[0])[0].count:
        axes.axhline(found.chance, color="black", lw=0.8, ls=":")


def _label(found: Any, quantity: str) -> str:
    return "accuracy" if any(curve.count for curve in found.curves if curve.quantity == quantity) else "CKNNA"


def _legend(axes: Axes, count: int) -> None:
    if count <= LEGEND:
        axes.legend(fontsize=7)
