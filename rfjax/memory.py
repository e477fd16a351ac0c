"""Memory that a process keeps for what it will ask for again."""

import ctypes
import sys

import jax

MMAP_MAX, TRIM_THRESHOLD, ARENA_MAX = -4, -1, -8  # of glibc's malloc.h


def keep() -> bool:
    """Lets this process keep memory that is freed, on Linux, where the devices are CPUs; returns whether it will.

    XLA allocates a step's temporary arrays anew each time. malloc would map them and give them back, and the system
    would clear them again, 4 KiB by 4 KiB: a fifth of a step of MM-DiT at depth 4 (benchmarks/README.md). In one arena,
    since the others can't hold large arrays. To be called before other threads allocate.
    """
    if not sys.platform.startswith("linux") or jax.default_backend() != "cpu":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library than glibc
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, -1), mallopt(ARENA_MAX, 1)])
