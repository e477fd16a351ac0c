"""Eight CPU devices, a compilation cache that lasts, and shapes checked at run time; all before JAX is imported."""

import os
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8 " + os.environ.get("XLA_FLAGS", "")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

from jaxtyping import install_import_hook

CHECKED = (
    "flow",
    "models",
    "evaluation",
    "training",
    "data.shapes",
    "data.hashing",
    "data.pipeline",
    "encoders",
    "objectives",
)
install_import_hook([f"rfjax.{name}" for name in CHECKED], "beartype.beartype")

import ml_collections
import pytest
from hypothesis import settings
from launch_waiting import hear_signals
from memory_store import memory  # noqa: F401  (a fixture)
from tiny import tiny

hear_signals()

settings.register_profile("rfjax", deadline=None, max_examples=40)
settings.load_profile("rfjax")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that nobody waits for it alone at the end."""
    items.sort(key=lambda item: "test_processes" not in item.nodeid)


@pytest.fixture
def tiny_config(tmp_path: Path) -> ml_collections.ConfigDict:
    c = tiny()
    c.workdir = str(tmp_path / "study")
    return c
