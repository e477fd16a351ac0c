"""How hard XLA should try: on a CPU a short run waits for its compiler."""

import functools

import jax
import jax.numpy as jnp

# Same speed within noise at about half the compile time (benchmarks/compilation.py); jax 0.12 lacks the second.
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
