"""How hard XLA should try, for on a CPU a short run waits for its compiler, and how often it was asked."""

import functools
import re

import jax
import jax.numpy as jnp

# About half the compile time; networks of the first command's widths are as fast, wider ones a tenth slower, since
# tanh and exp are not vectorised (benchmarks/compile.py). jax 0.12 lacks the second.
QUICK = ({"xla_backend_optimization_level": 1}, {"xla_cpu_use_fusion_emitters": False})


@functools.cache
def quick_options() -> dict[str, bool | int] | None:
    """Options for `jax.jit(compiler_options=...)`: on a CPU those of QUICK that this version knows, else none."""
    if jax.default_backend() != "cpu":
        return None
    options: dict[str, bool | int] = {}
    probe = jax.jit(lambda x: x + 1).lower(jnp.float32(0))
    for option in QUICK:
        try:
            probe.compile(compiler_options=option)
        except jax.errors.JaxRuntimeError:
            continue
        options |= option
    return options


MIN_FLOPS_FOR_FULL_OPT = 1e13  # FLOPs of training: two minutes of two cores, of which full effort saves what it takes
MIN_FLOPS_FOR_FULL_OPT_SAMPLING = 5e11  # of a batch of samples: its program compiles sooner, and is seldom called once


def worth_full_opt(flops: float, worth: float = MIN_FLOPS_FOR_FULL_OPT) -> bool:
    """Whether a program that will do so many floating-point operations is worth full effort: not a short one's on a
    CPU."""
    return jax.default_backend() != "cpu" or flops > worth


def options(full: bool) -> dict[str, bool | int] | None:
    """Options for `jax.jit(compiler_options=...)`, with full effort or quick."""
    return None if full else quick_options()


NOTED_SECONDS = 0.3  # programs that take less to compile, such as single operations, are not worth a name
_EVENT = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts the programs that are compiled, or fetched from a compilation cache, from now on."""

    def __init__(self) -> None:
        self.programs: dict[str, list[float]] = {}
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, seconds: float, **facts: str | int) -> None:
        if event == _EVENT:
            name = re.sub(r"^jit\((.*)\)$", r"\1", str(facts.get("fun_name", "unnamed")))
            self.programs.setdefault(name, []).append(seconds)

    def record(self) -> dict[str, dict[str, float]]:
        """name -> {count, seconds} of the programs that took a while; all others together as "small"."""
        small = {name: s for name, s in self.programs.items() if max(s) < NOTED_SECONDS}
        groups = {name: s for name, s in self.programs.items() if name not in small}
        groups["small"] = [seconds for found in small.values() for seconds in found]
        return {name: {"count": len(s), "seconds": round(sum(s), 2)} for name, s in groups.items() if s}
