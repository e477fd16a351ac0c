"""Memory that is kept."""

import subprocess
import sys

import pytest

from rfjax import memory

FAULTS = """
import resource, sys
import numpy as np
from rfjax import memory
kept = sys.argv[1] == "keep" and memory.keep()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**23)
before = faults()
for _ in range(10):
    np.ones(2**23)
print(kept, (faults() - before) / 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_kept_memory_is_not_asked_for_again() -> None:
    def run(how: str) -> tuple[str, float]:
        command = [sys.executable, "-c", FAULTS, how]
        kept, faults = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
        return kept, float(faults)

    (kept, few), (_, many) = run("keep"), run("not")
    if kept == "False":
        pytest.skip("this C library has no mallopt")
    assert few < 10
    assert many > 10 * few


@pytest.mark.parametrize(("limit", "expected"), [("1000000", 1_000_000), ("max", None), ("", None), ("0", None)])
def test_the_memory_is_the_machine_s_or_less_where_a_container_has_less(tmp_path, monkeypatch, limit, expected):
    monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "none"),))
    machine = memory.installed()
    assert 2**27 < machine < 2**50
    (tmp_path / "memory.max").write_text(limit)
    monkeypatch.setattr(memory, "LIMITS", (str(tmp_path / "memory.max"),))
    assert memory.installed() == (expected or machine)
