"""Scaling laws from measured losses, with intervals that hold: numbers in, numbers out; numpy and scipy, no JAX."""

from rfjax.analysis.correlation import Correlation, floored, kendall, pearson, spearman
from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.fit import HeldOut, Point, Prediction, Status
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.isoflop import IsoFlop, envelope, isoflop
from rfjax.analysis.laws import LAWS, Comparison, LawFit, compare_laws, fit_law
from rfjax.analysis.ranking import Ranking, average_ranks, fronts
from rfjax.analysis.surface import Allocation, SurfaceFit, fit_surface

__all__ = [
    "LAWS",
    "OBJECTIVES",
    "Allocation",
    "Comparison",
    "Correlation",
    "HeldOut",
    "IsoFlop",
    "LawFit",
    "Point",
    "Prediction",
    "Ranking",
    "Status",
    "SurfaceFit",
    "TooFewPoints",
    "average_ranks",
    "compare_laws",
    "envelope",
    "fit_law",
    "fit_surface",
    "floored",
    "fronts",
    "isoflop",
    "kendall",
    "pearson",
    "spearman",
]
