"""Random numbers that are a hash: equal on every machine, and for each index without those before it."""

import numpy as np
from jaxtyping import Float64, Int64, UInt64


def fractions(index: Int64[np.ndarray, " n"], seed: int, slots: int) -> Float64[np.ndarray, "n slots"]:
    """Uniform numbers in [0, 1), from (seed, index, slot) by two rounds of SplitMix64 (Steele et al. 2014)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        state = _mix(index.astype(np.uint64)[:, None] + np.uint64(seed + 1) * golden)
        state = _mix(state + np.arange(1, slots + 1, dtype=np.uint64) * golden)
    return (state >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(z: UInt64[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
