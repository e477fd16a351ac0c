"""What a run writes down: metrics as JSON lines and for TensorBoard, whole files at once, seconds by activity."""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorboardX


def plain(value: Any) -> Any:
    """Makes a value strict JSON: what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Writes a file atomically: a reader sees the old one or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(plain(value), indent=1) + "\n")
    os.replace(partial, path)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a JSON-lines file, and how many lines could not be read: a killed writer may cut one short."""
    records, skipped = [], 0
    for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            records.append(record) if isinstance(record, dict) else None
        except ValueError:
            skipped += bool(line.strip())
    return records, skipped


class Metrics:
    """Appends records to metrics.jsonl, and their numbers to TensorBoard; of several processes one alone writes."""

    def __init__(self, folder: Path, *, active: bool, start: int = 0) -> None:
        """folder: of the run. active: whether this process writes. start: step that the run goes on from."""
        self._file = self._board = None
        if not active:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        cut = path.exists() and path.stat().st_size and path.read_bytes()[-1:] != b"\n"
        self._file = path.open("a", buffering=1)
        if cut:  # a killed process may leave half a line: close it, so that it spoils no other
            self._file.write("\n")
        self._board = tensorboardX.SummaryWriter(str(folder / "tensorboard"), purge_step=start or None)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line: {"kind": ..., "step": ..., ...}."""
        if self._file is None:
            return
        self._file.write(json.dumps(plain({"kind": kind, "step": step, **values})) + "\n")
        group = f"{kind}/{values['weights']}" if "weights" in values else kind
        for name, value in values.items():
            if kind in ("train", "validation") and isinstance(value, int | float):
                self._board.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._board.close()


class Clock:
    """Seconds by activity; an activity inside another pauses it, so the sum is the whole."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = time.perf_counter()

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._stack:
            name = self._stack[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def total(self) -> dict[str, float]:
        """What has been charged so far."""
        self._charge()
        return dict(self.seconds)
