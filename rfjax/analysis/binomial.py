"""The interval of a share: how well some hundred right or wrong answers tell an accuracy."""

import math

CONFIDENCE = 0.95


def share_interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a binomial share, which keeps to [0, 1] and holds near its ends too.

    Args:
        share: of right answers; NaN gives NaN.
        count: of all answers.
    """
    from scipy.stats import binomtest

    if not math.isfinite(share):
        return math.nan, math.nan
    found = binomtest(round(share * count), count).proportion_ci(CONFIDENCE, "wilson")
    return float(found.low), float(found.high)
