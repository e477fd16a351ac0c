"""What a run writes down as it goes: metrics as JSON lines and for TensorBoard, seconds by activity."""

import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from rfjax import files, ownership
from rfjax.jsonl import FILE, plain
from rfjax.training.processes import check_ours


class Metrics:
    """Appends records to metrics.jsonl, and their numbers to TensorBoard; of several processes one alone writes."""

    def __init__(self, folder: Path, *, active: bool, start: int = 0) -> None:
        """Opens both, and cuts off what a killed process left unfinished at their ends.

        Args:
            folder: of the run. active: whether this process writes. start: step that the run goes on from.

        Raises:
            UserError: if there is no room, here and in `write`.
        """
        self._folder, self._lines, self._board = folder, None, None
        if active:
            self._lines = files.Growing(folder / FILE)
            self._board = Board(folder / "tensorboard", start)

    def write(self, kind: str, step: int, **values: Any) -> None:
        """One line: {"kind": ..., "step": ..., ...}; all processes of a job come here.

        Raises:
            FolderTaken: on all of them, if another job has the run by now.
        """
        check_ours(self._folder)
        if self._lines is None:
            return
        self._lines.append(json.dumps(plain({"kind": kind, "step": step, **values})) + "\n")
        group = f"{kind}/{values['weights']}" if "weights" in values else kind
        if kind in ("train", "validation", "attention"):
            numbers = {f"{group}/{name}": float(v) for name, v in values.items() if isinstance(v, int | float)}
            self._board.add(step, numbers)

    def sync(self) -> None:
        """Waits until the disk has all lines: none before a checkpoint is written again."""
        if self._lines is not None:
            self._lines.sync()

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._board.close()


class Board:
    """Numbers for TensorBoard, each step's written at once.

    tensorboardX's own writer hands them to a thread, which a kill robs of the last two minutes, and which dies of a
    full disk without a word, so that the run waits for it for ever.
    """

    def __init__(self, folder: Path, start: int) -> None:
        """Opens a new file; where there are others, TensorBoard will hide what they say about steps after `start`."""
        before = sorted(folder.glob("events.out.tfevents.*"))
        for path in before:
            cut_records(path)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._file = files.Growing(folder / name, lines=False)
        if self._file.empty():
            self._write(event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
        if before:
            begin = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(event_pb2.Event(wall_time=time.time(), step=start + 1, session_log=begin))

    def add(self, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a step: name -> value."""
        values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
        self._write(event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=values)))

    def _write(self, event: Any) -> None:
        """One record: its length, a checksum of that, the event, a checksum of that (the format of TFRecord)."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.append(length + _checksum(length) + data + _checksum(data))

    def close(self) -> None:
        self._file.close()


def _checksum(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def cut_records(path: Path) -> None:
    """Cuts off what follows the last whole record of a TensorBoard file: a killed writer may leave a part of one."""
    ownership.check_ours(path)
    whole, size = 0, path.stat().st_size
    with files.full_disk(path), path.open("r+b") as file:
        while whole < size:
            head = file.read(12)
            if len(head) < 12 or _checksum(head[:8]) != head[8:]:
                break
            (length,) = struct.unpack("<Q", head[:8])
            if whole + 16 + length > size:
                break
            whole += 16 + length
            file.seek(whole)
        if whole < size:
            file.truncate(whole)


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

    def spent(self, *names: str) -> float:
        """What has been charged to these."""
        self._charge()
        return sum(self.seconds.get(name, 0.0) for name in names)
