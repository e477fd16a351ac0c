"""FID's Inception network, pictures a second, beside torch-fidelity's under torch on the same pictures.

    python -m benchmarks.embedding [count=1000] [batch=8] [side=256] [rounds=3] [peers=eager,compiled-nhwc] [--record]

The peer needs torch, and torch-fidelity: pip install --no-deps torch-fidelity. Weights are random and float32; both
resize as TensorFlow 1, and give the pool and the logits. Every contender has a process of its own with the same cores,
and all work in turn; medians with the smallest and the largest of the rounds. torch-fidelity works on batches of 64,
its default; rfjax on `batch`, several of which may be given: batch=8,32. The peers are eager and compiled, each with
its tensors contiguous or channels last (-nhwc); all, unless `peers` names some.
"""

import functools
import importlib.util
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import page
from benchmarks.race import Contender, Work, cores, race, ratios, rounds_of, spread

THEIR_BATCH = 64
KINDS = {  # memory format, and whether torch.compile
    "eager": ("contiguous_format", False),
    "eager-nhwc": ("channels_last", False),
    "compiled": ("contiguous_format", True),
    "compiled-nhwc": ("channels_last", True),
}
PEERS = all(importlib.util.find_spec(name) for name in ("torch", "torch_fidelity"))


def pictures(count: int, side: int) -> np.ndarray:
    """Noise, uint8."""
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def write_weights(path: Path) -> None:
    """A file of torch-fidelity's layout with random weights."""
    from rfjax.encoders.embedding.inception_names import LAYOUT
    from rfjax.tensors.layout import manifest
    from rfjax.tensors.pt import write_pt

    draw, tensors = np.random.default_rng(0), {}
    for name, shape in manifest(LAYOUT).items():
        raw = draw.standard_normal(shape, np.float32)
        if len(shape) > 1:
            tensors[name] = raw * np.float32((2 / np.prod(shape[1:])) ** 0.5)
        else:
            tensors[name] = np.float32(name.endswith(("bn.weight", "running_var"))) + raw / 20
    write_pt(path, tensors.items(), tensors)


def ours(path: str, count: int, batch: int, side: int) -> Work:
    """rfjax's."""
    import jax

    from rfjax.encoders.embedding.inception import Inception

    embedder, x = Inception(path), pictures(batch, side)
    weights, run = jax.device_put(embedder.weights()), jax.jit(embedder.embed)

    def work() -> float:
        start = time.perf_counter()
        found = [run(weights, x) for _ in range(-(-count // batch))]
        jax.block_until_ready(found)
        return (time.perf_counter() - start) * count / (len(found) * batch)

    return work


def theirs(path: str, count: int, side: int, layout: str, compiled: bool) -> Work:
    """torch-fidelity's. Its package imports torchvision, which the network does not need."""
    import torch

    spec = importlib.util.find_spec("torch_fidelity")
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["torch_fidelity"] = package
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.set_num_threads(cores())
    network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], path)
    network = network.to(memory_format=getattr(torch, layout))
    x = torch.tensor(pictures(THEIR_BATCH, side)).permute(0, 3, 1, 2)
    x = x.contiguous(memory_format=getattr(torch, layout))
    run: Any = torch.compile(network) if compiled else network

    def work() -> float:
        start, times = time.perf_counter(), -(-count // THEIR_BATCH)
        with torch.inference_mode():
            for _ in range(times):
                run(x)
        return (time.perf_counter() - start) * count / (times * THEIR_BATCH)

    return work


@functools.cache
def flops() -> int:
    """Of one picture."""
    import jax

    from rfjax.encoders.embedding.inception_names import LAYOUT
    from rfjax.encoders.embedding.inception_network import SIDE, arranged, inception
    from rfjax.models.counting import traced_matmul_flops

    weights = arranged({path: np.ones(piece.view, np.float32) for path, (piece,) in LAYOUT.items()})
    return traced_matmul_flops(inception, weights, jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), np.float32))


def main(arguments: list[str]) -> None:
    options = dict(word.split("=", 1) for word in arguments if "=" in word)
    count, side = int(options.get("count", 1000)), int(options.get("side", 256))
    batches = [int(word) for word in options.get("batch", "8").split(",")]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "x.pth")
        write_weights(Path(path))
        contenders = [Contender(f"rfjax, batch {n}", ours, (path, count, n, side), warm=False) for n in batches]
        for name in options.get("peers", ",".join(KINDS)).split(",") if PEERS else ():
            given = (path, count, side, *KINDS[name])
            contenders.append(Contender(f"torch-fidelity, {name}", theirs, given, warm=False))
        found = race(contenders, rounds_of(arguments, 3))
    own, others = found[: len(batches)], found[len(batches) :]
    best, rows = min(own, key=lambda times: times.median), []
    for times in found:
        speed = [count / seconds for seconds in times.seconds]
        rate = f"{count * flops() / times.median / 1e9:.0f}"
        ratio = "" if times is best else spread(ratios(best, times))
        rows.append((times.name, times.failure or spread(speed, digits=1), rate, ratio))
    title = f"**{count:,} pictures** of {side} x {side} pixels, {flops() / 1e9:.1f} GFLOP each"
    text = [title, "", *page.table(("", "pictures a second", "GFLOP/s", "time over the best of rfjax"), rows)]
    if others:
        better = min(others, key=lambda times: times.median)
        text += ["", f"Against the best, {better.name}: **{better.median / best.median:.2f} x** by the medians."]
    page.show("embedding", text)


if __name__ == "__main__":
    main(sys.argv[1:])
