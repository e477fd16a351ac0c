"""Contenders that work in turn, each in a process of its own with the same cores, and the table that comes of it.

While one works the others wait, so a busy machine is busy for all of them; of each round's times the medians count.
"""

import dataclasses
import importlib.util
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

Work = Callable[[], float]  # does it once, and returns its seconds


@dataclass(frozen=True)
class Contender:
    """Who takes part.

    Attributes:
        name: in the table. build: makes the work, in the contender's process; found by name there, so a function of a
            module. arguments: of `build`. environment: of the process, before anything is imported.
        warm: does its work once more before each round's, unmeasured, to find the caches as if it ran alone.
    """

    name: str
    build: Callable[..., Work]
    arguments: tuple[Any, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    warm: bool = True


@dataclass
class Times:
    """What came of a contender: seconds of each round, or why there are none."""

    name: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    failure: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("inf")

    @property
    def last(self) -> str:
        """The last round's, or why there is none."""
        return self.failure or f"{self.seconds[-1]:.3f} s"


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))


PEERS = all(importlib.util.find_spec(name) for name in ("torch", "diffusers"))
PINNED = {"OMP_NUM_THREADS": str(cores()), "MKL_NUM_THREADS": str(cores())}


def _serve(connection: Connection, contender: Contender) -> None:
    try:
        work = contender.build(*contender.arguments)
        work()  # compiles
        while True:
            connection.send(None)
            if connection.recv() is None:
                return
            if contender.warm:
                work()
            connection.send(work())
    except Exception as error:  # another contender's time still counts
        connection.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def race(contenders: Sequence[Contender], rounds: int, *, together: bool = True) -> list[Times]:
    """Lets each get ready, and then each do its work once a round, in turn.

    together: all processes live at the same time; else one after the other, each with all its rounds.
    """
    if not together:
        return [times for contender in contenders for times in race([contender], rounds)]
    context = multiprocessing.get_context("spawn")
    found, ends, processes = [Times(c.name) for c in contenders], [], []
    for contender, times in zip(contenders, found, strict=True):
        say(f"{contender.name}: gets ready")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, contender), daemon=True)
        with _environment(PINNED | contender.environment):  # as it is from the start: malloc reads it then
            process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
        times.failure = _answer(ours) or ""
    for number in range(rounds):
        for end, times in zip(ends, found, strict=True):
            if not times.failure:
                end.send(True)
                answer = _answer(end)
                if isinstance(answer, str):
                    times.failure = answer
                else:
                    times.seconds.append(answer)
                    times.failure = _answer(end) or ""
        say(f"round {number + 1} of {rounds}: " + ", ".join(f"{times.name} {times.last}" for times in found))
    for end, times, process in zip(ends, found, processes, strict=True):
        if not times.failure:
            end.send(None)
        process.join()
    return found


def rounds_of(words: Sequence[str], default: int) -> int:
    """What `rounds=N` among a command's words says."""
    return next((int(word.removeprefix("rounds=")) for word in words if word.startswith("rounds=")), default)


def say(line: str) -> None:
    """Tells the person who waits, beside the results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _answer(end: Connection) -> Any:
    try:
        return end.recv()
    except EOFError:
        return "the process ended (out of memory?)"


def spread(values: Sequence[float], unit: float = 1.0, digits: int = 2) -> str:
    """The median of some values, and the smallest and the largest, in a unit."""
    if not values:
        return "-"
    middle, low, high = (f(values) / unit for f in (statistics.median, min, max))
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratios(better: Times, worse: Times) -> list[float]:
    """How many times as long the second took, round by round."""
    return [b / a for a, b in zip(better.seconds, worse.seconds, strict=False)]
