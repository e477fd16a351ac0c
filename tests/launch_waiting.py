"""Waiting for another process."""

import time
from pathlib import Path


def wait_for(file: Path, seconds: float = 20) -> Path:
    """Returns once the file is there."""
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.02)
    return file
