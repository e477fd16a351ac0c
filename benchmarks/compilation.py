"""Seconds to compile a training step, and milliseconds to run it, by compiler options, interleaved in one run.

python -m benchmarks.compilation [--config=configs/scaling.py] [RUN ...]      (by default d2 and d5; CPU only)
"""

import functools
import sys
import time
from typing import Any

import jax
import numpy as np

from rfjax import config as configs
from rfjax import data, flow
from rfjax.main import read_flags
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.parts import make_parts

OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"xla_cpu_use_fusion_emitters": False},
    {"xla_backend_optimization_level": 1},
    {"xla_backend_optimization_level": 1, "xla_cpu_use_fusion_emitters": False},
)
ROUNDS, STEPS = 5, 4


def measure(name: str, run: configs.Config) -> None:
    """Prints a line for each set of options."""
    mesh, parts = meshes.make_mesh(run.mesh), make_parts(run)
    batch, _ = data.load(data.open_source(run.data, "train"), parts.encoder, list(range(run.training.batch)))
    numbers, seed = flow.formulation(run.flow.formulation).numbers, np.uint32(0)
    draw = functools.partial(steps.jit_draw(steps.recipe(parts, run), mesh), numbers, seed)
    batch = meshes.put_rows(batch, run.training.batch, mesh)
    state = jax.device_get(steps.initial_state(parts, mesh, 0))
    shardings = jax.tree.map(lambda x: x.sharding, steps.abstract_state(parts, mesh))
    update = jax.jit(lambda s, b, d: steps.update(parts, mesh, s, b, d), donate_argnums=0)
    compiled, times = {}, {}
    for options in OPTIONS:
        lowered = update.lower(jax.device_put(state, shardings), batch, draw(state.step, batch["slot"]))
        start = time.perf_counter()
        try:
            compiled[str(options)] = (lowered.compile(compiler_options=options), time.perf_counter() - start)
        except jax.errors.JaxRuntimeError as error:
            print(f"{name} {options}: {error}")
    for _ in range(ROUNDS):
        for key, (function, _) in compiled.items():
            current = jax.device_put(state, shardings)
            for _ in range(STEPS):
                start = time.perf_counter()
                current, _ = jax.block_until_ready(function(current, batch, draw(current.step, batch["slot"])))
                times.setdefault(key, []).append(time.perf_counter() - start)
    for key, (_, seconds) in compiled.items():
        print(f"{name}  compile {seconds:5.1f} s  step {1e3 * np.median(times[key]):7.1f} ms  {key}")


if __name__ == "__main__":
    flags = [word for word in sys.argv[1:] if word.startswith("--")] or ["--config=configs/scaling.py"]
    wanted = [word for word in sys.argv[1:] if not word.startswith("--")] or ["d2", "d5"]
    for name, run in configs.runs(read_flags(flags)):
        if name in wanted:
            measure(name, run)
