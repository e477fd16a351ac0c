"""Records that turn out broken when they are read: the next good one takes their place, and they are counted.

An index then always gives the same example, in every process, whatever was read before.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from rfjax.data.types import Example, Problem, check_problems
from rfjax.errors import UserError


class Broken:
    """The broken records of a source: those that it left out, and those found so far."""

    def __init__(self, count: int, max_bad: float, where: str, left_out: Sequence[Problem] = ()) -> None:
        """Checks those that were left out.

        Args:
            count: of the records that may be read.
            max_bad: the largest fraction of broken ones.
            where: the data set, for messages.
            left_out: what was found broken without reading it.

        Raises:
            UserError: if these are too many already.
        """
        self._count, self._max_bad, self._where = count, max_bad, where
        self._left_out, self._found = tuple(left_out), dict[int, Problem]()
        check_problems(self._left_out, self._total, max_bad, where)

    @property
    def _total(self) -> int:
        return self._count + len(self._left_out)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What was left out, then what was found, by position."""
        return (*self._left_out, *(problem for _, problem in sorted(self._found.items())))

    def reason(self, index: int) -> str:
        """See `types.Lenient.broken`."""
        return self._found[index].reason if index in self._found else ""

    def found(self) -> dict[int, Problem]:
        """See `types.Lenient`."""
        return dict(self._found)

    def add(self, bad: Mapping[int, Problem]) -> None:
        """See `types.Lenient`."""
        new = bad.keys() - self._found.keys()
        self._found |= bad
        if not new:
            return
        count = len(self._left_out) + len(self._found)
        often = count & (count - 1) == 0  # a line in the log for 1, 2, 4, 8, ... of them
        if often or count > self._max_bad * self._total:
            check_problems(self.problems, self._total, self._max_bad, self._where)

    def first_good(self, index: int, read: Callable[[int], Example], name: Callable[[int], str]) -> Example:
        """The example at an index, or the next good one in its place.

        Args:
            index: of the record.
            read: a position -> its example; ValueError for a broken record.
            name: a position -> where the record lies, for messages.

        Raises:
            UserError: if too many are broken, or all.
        """
        for position in chain(range(index, self._count), range(index)):
            if position in self._found:
                continue
            try:
                return read(position)
            except ValueError as error:
                self.add({position: Problem(name(position), str(error))})
        first = f" ({self._found[0]})" if self._found else ""
        raise UserError(f"{self._where}: none of its {self._count} records is good{first}")
