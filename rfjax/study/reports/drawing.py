"""What the figures of all reports share: style, colours, ticks."""

import contextlib
import io
from collections.abc import Iterator, Sequence

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

Figures = dict[str, tuple[str, Figure]]  # name of a file -> (title, figure)

STYLE = {
    "figure.figsize": (6.4, 4.2),
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "font.size": 10,
    "legend.frameon": False,
    "savefig.dpi": 160,
}
WIDE = 8.0  # inches from which a figure takes a row of the page for itself
TWO_PANELS = (13.0, 4.3)  # inches
MANTISSAS = (1, 1.5, 2, 3, 4, 5, 6, 7, 8)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Figures look alike within it, whatever the user's own matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def colours(names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """A colour for each name, from small to large."""
    return dict(zip(names, plt.cm.viridis(np.linspace(0.05, 0.9, len(names))), strict=True))


def log_ticks(axis: Axis, form: str = "%.3g", mantissas: Sequence[float] = MANTISSAS) -> None:
    """For a logarithmic axis that spans less than a decade or two: numbers at these mantissas."""
    axis.set_major_locator(LogLocator(subs=mantissas))
    axis.set_major_formatter(FormatStrFormatter(form))
    axis.set_minor_formatter(NullFormatter())


def finish(axes: Axes, xlabel: str, ylabel: str, xscale: str = "log", **options: object) -> None:
    """Labels, a logarithmic vertical axis with its ticks, and a legend where there is anything to explain."""
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale="log")
    log_ticks(axes.yaxis)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(**{"fontsize": 8} | options)


def name_point(axes: Axes, name: str, x: float, y: float, shift: tuple[float, float] = (6, 6)) -> None:
    """A name beside a point."""
    axes.annotate(name, (x, y), textcoords="offset points", xytext=shift, fontsize=8)


def svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
