"""A run's numbers in the files that TensorBoard reads."""

import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import masked_crc32c

from rfjax import files, ownership


class Board:
    """Writes numbers for TensorBoard, each step's at once.

    tensorboardX's own writer hands them to a thread. A kill loses the last two minutes of that thread's numbers, and a
    full disk ends the thread without a message, so that the run waits for it for ever.
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
