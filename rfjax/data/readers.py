"""Processes that read and decode examples, since threads of one process mostly wait for Python's lock.

The processes start with the first batch and end with the source, or with this process, however that ends: each one
waits for requests on a socket, and leaves when it is closed. A signal to the whole group, such as Ctrl-C or a
scheduler's SIGTERM, does not stop them, because the training process still needs them for its last steps. They import
no JAX, write arrays into memory that both sides share, and make the same bytes as this process would, since a source is
deterministic.
"""

import contextlib
import json
import logging
import math
import mmap
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from rfjax import memory
from rfjax.data.types import Examples, Field, Lenient, Source, take_all
from rfjax.errors import UserError

MOST_SHARED = 2**28  # bytes of memory that each process shares with this one; larger batches are read in pieces
_ALIGNED = 64  # bytes
_SECONDS = 5.0  # that a process gets to leave
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from rfjax.data import readers; readers.serve()"

_started: dict[int, "Readers"] = {}  # by the id of the source


def of(source: Source, count: int, rows: int) -> "Readers":
    """The processes of a source, which may not have started yet.

    Args:
        count: of processes, at least 1.
        rows: examples that are read at once, for the size of the shared memory.
    """
    found = _started.get(id(source))
    if found is None or found.count != count:
        found = _started[id(source)] = Readers(source, count, rows)
        weakref.finalize(source, _started.pop, id(source), None)
    return found


class Readers:
    """Processes that each hold a copy of a source.

    Attributes:
        count: of processes.
    """

    def __init__(self, source: Source, count: int, rows: int) -> None:
        """See `of`."""
        self.count, self._rows, self._lock = count, rows, threading.Lock()
        self._source = weakref.ref(source)
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        self._processes: list[_Process] = []
        weakref.finalize(self, _stop, self._processes)

    def take(self, indices: Sequence[int], names: Sequence[str] | None = None) -> Examples:
        """As `types.take_all`, in one of the processes; for any number of threads.

        Raises:
            UserError: as of the source, or if the process ended or could not start.
        """
        source = self._source()
        assert source is not None, "whoever takes examples holds the source"
        self._start(source)
        wanted = {name: source.fields[name] for name in (source.fields if names is None else names)}
        process = self._idle.get()
        if process is None:
            self._idle.put(None)  # for the other threads
            raise UserError("a process that reads the data has ended before: see the error before this one")
        after: _Process | None = process
        try:
            return process.take([int(index) for index in indices], wanted, source)
        except _Ended:
            after = None
            raise
        finally:
            self._idle.put(after)

    def _start(self, source: Source) -> None:
        with self._lock:
            if self._processes:
                return
            try:
                pickled = pickle.dumps(source)
            except Exception as error:  # of a source from elsewhere
                raise UserError(_unfit(error)) from error
            size = min(_bytes(source.fields, self._rows), max(MOST_SHARED, _bytes(source.fields, 1)))
            for _ in range(self.count):
                self._processes.append(_Process(size))
            for process in self._processes:
                process.send(pickled)
                self._idle.put(process)


class _Ended(UserError):
    """A process that is gone."""


class _Reply(NamedTuple):
    """What a process says of some examples, whose arrays lie in the shared memory.

    Attributes:
        captions: see `Examples`. bad: the records that it found broken. error: instead of all else.
    """

    captions: list[Any]
    bad: Mapping[int, Any]
    error: Exception | None = None


