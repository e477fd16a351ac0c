"""How far a model is from the best use of its compute, by a fitted surface L(N, D)."""

from dataclasses import dataclass

import numpy as np

from rfjax.analysis.laws import SurfaceFit


@dataclass(frozen=True)
class Distance:
    """A rung beside its compute-optimal point.

    Attributes:
        n, d: parameters and examples of the rung.
        d_optimal: the examples with which n parameters would be the best use of their compute.
        n_best, d_best: the best use of the compute that the rung spent.
        excess: the surface's loss at (n, d) over that at (n_best, d_best), less 1.
    """

    name: str
    n: float
    d: float
    d_optimal: float
    n_best: float
    d_best: float
    excess: float

    @property
    def training(self) -> float:
        """d / d_optimal: below 1 the rung saw fewer examples than its size deserves, above 1 more."""
        return self.d / self.d_optimal


def distance(fit: SurfaceFit, name: str, n: float, d: float, flops: float) -> Distance:
    """The rung's distance by L = E + A n^-alpha + B d^-beta, with its own FLOPs per parameter and example.

    At the optimum the last FLOP buys as much by size as by examples: alpha A n^-alpha = beta B d^-beta
    (Hoffmann et al. 2022, approach 3).

    Args:
        fit: of the surface.
        n, d: parameters and training examples.
        flops: of the rung's training.

    Raises:
        ValueError: where the fitted loss does not fall with both n and d.
    """
    best = fit.optimal_allocation(flops, flops / n / d)
    p = fit.parameters
    log_d = (np.log(p["beta"] * p["B"]) - np.log(p["alpha"] * p["A"]) + p["alpha"] * np.log(n)) / p["beta"]
    excess = fit.predict(n, d).value / fit.predict(best.n, best.d).value - 1
    return Distance(name, n, d, float(np.exp(log_d)), best.n, best.d, float(excess))
