"""Scaling laws from measured losses, with intervals that hold: numbers in, numbers out; numpy and scipy, no JAX."""

from rfjax.analysis.correlation import Correlation, floored, kendall, pearson, spearman
from rfjax.analysis.diagnostics import Check, LeftOut, curvature, lack_of_fit, leave_one_out, residuals
from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.fit import HeldOut, Point, Prediction, Status
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.isoflop import IsoFlop, envelope, isoflop
from rfjax.analysis.laws import LAWS, Comparison, LawFit, compare_laws, fit_law
from rfjax.analysis.ranking import Ranking, average_ranks, fronts
from rfjax.analysis.seeds import Change, NoiseTrend, Spread, change, late_fall, noise_trend, pooled_spread
from rfjax.analysis.surface import Allocation, SurfaceFit, fit_surface

__all__ = [
    "LAWS",
    "OBJECTIVES",
    "Allocation",
    "Change",
    "Check",
    "Comparison",
    "Correlation",
    "HeldOut",
    "IsoFlop",
    "LawFit",
    "LeftOut",
    "NoiseTrend",
    "Point",
    "Prediction",
    "Ranking",
    "Spread",
    "Status",
    "SurfaceFit",
    "TooFewPoints",
    "average_ranks",
    "change",
    "compare_laws",
    "curvature",
    "envelope",
    "fit_law",
    "fit_surface",
    "floored",
    "fronts",
    "isoflop",
    "kendall",
    "lack_of_fit",
    "late_fall",
    "leave_one_out",
    "noise_trend",
    "pearson",
    "pooled_spread",
    "residuals",
    "spearman",
]
