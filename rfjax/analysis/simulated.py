"""What simulated ladders of a candidate gave."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rfjax.analysis.candidates import Candidate


@dataclass(frozen=True, eq=False)
class Simulated:
    """What simulated ladders of a candidate gave.

    Attributes:
        widths: relative, at each size asked, shape (ladders, sizes).
        inside: whether the interval at the last size held a new run's loss, or the true multiplier; shape (ladders,).
        apart: whether the multiplier's interval there left out 1, shape (ladders,); None without two designs.
    """

    candidate: Candidate
    widths: Float[np.ndarray, "m g"]
    inside: Float[np.ndarray, " m"]
    apart: Float[np.ndarray, " m"] | None = None

    def width(self, probability: float) -> float:
        """The width at the target that this share of ladders keeps."""
        return float(np.quantile(self.widths[:, -1], probability, method="inverted_cdf"))

    def kept(self, width: float) -> float:
        """The share of ladders whose interval at the target is no wider."""
        return float(np.mean(self.widths[:, -1] <= width))
