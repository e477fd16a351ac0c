"""Images per second, 50 Euler steps with guidance, beside diffusers' networks in diffusers' loop under torch.

    python -m benchmarks.sampling [mmdit4 mmdit6 sit4 ...] [rounds=2] [--record]     the peers need torch
    python -m benchmarks.sampling overhead [--config=configs/formulations.py]   ours alone: the loop and the network

Every contender has a process of its own with the same cores, and all work in turn; medians with the smallest and the
largest of the rounds. `overhead` takes the config's first run, batch 64, and prints what the compiled sampler of 50
steps (100 evaluations, two branches in a batch) takes over 50 calls of the jitted network on both branches and over 100
calls on one, and the number of compilations that nine formulations, step counts and scales needed.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import networks, page
from benchmarks.race import PEERS, Contender, race, ratios, rounds_of, spread

SHAPES = {
    "mmdit2": networks.mmdit(2, 8),
    "mmdit4": networks.mmdit(4, 16),
    "mmdit6": networks.mmdit(6, 16),
    "sit4": networks.sit(4, 256, 16),
}
DEFAULT = ("mmdit4", "mmdit6", "sit4")
STEPS, ROUNDS, SCALE, BATCH = networks.STEPS, 7, networks.GUIDANCE, 64
OTHERS = (("eps/linear", 25, 5.0), ("v/cos", 10, 5.0), ("edm(0,0.6)", 5, 5.0), ("edm/rf", 50, 2.5), ("rf", 50, 2.5),
          ("rf/mode(1.29)", 10, 7.0), ("edm/cos", 7, 3.0), ("eps/cos", 50, 5.0))  # fmt: skip


def lines(shape: networks.Shape, rounds: int) -> list[str]:
    """The section about one network."""
    contenders = [Contender("rfjax", networks.our_sampler, (shape,), warm=False)]
    if PEERS:
        contenders += [
            Contender("torch eager", networks.their_sampler, (shape, False), warm=False),
            Contender("torch compiled", networks.their_sampler, (shape, True), warm=False),
        ]
    found = race(contenders, rounds)
    own, rows = found[0], []
    for times in found:
        speed = [shape.batch / seconds for seconds in times.seconds]
        rate = 2 * STEPS * networks.flops(shape) / times.median / 1e9
        ratio = "" if times is own else spread(ratios(own, times))
        rows.append((times.name, times.failure or spread(speed), f"{rate:.0f}", ratio))
    head = ("", "images a second", "model GFLOP/s", "time over rfjax's")
    text = [f"**{shape.name}**, {STEPS} steps, guidance {SCALE:g}", "", *page.table(head, rows), ""]
    if PEERS:
        better = min(found[1:], key=lambda times: times.median)
        text += [f"Against the better, {better.name}: **{better.median / own.median:.2f} x** by the medians.", ""]
    return text


def seconds(work: Callable[[], Any]) -> float:
    """Of one call, to the end of what it began."""
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def overhead(flags: Sequence[str]) -> None:
    """Prints what our sampler costs beyond its network."""
    from rfjax import config as configs
    from rfjax import data, flow
    from rfjax.evaluation.sampler import Sampleable, SamplerSettings, jit_sampler, noise, sample_batch
    from rfjax.main import read_flags
    from rfjax.training import mesh as meshes
    from rfjax.training.encode import EncodeStage
    from rfjax.training.spec import make_run_spec
    from rfjax.training.state import initial_state
    from rfjax.training.step import jit_network

    _, run = next(iter(configs.runs(read_flags(list(flags) or ["--config=configs/formulations.py"]))))
    spec, mesh = make_run_spec(run), meshes.make_mesh(run.mesh)
    stage, source = EncodeStage.place(spec.encoders, mesh), data.open_source(run.data, "validation")
    rows, _ = data.load(source, list(range(BATCH)), stage.prepare, stage.names(source))
    cond, index = stage(rows, np.uint32(0), np.int32(0))["cond"], np.arange(BATCH, dtype=np.int32)
    weights = initial_state(spec, mesh, 0).params
    apply, params = jit_network(spec.model), {"params": weights}
    one = (noise(jnp.arange(BATCH), spec.codec.shape), jnp.full((BATCH,), 0.5), cond)
    two = jax.tree.map(lambda x: jnp.concatenate([x, x]), one)

    def sample(name: str = run.flow.formulation, count: int = STEPS, scale: float = SCALE) -> jax.Array:
        network = Sampleable(spec.model, weights, flow.formulation(name), spec.codec)
        return sample_batch(network, index, cond, SamplerSettings("euler", count, flow.Guidance(scale), room=STEPS)).z

    def evaluate(inputs: tuple, times: int) -> jax.Array:
        for _ in range(times):
            out = apply(params, *inputs)
        return out

    works = {
        "sampler, 50 steps with guidance": sample,
        "50 evaluations of both branches": lambda: evaluate(two, STEPS),
        "100 evaluations of one branch": lambda: evaluate(one, 2 * STEPS),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        jax.block_until_ready(work())
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds(work))
    print(f"{page.machine()}; batch {BATCH}, {run.model.backbone} d{run.model.depth}")
    for name, found in times.items():
        print(f"{name:>34}  {spread(found, 1, 3)} s")
    whole, both, single = (statistics.median(found) for found in times.values())
    print(f"sampler over both branches in a batch {whole / both:.3f}, over 100 single evaluations {whole / single:.3f}")
    for name, count, scale in OTHERS:
        jax.block_until_ready(sample(name, count, scale))
    program = jit_sampler(spec.model, spec.codec, "euler", "linear", flow.Guidance(0.0), full=False)
    print(f"compilations of the sampler for {len(OTHERS) + 1} formulations, steps and scales: {program._cache_size()}")


def main(arguments: list[str]) -> None:
    words = [a for a in arguments if not a.startswith("--") and "=" not in a]
    if words == ["overhead"]:
        overhead([a for a in arguments if a.startswith("--config")])
        return
    rounds = rounds_of(arguments, 2)
    found = [lines(SHAPES[word], rounds) for word in words or DEFAULT]
    page.show("sampling", [line for section in found for line in section][:-1])


if __name__ == "__main__":
    main(sys.argv[1:])
