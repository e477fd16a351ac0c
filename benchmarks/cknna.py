"""What CKNNA costs at the paper's size: 10,000 pictures, SiT-XL's width against DINOv2-g's.

    python -m benchmarks.cknna

Prints the seconds and the largest memory of the process, and what whole n x n matrices would take beside it.
"""

import resource
import sys
import time

import numpy as np

from rfjax.analysis.cknna import compare, neighbours, normalised

EXAMPLES, WIDTHS, K = 10_000, (1152, 1536), 10


def main(examples: int = EXAMPLES) -> int:
    """Measures features that are half alike."""
    draw = np.random.default_rng(0)
    shared = draw.standard_normal((examples, 64), np.float32)
    features = [
        shared @ draw.standard_normal((64, width), np.float32) + 8 * draw.standard_normal((examples, width), np.float32)
        for width in WIDTHS
    ]
    began = time.perf_counter()
    found = [neighbours(normalised(one), K) for one in features]
    for kind in ("reference", "formula"):
        print(f"{kind:10} {compare(*found, kind):.4f}")
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    whole = examples**2 * 8
    print(
        f"{examples:,} x {WIDTHS[0]} against {examples:,} x {WIDTHS[1]}: {seconds:.1f} s, {peak / 1e9:.2f} GB at most; "
        f"one n x n matrix of float64 has {whole / 1e9:.2f} GB"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
