"""The compiler's effort, and a count of compiled programs.

On a CPU a short run can take longer to compile than to train. Other measures for CPUs are elsewhere: `rfjax.memory`
(malloc), `rfjax.models.matmul` (float32 products), config.model.unroll and config.optimizer.flatten.
"""

import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

# They halve the compile time. Networks of the first command's widths run as fast, wider ones a tenth slower, because
# tanh and exp are not vectorised (benchmarks/compile.py). jax 0.12 lacks the second option.
QUICK = ({"xla_backend_optimization_level": 1}, {"xla_cpu_use_fusion_emitters": False})


@functools.cache
def quick_options() -> dict[str, Any] | None:
    """Options of `jax.jit(compiler_options=...)` for low effort: those of QUICK that JAX has, on a CPU."""
    return _known(QUICK) if jax.default_backend() == "cpu" else None


# A program that runs once, such as that which draws the initial weights, compiles in half the time again.
ONCE = ({"xla_backend_optimization_level": 0}, {"xla_cpu_use_fusion_emitters": False})


@functools.cache
def once_options() -> dict[str, Any] | None:
    """Options for a program that runs once: those of ONCE that JAX has, on a CPU."""
    return _known(ONCE) if jax.default_backend() == "cpu" else None


# XLA for CPUs multiplies in float32. Without this it copies the bfloat16 weights of all blocks before a scan over them,
# which takes twice their memory once more; with it, those of one block at a time.
NARROW = ({"xla_disable_hlo_passes": "while-loop-invariant-code-motion"},)


@functools.cache
def narrow_options() -> dict[str, Any] | None:
    """Options for programs that scan over weights in half precision: those of NARROW that JAX has, on a CPU."""
    return _known(NARROW) if jax.default_backend() == "cpu" else None


def _known(wanted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Those options that JAX has."""
    options: dict[str, Any] = {}
    probe = jax.jit(lambda x: x + 1).lower(jnp.float32(0))
    for option in wanted:
        try:
            probe.compile(compiler_options=option)
        except jax.errors.JaxRuntimeError:
            continue
        options |= option
    return options


MIN_FLOPS_FOR_FULL_OPT = 1e13  # of training: two minutes of two cores, where full effort saves as much as it costs
MIN_FLOPS_FOR_FULL_OPT_SAMPLING = 5e11  # of a batch of pictures: the program compiles faster and usually runs often


def worth_full_opt(flops: float, worth: float = MIN_FLOPS_FOR_FULL_OPT) -> bool:
    """Whether a program deserves the compiler's full effort: always on accelerators, for long programs on a CPU.

    Args:
        flops: of all executions of the program.
        worth: the least FLOPs on a CPU.
    """
    return jax.default_backend() != "cpu" or flops > worth


def options(full: bool, *, narrow: bool = False) -> dict[str, Any] | None:
    """Options of `jax.jit(compiler_options=...)`.

    Args:
        full: whether the compiler makes its full effort.
        narrow: whether the program scans over weights in half precision.
    """
    return {**((not full and quick_options()) or {}), **((narrow and narrow_options()) or {})} or None


NOTED_SECONDS = 0.3  # programs that compile faster, such as single operations, are counted together
_EVENT = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts the programs that are compiled, or read from a compilation cache, from its creation on."""

    def __init__(self) -> None:
        self.programs: dict[str, list[float]] = {}
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, seconds: float, **details: str | int) -> None:
        if event == _EVENT:
            name = re.sub(r"^jit\((.*)\)$", r"\1", str(details.get("fun_name", "unnamed")))
            self.programs.setdefault(name, []).append(seconds)

    def record(self) -> dict[str, dict[str, float]]:
        """name -> {count, seconds} of the programs that took NOTED_SECONDS or more; all others together as "small"."""
        small = {name: s for name, s in self.programs.items() if max(s) < NOTED_SECONDS}
        groups = {name: s for name, s in self.programs.items() if name not in small}
        groups["small"] = [one for seconds in small.values() for one in seconds]
        return {name: {"count": len(s), "seconds": round(sum(s), 2)} for name, s in groups.items() if s}
