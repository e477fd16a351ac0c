import jax
import pytest

from rfjax.errors import UserError
from rfjax.training import environment


def test_this_environment_changes_no_number():
    environment.check({})
    environment.check({"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": "x", "JAX_LOG_COMPILES": "1"})
    environment.check({"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_SCAN3": "0", "PATH": "/bin"})


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_default_matmul_precision", "bfloat16"),
        ("jax_default_prng_impl", "rbg"),
        ("jax_threefry_partitionable", False),
        ("jax_random_seed_offset", 1),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_numpy_rank_promotion", "raise"),
        ("jax_disable_jit", True),
        ("jax_disable_most_optimizations", True),
        ("jax_debug_nans", True),
        ("jax_transfer_guard", "disallow"),
    ],
)
def test_a_setting_that_changes_numbers_is_refused_by_name(setting, value):
    if setting not in jax.config.values:
        pytest.skip("this version of JAX lacks it")
    before = jax.config.values[setting]
    jax.config.update(setting, value)
    try:
        with pytest.raises(UserError, match=f"unset the environment's {setting.upper()}"):
            environment.check({})
    finally:
        jax.config.update(setting, before)
    environment.check({})


@pytest.mark.parametrize(
    "environ",
    [
        {"JAX_USE_DIRECT_LINEARIZE": "1"},
        {"XLA_FLAGS": "--a=1 --xla_cpu_enable_fast_math=true"},
        {"NVIDIA_TF32_OVERRIDE": "0"},
    ],
)
def test_a_variable_that_may_change_numbers_is_refused_by_name(environ):
    with pytest.raises(UserError, match=next(iter(environ))):
        environment.check(environ)


def test_settings_are_ones_that_jax_has_but_for_a_few_that_versions_lack():
    assert len([name for name in environment.FIXED if name not in jax.config.values]) <= 3
    assert {"jax_enable_x64", "jax_default_matmul_precision", "jax_default_prng_impl"} <= set(jax.config.values)


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("Unable to initialize backend 'cuda'")])
def test_a_device_that_is_not_there_is_one_sentence(monkeypatch, error):
    def devices():
        raise error

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(UserError, match=r"JAX_PLATFORMS = 'cuda' \(.+\): set JAX_PLATFORMS to cpu"):
        environment.open_devices({"JAX_PLATFORMS": "cuda"})
