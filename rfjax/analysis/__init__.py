"""Scaling laws from measured losses, comparisons, alignment: numbers in, numbers out; numpy and scipy, no JAX."""

from rfjax.analysis.choice import Choice, choose_law
from rfjax.analysis.cknna import cknna, normalised
from rfjax.analysis.contest import Contest, Measure, Setting, analyse_contest, mean_measure
from rfjax.analysis.correlation import kendall, pearson, spearman
from rfjax.analysis.diagnostics import curvature, lack_of_fit, leave_one_out, residuals
from rfjax.analysis.engine import OBJECTIVES
from rfjax.analysis.fit import HeldOut, Status
from rfjax.analysis.fitting import TooFewPoints
from rfjax.analysis.isoflop import envelope, isoflop
from rfjax.analysis.ladder import Ladder, Lost, Measured, build_ladder
from rfjax.analysis.laws import compare_laws, fit_law, fit_surface
from rfjax.analysis.level_surfaces import LevelSurface, level_surfaces
from rfjax.analysis.quality import Checkpoint, Relation, main_setting, relate
from rfjax.analysis.ranking import agreement, average_ranks, fronts
from rfjax.analysis.rates import RateChoice, RateSweep, choose_rate, rate_exponent, sweep_rates
from rfjax.analysis.seeds import change, late_fall, noise_trend, pooled_spread, under_trained
from rfjax.analysis.steps import step_warnings
from rfjax.analysis.successive import Ahead, Score, score, successive
from rfjax.analysis.trend import Surface, Trend, analyse_surface, analyse_trend, fit_records

__all__ = [
    "OBJECTIVES", "Ahead", "Checkpoint", "Choice", "Contest", "HeldOut", "Ladder", "LevelSurface", "Lost", "Measure",
    "Measured", "RateChoice", "RateSweep", "Relation", "Score", "Setting", "Status", "Surface", "TooFewPoints",
    "Trend", "agreement", "analyse_contest", "analyse_surface", "analyse_trend", "average_ranks", "build_ladder",
    "change", "choose_law", "choose_rate", "cknna", "compare_laws", "curvature", "envelope", "fit_law", "fit_records",
    "fit_surface", "fronts", "isoflop", "kendall", "lack_of_fit", "late_fall", "leave_one_out", "level_surfaces",
    "main_setting", "mean_measure", "noise_trend", "normalised", "pearson", "pooled_spread", "rate_exponent", "relate",
    "residuals", "score", "spearman", "step_warnings", "successive", "sweep_rates", "under_trained",
]  # fmt: skip
