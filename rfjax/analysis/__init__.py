"""Scaling laws from measured losses, comparisons, alignment: numbers in, numbers out; numpy and scipy, no JAX."""

from rfjax.analysis.cknna import cknna, normalised
from rfjax.analysis.contest import Contest, Measure, Setting, analyse_contest, mean_measure
from rfjax.analysis.correlation import Correlation, floored, kendall, pearson, spearman
from rfjax.analysis.diagnostics import (
    Check,
    LawCheck,
    LeftOut,
    check_law,
    curvature,
    lack_of_fit,
    law_warnings,
    leave_one_out,
    residuals,
)
from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.fit import HeldOut, Point, Prediction, Status
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.isoflop import IsoFlop, envelope, isoflop
from rfjax.analysis.ladder import Ladder, Lost, Measured, Rung, Step, build_ladder, step_warnings
from rfjax.analysis.laws import LAWS, Comparison, LawFit, compare_laws, fit_law
from rfjax.analysis.quality import Checkpoint, Relation, main_setting, relate
from rfjax.analysis.ranking import Agreement, Ranking, agreement, average_ranks, fronts
from rfjax.analysis.rates import RateChoice, RateSweep, choose_rate, rate_exponent, sweep_rates
from rfjax.analysis.seeds import (
    Change,
    NoiseTrend,
    Spread,
    change,
    late_fall,
    noise_trend,
    pooled_spread,
    under_trained,
)
from rfjax.analysis.surface import Allocation, SurfaceFit, fit_surface
from rfjax.analysis.trend import Surface, Trend, analyse_surface, analyse_trend, fit_records

__all__ = [
    "LAWS", "OBJECTIVES", "Agreement", "Allocation", "Change", "Check", "Checkpoint", "Comparison", "Contest",
    "Correlation", "HeldOut", "IsoFlop", "Ladder", "LawCheck", "LawFit", "LeftOut", "Lost", "Measure", "Measured",
    "NoiseTrend", "Point", "Prediction", "Ranking", "RateChoice", "RateSweep", "Relation", "Rung", "Setting", "Spread",
    "Status", "Step", "Surface", "SurfaceFit", "TooFewPoints", "Trend", "agreement", "analyse_contest",
    "analyse_surface", "analyse_trend", "average_ranks", "build_ladder", "change", "check_law", "choose_rate", "cknna",
    "compare_laws", "curvature", "envelope", "fit_law", "fit_records", "fit_surface", "floored", "fronts", "isoflop",
    "kendall", "lack_of_fit", "late_fall", "law_warnings", "leave_one_out", "main_setting", "mean_measure",
    "noise_trend", "normalised", "pearson", "pooled_spread", "rate_exponent", "relate", "residuals", "spearman",
    "step_warnings", "sweep_rates", "under_trained",
]  # fmt: skip
