"""What the figures of all reports share: style, colours, ticks."""

import contextlib
import io
from collections.abc import Iterator, Sequence

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Figures look alike within it, whatever the user's own matplotlibrc says."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def colours(names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """A colour for each rung, from small to large."""
    return dict(zip(names, plt.cm.viridis(np.linspace(0.05, 0.9, len(names))), strict=True))


def plain_ticks(axes: Axes) -> None:
    """For logarithmic axes that span less than a decade: plain numbers."""
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 7, 8)))
    axes.yaxis.set_major_formatter(mpl.ticker.FormatStrFormatter("%.3g"))
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def svg(figure: Figure) -> str:
    """The figure as an SVG element."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()[text.getvalue().index("<svg") :]
