"""How much memory there is, and what a process keeps for what it will ask for again."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

MMAP_MAX, TRIM_THRESHOLD, ARENA_MAX = -4, -1, -8  # of glibc's malloc.h


def keep() -> bool:
    """Lets this process keep memory that it frees, where the C library is glibc; returns whether it will.

    On a CPU, XLA allocates a step's temporary arrays anew each time. malloc would map them and give them back, and the
    system would clear them again, 4 KiB by 4 KiB: a fifth of a step of MM-DiT at depth 4 (benchmarks/README.md). In one
    arena, since the others can't hold large arrays. To be called before JAX starts its threads: those that exist have
    an arena each and stay with it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, -1), mallopt(ARENA_MAX, 1)])


LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def installed() -> int:
    """Bytes of memory that this machine, or the container that it runs, has; where the system says nothing, 2^62."""
    found = [2**62]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max", which is no limit
            found.append(int(Path(file).read_text(encoding="ascii")))
    return min(size for size in found if size > 0)
