"""Seconds to lower and compile a training step by depth: with a scan over the blocks, they hardly grow.

    python -m benchmarks.depth [BACKBONE ...]            by default all; width 128, no compilation cache, interleaved
    python -m benchmarks.depth --unrolled [BACKBONE ...]  without the scan

Prints, for each backbone, the medians of ROUNDS at 6 and 24 blocks, and their ratio.
"""

import functools
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from rfjax import config as configs
from rfjax import flow
from rfjax.compiling import quick_options
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.parts import make_parts

DEPTHS, ROUNDS, WIDTH, HEADS = (6, 24), 3, 128, 4
BACKBONES = ("mmdit", "mmdit3", "dit", "crossdit", "uvit")


def seconds(backbone: str, depth: int, unroll: int) -> float:
    """To trace, lower and compile one training step."""
    c = configs.default()
    c.data.image_size = 16
    c.text.vocabularies = 2
    c.model.update(backbone=backbone, depth=depth, width=WIDTH, heads=HEADS, unroll=unroll)
    config = configs.parse(c)
    parts, mesh = make_parts(config), meshes.make_mesh(config.mesh)
    state = steps.abstract_state(parts, mesh)
    image, text, pooled = (
        jax.ShapeDtypeStruct((8, *shape), kind)
        for shape, kind in (
            (parts.inputs.image, jnp.uint8),
            (parts.inputs.text, jnp.float32),
            ((parts.inputs.pooled_width,), jnp.float32),
        )
    )
    batch = {"image": image, "context": text, "pooled": pooled}
    numbers = flow.formulation(config.flow.formulation).numbers
    draws = jax.eval_shape(steps.recipe(parts, config).draw, numbers, jnp.uint32(0), jnp.int32(0), jnp.arange(8))
    jax.clear_caches()
    start = time.perf_counter()
    update = jax.jit(functools.partial(steps.update, parts, mesh), donate_argnums=0)
    update.lower(state, batch, draws).compile(compiler_options=quick_options())
    return time.perf_counter() - start


def main(arguments: list[str]) -> None:
    """Prints a line for each backbone."""
    unroll = 0 if "--unrolled" in arguments else 1
    backbones = [word for word in arguments if not word.startswith("--")] or BACKBONES
    jax.config.update("jax_enable_compilation_cache", False)
    for backbone in backbones:
        found: dict[int, list[float]] = {depth: [] for depth in DEPTHS}
        for _ in range(ROUNDS):
            for depth, times in found.items():
                times.append(seconds(backbone, depth, unroll))
        few, many = (statistics.median(times) for times in found.values())
        print(
            f"{backbone:9} {DEPTHS[0]} blocks {few:5.2f} s   {DEPTHS[1]} blocks {many:5.2f} s   x {many / few:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
