"""A training step beside diffusers' networks under torch, eager and compiled: same shapes, batch and precision.

    python -m benchmarks.train_step [mmdit4 mmdit6 sit4 ...] [rounds=5] [--record]
    python -m benchmarks.train_step changes [mmdit4] [rounds=5] [--record]     what made ours fast, one after the other
    python -m benchmarks.train_step gpu [--record]         on a GPU: bf16, memory, batches that fit

Every contender has a process of its own with the same cores, and all work in turn. Prints medians with the smallest and
the largest of the rounds; how many times as long the better torch variant takes; and what share of the rate of a large
matrix product, in the same rounds and precision, a step reaches by its model's FLOPs (the better of the two libraries'
products). A last line has torch with the memory allocator set as rfjax sets it. Needs torch and diffusers; without
them, only ours runs.
"""

import sys

from benchmarks import networks, page
from benchmarks.race import PEERS, Contender, race, ratios, rounds_of, spread

SIZE = 2048  # of the matrix product
SHAPES = {
    "mmdit2": networks.mmdit(2, 64),
    "mmdit4": networks.mmdit(4, 64),
    "mmdit6": networks.mmdit(6, 64),
    "sit4": networks.sit(4, 256, 64),
    "sit6": networks.sit(6, 384, 64),
}
DEFAULT = ("mmdit4", "mmdit6", "sit4")
KEPT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40), "MALLOC_ARENA_MAX": "1"}


def contenders(shape: networks.Shape) -> list[Contender]:
    """Ours, theirs, and the two libraries' matrix products."""
    found = [Contender("rfjax", networks.ours, (shape,)), Contender("product, jax", networks.product, ("jax", SIZE))]
    if PEERS:
        found += [
            Contender("torch eager", networks.theirs, (shape, False)),
            Contender("torch compiled", networks.theirs, (shape, True)),
            Contender("torch compiled, memory kept", networks.theirs, (shape, True), KEPT),
            Contender("product, torch", networks.product, ("torch", SIZE)),
        ]
    return found


def lines(shape: networks.Shape, rounds: int) -> list[str]:
    """The section about one network."""
    found = {times.name: times for times in race(contenders(shape), rounds)}
    flops, own = 3 * networks.flops(shape), found["rfjax"]
    rates = {name: 2 * SIZE**3 / found[name].median / 1e9 for name in found if name.startswith("product")}
    best = max(rates.values())
    rows = []
    for times in found.values():
        if times.name in rates:
            continue
        rate = flops / times.median / 1e9
        ratio = "" if times is own else spread(ratios(own, times))
        rows.append(
            (times.name, times.failure or spread(times.seconds, 1e-3, 0), f"{rate:.0f}", f"{rate / best:.0%}", ratio)
        )
    head = ("", "ms a step", "model GFLOP/s", "of the product's", "over rfjax")
    products = ", ".join(f"{name.split(', ')[1]} {rate:.0f}" for name, rate in rates.items())
    text = [f"**{shape.name}**", "", *page.table(head, rows), "", f"A product of {SIZE} x {SIZE}, GFLOP/s: {products}."]
    if PEERS:
        better = min((found["torch eager"], found["torch compiled"]), key=lambda times: times.median)
        text.append(f"Against the better, {better.name}: **{better.median / own.median:.2f} x** by the medians.")
    return [*text, ""]


def changes(shape: networks.Shape, rounds: int) -> list[str]:
    """The section on what made it fast: from none of the changes to all, and all but one."""
    names = networks.CHANGES
    sets = {"as before": names} | {f"+ {name}": names[i + 1 :] for i, name in enumerate(names)}
    sets |= {f"all but {name}": (name,) for name in names[:-1]}
    found = race([Contender(name, networks.ours, (shape, 1, None, left)) for name, left in sets.items()], rounds)
    first = found[0]
    rows = [(t.name, t.failure or spread(t.seconds, 1e-3, 0), spread(ratios(t, first))) for t in found]
    return [f"**{shape.name}**", "", *page.table(("", "ms a step", "times as fast as before"), rows)]


def main(arguments: list[str]) -> None:
    words = [a for a in arguments if not a.startswith("--") and "=" not in a]
    rounds = rounds_of(arguments, 5)
    if words == ["gpu"]:
        from benchmarks import gpu

        page.show("train_step_gpu", gpu.lines(rounds))
        return
    if words[:1] == ["changes"]:
        page.show("changes", changes(SHAPES[(words[1:] or ["mmdit4"])[0]], rounds))
        return
    found = [lines(SHAPES[word], rounds) for word in words or DEFAULT]
    page.show("train_step", [line for section in found for line in section][:-1])


if __name__ == "__main__":
    main(sys.argv[1:])
