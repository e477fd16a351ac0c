"""What a sampler costs beyond its network: Euler with guidance against bare evaluations, interleaved in one run.

    python -m benchmarks.sampling [--config=configs/formulations.py] [RUN] [BATCH]      by default its first run, 64

Prints medians of ROUNDS: the compiled sampler of 50 steps (100 evaluations, two branches in a batch), 50 calls of the
jitted network on both branches in one batch, and 100 calls on one branch; then their ratios and the number of
compilations that eight formulations, step counts and scales needed.
"""

import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import config as configs
from rfjax import data, flow
from rfjax.evaluation import pictures
from rfjax.main import read_flags
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.parts import make_parts

STEPS, ROUNDS, SCALE = 50, 7, 5.0
OTHERS = (("eps/linear", 25, 5.0), ("v/cos", 10, 5.0), ("edm(0,0.6)", 5, 5.0), ("edm/rf", 50, 2.5), ("rf", 50, 2.5),
          ("rf/mode(1.29)", 10, 7.0), ("edm/cos", 7, 3.0), ("eps/cos", 50, 5.0))  # fmt: skip


def seconds(work: Callable[[], jax.Array]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def main(arguments: list[str]) -> None:
    flags = [a for a in arguments if a.startswith("--")] or ["--config=configs/formulations.py"]
    words = [a for a in arguments if not a.startswith("--")]
    runs = dict(configs.runs(read_flags(flags)))
    run = runs[words[0]] if words else next(iter(runs.values()))
    batch = int(words[1]) if len(words) > 1 else 64
    parts = make_parts(run)
    state = steps.initial_state(parts, meshes.make_mesh(run.mesh), 0)
    formulation = flow.formulation(run.flow.formulation)
    trained = pictures.Trained(parts.model, state.params, formulation, parts.inputs.image)
    rows, _ = data.load(data.open_source(run.data, "validation"), parts.encoder, list(range(batch)))
    text, index = (rows["context"], rows["pooled"]), np.arange(batch, dtype=np.int32)
    apply, params = steps.jit_network(parts.model), {"params": state.params}
    z = pictures.noise(jnp.arange(batch), parts.inputs.image)
    one = (z, jnp.full((batch,), 0.5), *map(jnp.asarray, text))
    two = jax.tree.map(lambda x: jnp.concatenate([x, x]), one)

    def sample(flow_now: flow.Formulation = formulation, count: int = STEPS, scale: float = SCALE) -> jax.Array:
        now = pictures.Trained(trained.model, trained.params, flow_now, trained.image)
        return pictures.draw(now, index, text, pictures.Settings("euler", count, flow.Guidance(scale), room=STEPS)).z

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
    middle = {name: statistics.median(found) for name, found in times.items()}
    print(
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}, batch {batch}, {run.model.backbone} d{run.model.depth}"
    )
    for name, value in middle.items():
        print(f"{name:>34}  {value:8.3f} s   ({min(times[name]):.3f} to {max(times[name]):.3f})")
    whole, both, single = middle.values()
    print(f"sampler over both branches in a batch {whole / both:.3f}, over 100 single evaluations {whole / single:.3f}")
    program = pictures.jit_sampler(parts.model, "euler", "linear", flow.Guidance(0.0), parts.inputs.image)
    for name, count, scale in OTHERS:
        jax.block_until_ready(sample(flow.formulation(name), count, scale))
    print(f"compilations of the sampler for {len(OTHERS) + 1} formulations, steps and scales: {program._cache_size()}")


if __name__ == "__main__":
    main(sys.argv[1:])
