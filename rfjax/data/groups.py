"""Rows that are read in groups: an order in which neighbours share their groups, and the groups that were read last."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float64, Int64

_COUNTER = 2  # fourth word of Philox's counter: 0 has the flips, 1 the captions (`pipeline`)

K, V = TypeVar("K"), TypeVar("V")


class Group(NamedTuple):
    """Rows of a file that are read at once.

    Attributes:
        file: its path in the folder. stamp: its size in bytes and time of change in ns.
        number: of the group in the file. first: the number of its first row in the file. rows: how many it has.
        size: in bytes, of what is read. chosen: the rows that are used, counted in the group; None: all.
    """

    file: str
    stamp: tuple[int, int]
    number: int
    first: int
    rows: int
    size: int
    chosen: Int64[np.ndarray, " n"] | None

    def __len__(self) -> int:
        return self.rows if self.chosen is None else len(self.chosen)

    def row(self, place: int) -> int:
        """The row of the group that is used as number `place`."""
        return place if self.chosen is None else int(self.chosen[place])


class Arrangement:
    """Orders of all rows, by (seed, epoch): the groups are shuffled, then the rows within windows of some groups."""

    def __init__(self, rows: Int64[np.ndarray, " g"], sizes: Int64[np.ndarray, " g"], window: float) -> None:
        """rows: of each group; sizes: in bytes; window: bytes of groups whose rows are shuffled together."""
        self._rows, self._sizes, self._window = rows, sizes, max(window, 1.0)
        self._start()

    def _start(self) -> None:
        self._epoch = functools.lru_cache(maxsize=4)(self._make_epoch)
        self._shuffle = functools.lru_cache(maxsize=8)(self._make_window)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_rows", "_sizes", "_window")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._start()

    def index(self, seed: int, epoch: int, place: int) -> int:
        """The index of the example at a place of an epoch."""
        starts, _, _ = self._epoch(seed, epoch)
        window = int(np.searchsorted(starts, place, side="right")) - 1
        return int(self._shuffle(seed, epoch, window)[place - int(starts[window])])

    def _make_epoch(self, seed: int, epoch: int) -> tuple[Any, Any, Any]:
        """The first place of each window, the order of the groups, and the first of them in each window."""
        order = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, _COUNTER])).permutation(
            len(self._rows)
        )
        sizes: Float64[np.ndarray, " g"] = self._sizes[order].astype(np.float64)
        window = ((np.cumsum(sizes) - sizes) // self._window).astype(np.int64)  # in which the group begins
        first = np.flatnonzero(np.diff(window, prepend=-1))
        places = np.cumsum(self._rows[order]) - self._rows[order]
        return places[first], order, np.append(first, len(order))

    def _make_window(self, seed: int, epoch: int, window: int) -> Int64[np.ndarray, " n"]:
        _, order, first = self._epoch(seed, epoch)
        begins = np.cumsum(self._rows) - self._rows
        groups = order[first[window] : first[window + 1]]
        rows = np.concatenate([np.arange(begins[group], begins[group] + self._rows[group]) for group in groups])
        rng = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, window + 1, _COUNTER]))
        return rng.permutation(rows)


class _Slot:
    def __init__(self, size: float) -> None:
        self.size, self.lock, self.value = size, threading.Lock(), None


class Recent(Generic[K, V]):
    """What was read last, up to so many bytes, and at least two items; for any number of threads."""

    def __init__(self, limit: float) -> None:
        self._limit, self._held = limit, 0.0
        self._slots: OrderedDict[K, _Slot] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: K, size: float, load: Callable[[K], V]) -> V:
        """The value of a key, of `size` bytes; `load` makes it once, while other threads that want it wait."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = _Slot(size)
                self._held += size
                while self._held > self._limit and len(self._slots) > 2:
                    self._held -= self._slots.popitem(last=False)[1].size
            else:
                self._slots.move_to_end(key)
        with slot.lock:
            if slot.value is None:
                slot.value = load(key)
            return slot.value

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._limit,)
