"""What the numbers of evaluation cost on the host: seconds, of a processor's too, and the largest memory of a process.

    python -m benchmarks.metrics [NAME ...] [width=N] [count=N]      by default all, 10,000 pictures of 2,048 features

Features are like Inception's: not negative, of a spectrum that falls over five orders of magnitude, mean 0.4.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

COUNT, WIDTH = 10_000, 2048
RANK = 64  # directions that hold most of the variance


def features(count: int, width: int, seed: int) -> np.ndarray:
    """float32, (count, width)."""
    draw, mix = np.random.default_rng(seed), np.random.default_rng(0)
    scales = np.geomspace(1, 0.03, RANK, dtype=np.float32)
    shared = draw.standard_normal((count, RANK), np.float32) * scales @ mix.standard_normal((RANK, width), np.float32)
    found = shared * np.float32(0.1) + draw.standard_normal((count, width), np.float32) * np.float32(0.05)
    found += np.float32(0.4 + 0.02 * (seed % 2))
    return np.maximum(found, 0, out=found)


def frechet(count: int, width: int) -> str:
    from rfjax.evaluation.statistics import frechet as module

    reference = module.fit_gaussian(features(count, width, 0))
    samples = features(count, width, 1)
    began = time.perf_counter()
    found = module.frechet(samples, reference)
    return f"{time.perf_counter() - began:.1f} s, {found.value:.6g} +- {found.stderr:.2g}"


def frechet_infinity(count: int, width: int) -> str:
    from rfjax.evaluation.statistics import extrapolation
    from rfjax.evaluation.statistics import frechet as module

    reference = module.fit_gaussian(features(count, width, 0))
    samples = features(count, width, 1)
    began = time.perf_counter()
    found = extrapolation.frechet_infinity(samples, reference)
    return f"{time.perf_counter() - began:.1f} s, {found.value:.6g} +- {found.stderr:.2g}"


def _pair(name: str, protocol: str = "") -> Callable[[int, int], str]:
    def run(count: int, width: int) -> str:
        from rfjax.evaluation.statistics import kernels, neighbours, prdc

        functions = {
            "precision_recall": lambda a, b: neighbours.precision_recall(a, b, protocol=protocol),
            "density_coverage": prdc.density_coverage,
            "kid": lambda a, b: (kernels.kid(a, b),),
            "kid_subsets": lambda a, b: (kernels.kid_subsets(a, b),),
            "cmmd": lambda a, b: (kernels.cmmd(a, b),),
        }
        reference, samples = features(count, width, 0), features(count, width, 1)
        began = time.perf_counter()
        found = functions[name](reference, samples)
        values = ", ".join(f"{one.value:.6g} +- {one.stderr:.2g}" for one in found)
        return f"{time.perf_counter() - began:.1f} s, {values}"

    return run


NAMES: dict[str, Callable[[int, int], str]] = {
    "frechet": frechet,
    "frechet_infinity": frechet_infinity,
    "precision_recall_exact": _pair("precision_recall", "exact"),
    "precision_recall_adm": _pair("precision_recall", "adm"),
    "density_coverage": _pair("density_coverage"),
    "kid": _pair("kid"),
    "kid_subsets": _pair("kid_subsets"),
    "cmmd": _pair("cmmd"),
}


def main(names: list[str], count: int, width: int) -> int:
    """Runs each in a process of its own, or the only one here."""
    if len(names) == 1:
        found = NAMES[names[0]](count, width)
        used = time.process_time()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        load = os.getloadavg()[0]
        costs = f"{used:.1f} s of processors in all, {peak / 1e9:.2f} GB at most, load {load:.1f}"
        print(f"{names[0]:24} {count:,} x {width:,}: {found}; {costs}", flush=True)
        return 0
    for name in names or NAMES:
        more = [f"count={count}", f"width={width}"]
        subprocess.run([sys.executable, "-m", "benchmarks.metrics", name, *more], check=True)
    return 0


if __name__ == "__main__":
    options = dict(word.split("=") for word in sys.argv[1:] if "=" in word)
    chosen = [word for word in sys.argv[1:] if "=" not in word]
    sys.exit(main(chosen, int(options.get("count", COUNT)), int(options.get("width", WIDTH))))
