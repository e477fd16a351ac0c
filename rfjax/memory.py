"""The size of this machine's memory, and how this process uses it."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

MMAP_MAX, TRIM_THRESHOLD, ARENA_MAX = -4, -1, -8  # of glibc's malloc.h


def keep() -> bool:
    """Makes glibc's malloc keep freed memory for this process instead of returning it to the system.

    On a CPU, XLA allocates a step's temporary arrays in each step. By default malloc maps and unmaps them, and the
    system clears each page of 4 KiB again, which takes a fifth of a step of MM-DiT at depth 4 (benchmarks/README.md).
    malloc uses one arena, because other arenas can't hold large arrays. Call this before JAX starts its threads, since
    existing threads keep their arenas.

    Returns:
        Whether it worked; False on other systems and C libraries.
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
    """Bytes of memory of this machine or container; 2^62 if the system does not provide the number."""
    sizes = [2**62]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max", which means no limit
            sizes.append(int(Path(file).read_text(encoding="ascii")))
    return min(size for size in sizes if size > 0)