class _Process:
    """One process, this side."""

    def __init__(self, size: int) -> None:
        """size: of the shared memory, in bytes."""
        with contextlib.ExitStack() as stack:
            shared = stack.enter_context(_memory(size))
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            self._connection = Connection(ours.detach())
            self._memory, self._size = mmap.mmap(shared.fileno(), size), size
            numbers = [theirs.fileno(), shared.fileno()]
            self._popen = subprocess.Popen(
                [sys.executable, "-c", _CHILD, json.dumps(sys.path), *map(str, numbers)],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"JAX_PLATFORMS": "cpu"},
                process_group=0,  # out of reach of Ctrl-C; a session of its own would get a larger share of the cores
            )

    def send(self, what: bytes) -> None:
        try:
            self._connection.send_bytes(what)
        except OSError as error:
            raise self._ended() from error

    def take(self, indices: list[int], fields: Mapping[str, Field], source: Source) -> Examples:
        spare = self._size - _bytes(fields, 0)
        most = spare // max(1, _bytes(fields, 1) - _bytes(fields, 0)) if fields else max(1, len(indices))
        arrays = {name: np.empty((len(indices), *field.shape), field.dtype) for name, field in fields.items()}
        captions: list[Any] = []
        for start in range(0, len(indices), most):
            piece = slice(start, min(start + most, len(indices)))
            self.send(pickle.dumps((indices[piece], list(fields))))
            try:
                reply = pickle.loads(self._connection.recv_bytes())
            except (EOFError, OSError) as error:
                raise self._ended() from error
            if reply.error:
                raise reply.error
            if reply.bad and isinstance(source, Lenient):
                source.add(reply.bad)
            for name, array in _views(self._memory, fields, piece.stop - start).items():
                arrays[name][piece] = array
            captions += reply.captions
        return Examples(arrays, captions)

    def _ended(self) -> _Ended:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(_SECONDS)
        code = self._popen.returncode
        how = f"killed by signal {-code}" if code and code < 0 else f"exit code {code}"
        return _Ended(
            f"a process that reads the data has ended ({how}): if the machine has too little memory, set "
            "config.data.readers lower; 0 reads in the training process"
        )

    def close(self) -> None:
        self._connection.close()

    def wait(self) -> None:
        try:
            self._popen.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()


def _stop(processes: list[_Process]) -> None:
    for process in processes:
        process.close()
    for process in processes:
        process.wait()


def _memory(size: int) -> Any:
    """A file without a name, in memory where the system can (whatever the size of /dev/shm, which containers limit)."""
    if hasattr(os, "memfd_create"):
        file = os.fdopen(os.memfd_create("rfjax-readers"), "r+b")
    else:
        file = tempfile.TemporaryFile()  # noqa: SIM115  (the caller closes it)
    file.truncate(size)
    return file


def _places(fields: Mapping[str, Field], rows: int) -> dict[str, int]:
    """Where each array of so many examples begins in the shared memory."""
    places, end = {}, 0
    for name, field in fields.items():
        places[name] = end
        size = rows * math.prod(field.shape) * np.dtype(field.dtype).itemsize
        end += -(-size // _ALIGNED) * _ALIGNED
    return places


def _bytes(fields: Mapping[str, Field], rows: int) -> int:
    """Enough shared memory for so many examples."""
    return rows * sum(math.prod(field.shape) * np.dtype(field.dtype).itemsize for field in fields.values()) + (
        _ALIGNED * len(fields)
    )


def _views(region: mmap.mmap, fields: Mapping[str, Field], rows: int) -> dict[str, np.ndarray]:
    places = _places(fields, rows)
    return {name: np.ndarray((rows, *field.shape), field.dtype, region, places[name]) for name, field in fields.items()}


def _opened(pickled: bytes) -> Any:
    try:
        return pickle.loads(pickled)
    except UserError:
        raise
    except Exception as error:  # such as a class of the program's main file
        raise UserError(_unfit(error)) from error


def _unfit(error: Exception) -> str:
    what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return f"the data source can't be read by other processes ({what}): set config.data.readers = 0"


def serve() -> None:
    """The life of such a process: reads the source, then one request after another, until the socket is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    memory.keep()
    logging.disable(logging.WARNING)  # this process counts the broken records, and says so
    connection, shared = Connection(int(sys.argv[2])), int(sys.argv[3])
    region = mmap.mmap(shared, os.fstat(shared).st_size)
    with contextlib.suppress(EOFError, OSError):  # the other side is gone
        source: Any = None
        pickled, known = connection.recv_bytes(), 0
        while True:
            indices, names = pickle.loads(connection.recv_bytes())
            try:
                source = _opened(pickled) if source is None else source
                examples = take_all(source, indices, names)
                fields = {name: source.fields[name] for name in names}
                for name, view in _views(region, fields, len(indices)).items():
                    view[...] = examples.arrays[name]
                bad = source.found() if isinstance(source, Lenient) else {}
                reply = _Reply(examples.captions, bad if len(bad) > known else {})
                known = len(bad)
            except UserError as error:
                reply = _Reply([], {}, UserError(str(error)))
            except Exception:
                reply = _Reply([], {}, RuntimeError(f"in a process that reads the data:\n{traceback.format_exc()}"))
            connection.send_bytes(pickle.dumps(reply))
