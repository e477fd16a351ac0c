"""Seconds to compile a training step: by depth, and by how hard XLA should try, beside the milliseconds of a step.

    python -m benchmarks.compile [depth] [options] [BACKBONE ...] [rounds=N] [quick] [--record]     by default all

No compilation cache serves, and the rounds are interleaved; 8 minutes on two cores. Two figures:

- depth: seconds to trace and lower, and to compile, the step of a network of width 128 with 6, 12 and 24 blocks, for
  each backbone, with the scan over the blocks; for mmdit also without, in one round. The ratio is that of the whole
  time at 24 over that at 6 blocks. Expect at most 1.3 with the scan.
- options: for rung d2 of the first command and for MM-DiT at depth 4 by the paper's rule (width 256, batch 64), seconds
  to compile by XLA's options, milliseconds of a step, and after how many steps XLA's own effort has paid for itself.
  This decides `rfjax.compiling`.

quick: one round of tiny networks, from the compilation cache where there is one, to see that the program works.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import networks, page
from benchmarks.race import rounds_of, say, spread
from rfjax import config as configs
from rfjax import main
from rfjax.planning import tracing
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state, initial_state

Options = dict[str, Any]

RUNG = f"--config={Path(__file__).parents[1] / 'configs' / 'scaling.py'}"
BACKBONES = ("mmdit", "mmdit3", "dit", "crossdit", "uvit")
DEPTHS, WIDTH, HEADS, BATCH, ROUNDS = (6, 12, 24), 128, 4, 8, 2
NO_EMITTERS, LESS = {"xla_cpu_use_fusion_emitters": False}, {"xla_backend_optimization_level": 1}
OPTIONS: dict[str, Options] = {
    "XLA's own": {},
    "no fusion emitters": NO_EMITTERS,
    "level 1": LESS,
    "level 1, no fusion emitters": LESS | NO_EMITTERS,
}
QUICK = "level 1, no fusion emitters"  # what the figures by depth are compiled with, on a CPU
SECONDS, ALL_STEPS = 2.0, 20  # of steps in a round: as many as fit into these, and at most so many


@dataclass
class Program:
    """A training step as it is compiled: the function, and the shapes of its arguments."""

    config: configs.Config

    @functools.cached_property
    def spec(self) -> Any:
        return make_run_spec(self.config)

    @functools.cached_property
    def mesh(self) -> jax.sharding.Mesh:
        return meshes.make_mesh(self.config.mesh)

    def function(self) -> Any:
        """The jitted update, new each time, so that nothing of it is traced."""
        return jax.jit(functools.partial(steps.update, self.spec, self.mesh), donate_argnums=0)

    def arguments(self) -> tuple[Any, Any]:
        """An encoded batch and its noise, as shapes."""
        return tracing.arguments(self.config, self.spec, self.mesh)

    def lowered(self) -> tuple[Any, float]:
        """Traced and lowered anew, from shapes alone, and the seconds of that."""
        jax.clear_caches()
        arguments = abstract_state(self.spec, self.mesh), *self.arguments()
        began = time.perf_counter()
        return self.function().lower(*arguments), time.perf_counter() - began


def drawn(shapes: Any) -> Any:
    """Random numbers of these shapes, kinds and places."""
    rng = np.random.default_rng(0)
    values = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(x.dtype), shapes)
    return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), values, shapes)


@dataclass
class Found:
    """Seconds of each round to trace and lower, to compile, and of a step; or why there are none."""

    lower: list[float] = field(default_factory=list)
    compile: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)
    failure: str = ""

    @property
    def whole(self) -> list[float]:
        return [a + b for a, b in zip(self.lower, self.compile, strict=True)]


def compiled(lowered: Any, seconds: float, options: Options, found: Found) -> Callable[..., Any] | None:
    """Compiles a step, and notes these seconds of lowering it and those of compiling."""
    began = time.perf_counter()
    try:
        function = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:  # an option that this XLA does not know
        found.failure = str(error).splitlines()[0]
        return None
    found.compile.append(time.perf_counter() - began)
    found.lower.append(seconds)
    return function


def deep(backbone: str, depth: int, unroll: int) -> configs.Config:
    """A step of the network whose depth alone changes."""
    c = configs.default()
    c.data.image_size = 16
    c.text.vocabularies = 2
    c.training.batch = BATCH
    c.model.update(backbone=backbone, depth=depth, width=WIDTH, heads=HEADS, unroll=unroll)
    return configs.parse(c)


def depth(backbones: Sequence[str], rounds: int, depths: Sequence[int]) -> list[str]:
    """The table by depth."""
    cpu = jax.default_backend() == "cpu"
    options = next((o for o in (OPTIONS[QUICK], LESS) if cpu and known(o)), {})
    kinds = [(backbone, 1) for backbone in backbones] + [("mmdit", 0)] * ("mmdit" in backbones)
    found = {kind: {depth: Found() for depth in depths} for kind in kinds}
    compiled(*Program(deep(backbones[0], depths[0], 1)).lowered(), options, Found())  # imports and the like
    for number in range(rounds):
        for (backbone, unroll), by_depth in found.items():
            if number and not unroll:
                continue
            for blocks, times in by_depth.items():
                compiled(*Program(deep(backbone, blocks, unroll)).lowered(), options, times)
            say(f"depth, round {number + 1} of {rounds}: {backbone}{'' if unroll else ' without the scan'}")
    head = ["backbone", *(f"trace + compile, {d} blocks, s" for d in depths), f"{depths[-1]} over {depths[0]} blocks"]
    rows = []
    for (backbone, unroll), by_depth in found.items():
        first, last = by_depth[depths[0]].whole, by_depth[depths[-1]].whole
        cells = [
            f"{statistics.median(times.lower):.2f} + {statistics.median(times.compile):.2f}"
            for times in by_depth.values()
        ]
        ratio = spread([b / a for a, b in zip(first, last, strict=True)])
        rows.append([backbone if unroll else f"{backbone} without the scan", *cells, ratio])
    said = f"{', '.join(f'{k}={v}' for k, v in options.items()) or 'no options'}; {rounds} rounds"
    return [f"By depth, width {WIDTH}, {said}:", "", *page.table(head, rows)]


@functools.cache
def _probe() -> Any:
    return jax.jit(lambda x: x + 1).lower(jnp.float32(0))


def known(options: Options) -> bool:
    """Whether this XLA has these options."""
    try:
        _probe().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError:
        return False
    return True


def rung(name: str) -> configs.Config:
    """A rung of the first command."""
    return dict(configs.runs(main.read_flags([RUNG])))[name]


def options_table(title: str, program: Program, rounds: int) -> list[str]:
    """The table by compiler options of a network."""
    mesh = program.mesh
    state = jax.device_get(initial_state(program.spec, mesh, 0))
    placements = jax.tree.map(lambda x: x.sharding, abstract_state(program.spec, mesh))
    found = {name: Found() for name in OPTIONS}
    for number in range(rounds):
        lowered = program.lowered()
        functions = {name: compiled(*lowered, OPTIONS[name], t) for name, t in found.items() if not t.failure}
        placed = drawn(program.arguments())
        for name, function in functions.items():
            if function is not None:
                found[name].step.append(_step(function, jax.device_put(state, placements), *placed))
        say(f"options, {title}, round {number + 1} of {rounds}")
    own, rows = found["XLA's own"], []
    for name, times in found.items():
        if times.failure:
            rows.append([name, "-", "-", times.failure])
            continue
        rows.append([name, spread(times.compile, digits=1), spread(times.step, 1e-3, 1), _paid(own, times)])
    head = ["options", "compile, s", "step, ms", "XLA's own is sooner from step"]
    return [f"By options, {title}, {rounds} rounds:", "", *page.table(head, rows)]


def _step(function: Callable[..., Any], state: Any, batch: Any, noise: Any) -> float:
    """The median seconds of a step."""
    times: list[float] = []
    state, _ = jax.block_until_ready(function(state, batch, noise))
    ends = time.perf_counter() + SECONDS
    while len(times) < ALL_STEPS and (len(times) < 2 or time.perf_counter() < ends):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(function(state, batch, noise))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _paid(own: Found, other: Found) -> str:
    """After how many steps the seconds of XLA's own effort come back."""
    if own is other or not own.step:
        return ""
    saved = statistics.median(own.compile) - statistics.median(other.compile)
    slower = statistics.median(other.step) - statistics.median(own.step)
    if slower <= 0:
        return "never" if saved > 0 else "undecided"
    return "1" if saved <= 0 else f"{saved / slower:,.0f}"


def options(rounds: int, quick: bool) -> list[str]:
    """The tables by compiler options."""
    if quick:
        return options_table("tiny", Program(networks.config(networks.Shape("mmdit", 1, 16, 1, 8, side=4))), rounds)
    return [
        *options_table("d2 of the first command", Program(rung("d2")), rounds),
        "",
        *options_table("MM-DiT at depth 4, batch 64", Program(networks.config(networks.mmdit(4, 64))), rounds),
    ]


def run(words: Sequence[str]) -> None:
    """Prints the tables asked for."""
    quick, backbones = "quick" in words, [word for word in words if word in BACKBONES]
    rounds = rounds_of(words, 1 if quick else ROUNDS)
    if not quick:
        jax.config.update("jax_enable_compilation_cache", False)
    both = not {"depth", "options"} & set(words)
    lines: list[str] = []
    if both or "depth" in words:
        lines += [*depth(backbones or BACKBONES, rounds, (1, 2) if quick else DEPTHS), ""]
    if both or "options" in words:
        lines += [*options(rounds, quick), ""]
    page.show("compile", lines[:-1])


if __name__ == "__main__":
    run(sys.argv[1:])
