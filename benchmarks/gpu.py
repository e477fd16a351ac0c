"""What `python -m benchmarks.train_step gpu` adds on a GPU: bf16, model FLOPs utilisation, attention, memory, batches.

Contenders don't share the GPU's memory: each has it alone, one process after the other. Utilisation (MFU) is the
model's FLOPs, three times the forward pass's, over the rate of a large bf16 matrix product in the same run.
"""

import dataclasses
from collections.abc import Sequence

from benchmarks import networks, page
from benchmarks.race import PEERS, Contender, race, spread

SIZE, STEPS, MOST = 8192, 5, 2048  # of the product; steps a round; the largest batch that is tried
SHAPES = (
    networks.Shape("sit", 28, 1152, 16, 256, side=32, pooled=1000, precision="bfloat16"),
    networks.mmdit(18, 64, side=32, text=(154, 4096), pooled=2048, precision="bfloat16"),
    networks.mmdit(24, 32, side=32, text=(154, 4096), pooled=2048, precision="bfloat16"),
)
REMATS = ("none", "dots", "full")


def lines(rounds: int, shapes: Sequence[networks.Shape] = SHAPES, most: int = MOST) -> list[str]:
    """The section: a table for each network."""
    products = race(
        [Contender(name, networks.product, (name, SIZE, "bfloat16", 20)) for name in ("jax", "torch")[: 1 + PEERS]],
        rounds,
        together=False,
    )
    best = 2 * SIZE**3 / min(times.median for times in products)
    text = [f"A product of {SIZE} x {SIZE} in bf16: {best / 1e12:.0f} TFLOP/s, the better of {len(products)}.", ""]
    return text + [line for shape in shapes for line in _network(shape, rounds, best, most)]


def _network(shape: networks.Shape, rounds: int, best: float, most: int) -> list[str]:
    own = [(f"rfjax, {name} attention", {"attention": name}) for name in ("cudnn", "xla")]
    own += [(f"rfjax, cudnn attention, remat {remat}", {"attention": "cudnn", "remat": remat}) for remat in REMATS[1:]]
    work = [Contender(name, networks.ours, (shape, STEPS, model)) for name, model in own]
    memory = [Contender(name, networks.our_peak, (shape, model)) for name, model in own]
    if PEERS:
        work.append(Contender("torch compiled, autocast", networks.theirs, (shape, True, STEPS)))
        memory.append(Contender("torch compiled, autocast", networks.their_peak, (shape,)))
    found, peaks = (race(contenders, n, together=False) for contenders, n in ((work, rounds), (memory, 1)))
    flops, first = 3 * networks.flops(shape), found[0]
    rows = [
        (
            times.name,
            times.failure or spread(times.seconds, 1e-3, 1),
            f"{flops / times.median / best:.1%}",
            f"{times.median / first.median:.2f}",
            peak.failure or f"{peak.median / 2**30:.1f}",
            _largest(contender, shape, most),
        )
        for times, peak, contender in zip(found, peaks, memory, strict=True)
    ]
    head = ("", "ms a step", "MFU", "over the first", "peak GiB", "largest batch")
    return [f"**{shape.name}, bf16**", "", *page.table(head, rows), ""]


def _largest(contender: Contender, shape: networks.Shape, most: int) -> str:
    """The largest power of two, from the shape's batch on, that a step fits in memory with."""
    batch = shape.batch
    while batch <= most:
        tried = dataclasses.replace(shape, batch=batch)
        (times,) = race([dataclasses.replace(contender, arguments=(tried, *contender.arguments[1:]))], 1)
        if times.failure:
            break
        batch *= 2
    else:
        return f"{most} or more"
    return str(batch // 2) if batch > shape.batch else f"under {shape.batch}"
