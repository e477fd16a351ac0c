"""How hard the compiler tries."""

import jax
import ml_collections
import pytest

from rfjax import compiling
from rfjax import config as configs
from rfjax.training.spec import make_run_spec


def test_long_work_is_compiled_with_full_effort_and_short_work_quickly() -> None:
    assert not compiling.worth_full_opt(compiling.MIN_FLOPS_FOR_FULL_OPT)
    assert compiling.worth_full_opt(2 * compiling.MIN_FLOPS_FOR_FULL_OPT)
    assert compiling.options(True) is None
    quick = compiling.options(False)
    assert quick
    assert jax.jit(lambda x: 2 * x, compiler_options=quick)(2.0) == 4


def test_a_program_that_runs_once_is_compiled_with_the_least_effort() -> None:
    once = compiling.once_options()
    assert once["xla_backend_optimization_level"] == 0
    assert jax.jit(lambda x: 2 * x, compiler_options=once)(2.0) == 4


@pytest.mark.parametrize(("steps", "unroll", "expected"), [(10, -1, 1), (10**9, -1, 3), (10**9, 2, 2), (10, 0, 3)])
def test_blocks_are_unrolled_where_a_cpu_has_long_to_train(
    tiny_config: ml_collections.ConfigDict, steps: int, unroll: int, expected: int
) -> None:
    tiny_config.model.update(depth=3, unroll=unroll)
    tiny_config.training.steps = steps
    parts = make_run_spec(configs.parse(tiny_config))
    assert (parts.model.unroll, parts.full_opt) == (expected, steps == 10**9)
