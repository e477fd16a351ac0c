"""What a run takes from its environment: the devices, and no number. The config alone decides the numbers."""

import enum
import os
import re
from collections.abc import Mapping
from typing import Any

import jax

from rfjax.errors import UserError

# JAX's settings on which numbers or results depend, with the values that every run has. JAX reads them from the
# environment, JAX_ENABLE_X64 and so on; a config file may set them too.
FIXED: dict[str, Any] = {
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_softmax_custom_jvp": False,
    "jax_allow_f16_reductions": True,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
    "jax_default_device": None,
    "jax_debug_nans": False,
    "jax_debug_infs": False,
    "jax_debug_key_reuse": False,
    "jax_check_tracer_leaks": False,
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_device": None,
    "jax_transfer_guard_device_to_host": None,
    "jax_no_execution": False,
    "jax_no_tracing": False,
}
# JAX's other settings that may be set in the environment: which devices, how they are reached, what is cached and said.
FREE = re.compile(
    r"jax_(platforms?|platform_name|\w*visible_devices|num_cpu_devices|cpu_\w+|mock_gpu_topology|pjrt_\w+|"
    r"\w*compilation_cache\w*|persistent_cache\w*|raise_persistent_cache_errors|share_binary_\w+|"
    r"log_\w+|logging_level|explain_cache_misses|dump_\w+|\w*traceback\w*|tracer_error_\w+|include_\w+|pprint_\w+|"
    r"distributed_debug|enable_(preemption_service|recoverability)|cross_host_\w+|force_dcn_\w+|check_proxy_envs|"
    r"captured_constants_\w+|compiler_detailed_logging_min_ops|source_url_schema|hlo_source_\w+|xla_profile_version|"
    r"sort_devices_by_process_index|array_garbage_collection_guard|threefry_gpu_kernel_lowering)"
)
OFF = ("", "0", "f", "false", "n", "no", "off", "none", "-1")
XLA_NUMBERS = re.compile(r"--xla\w*(fast_math|fast_min_max|excess_precision|optimization_level|disable_hlo_passes)\w*")


def check(environ: Mapping[str, str] = os.environ) -> None:
    """Refuses settings of the environment that would change a run's numbers, or break it.

    Raises:
        UserError: with the name of the first one, and what to do.
    """
    known = getattr(jax.config, "values", {})
    for name, wanted in FIXED.items():
        found = getattr(jax.config, name, known.get(name, wanted))  # a version of JAX may lack it
        if _plain(found) != _plain(wanted):
            raise UserError(
                f"JAX's setting {name} is {_plain(found)!r}, and a run's numbers depend on its config alone: "
                f"unset the environment's {name.upper()}, or remove it from the config file"
            )
    for variable, value in sorted(environ.items()):
        name = variable.lower()
        set_by_name = variable.isupper() and name in known and name not in FIXED
        if set_by_name and not FREE.fullmatch(name) and value.lower() not in OFF:
            raise UserError(
                f"the environment's {variable} = '{value[:80]}' may change a run's numbers, which depend on its config "
                "alone: unset it"
            )
    if flag := XLA_NUMBERS.search(environ.get("XLA_FLAGS", "")):
        raise UserError(
            f"the environment's XLA_FLAGS have {flag[0]}, which changes a run's numbers, and these depend on its "
            "config alone: take it out"
        )
    if "NVIDIA_TF32_OVERRIDE" in environ:
        raise UserError(
            "the environment's NVIDIA_TF32_OVERRIDE changes a run's numbers, which depend on its config alone: unset it"
        )


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def open_devices(environ: Mapping[str, str] = os.environ) -> list[jax.Device]:
    """The devices that JAX finds.

    Raises:
        UserError: if it can't use the ones that the environment asks for.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split()) or "its plugin is not installed, or sees no such device"
        asked = environ.get("JAX_PLATFORMS", "")
        where = f"the devices of JAX_PLATFORMS = '{asked}'" if asked else "the devices of this machine"
        raise UserError(
            f"JAX can't use {where} ({reason}): set JAX_PLATFORMS to cpu, cuda or tpu, whichever is here, or unset it"
        ) from error
