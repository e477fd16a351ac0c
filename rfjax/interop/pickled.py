"""A pickle's values without the unpickler: a machine with a stack that calls only what its caller has named.

Python's own unpickler takes memory that a few bytes ask for (a memo of 2^32 places, a text of 2^60 bytes), hashes keys
whose tuples share tuples 2^n times, and sets attributes on whatever it finds. Here memory and time are linear in the
pickle's length, keys are plain, and only a `Record` has attributes.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rfjax.errors import UserError

PLAIN = (str, bytes, int, float, bool, type(None))


class Damaged(Exception):
    """The pickle breaks the rules of pickles, or asks for what no state dict needs."""


class Known(NamedTuple):
    """What a name that a pickle may call stands for."""

    function: Callable[..., Any]


class Record(dict):
    """An object's attributes."""


def record() -> Record:
    """An object without attributes yet."""
    return Record()


def load(data: bytes, find: Callable[[str], Any], persistent: Callable[[Any], Any]) -> Any:
    """What a pickle holds.

    Args:
        data: all of it. find: a full name, "module.name" -> its meaning, which can be called only if it is `Known`.
        persistent: a persistent id -> its object.

    Raises:
        Damaged: for what no state dict has. UserError: of `find` and `persistent`.
    """
    machine = _Machine(find, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.steps[opcode.name](argument)
    except (UserError, Damaged):
        raise
    except Exception as error:  # pops of an empty stack, an unknown opcode, a call with other arguments
        raise Damaged(f"{type(error).__name__}, {error}") from error
    raise Damaged("it has no end")


class _Machine:
    """The stack, its marks and the memo; `steps` has what each opcode does to them."""

    def __init__(self, find: Callable[[str], Any], persistent: Callable[[Any], Any]) -> None:
        self.find, self.persistent = find, persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        push = self.stack.append
        pop = self.stack.pop
        self.steps: Mapping[str, Callable[[Any], Any]] = (
            dict.fromkeys(("PROTO", "FRAME"), lambda _: None)
            | dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"), push)
            | dict.fromkeys(("FLOAT", "BINFLOAT", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), push)
            | dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), lambda x: push(bytes(x)))
            | dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING"), lambda x: push(_text(x)))
            | dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._put)
            | dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda place: push(self.memo[place]))
            | {
                "NONE": lambda _: push(None),
                "NEWTRUE": lambda _: push(True),
                "NEWFALSE": lambda _: push(False),
                "MEMOIZE": lambda _: self._put(len(self.memo)),
                "MARK": lambda _: self.marks.append(len(self.stack)),
                "POP": self._discard,
                "POP_MARK": lambda _: self._taken(),
                "EMPTY_TUPLE": lambda _: push(()),
                "TUPLE1": lambda _: push((pop(),)),
                "TUPLE2": lambda _: push(self._last(2)),
                "TUPLE3": lambda _: push(self._last(3)),
                "TUPLE": lambda _: push(tuple(self._taken())),
                "EMPTY_LIST": lambda _: push([]),
                "LIST": lambda _: push(self._taken()),
                "APPEND": lambda _: self._extend([pop()]),
                "APPENDS": lambda _: self._extend(self._taken()),
                "EMPTY_DICT": lambda _: push({}),
                "DICT": lambda _: push(_pairs(self._taken())),
                "SETITEM": lambda _: self._set(list(self._last(2))),
                "SETITEMS": lambda _: self._set(self._taken()),
                "EMPTY_SET": lambda _: push(set()),
                "ADDITEMS": lambda _: self._add(self._taken()),
                "FROZENSET": lambda _: push(frozenset(map(_key, self._taken()))),
                "GLOBAL": lambda name: push(self.find(name.replace(" ", ".", 1))),
                "STACK_GLOBAL": lambda _: push(self.find("{}.{}".format(*map(_name, self._last(2))))),
                "REDUCE": self._call,
                "NEWOBJ": self._call,
                "BUILD": self._build,
                "BINPERSID": lambda _: push(self.persistent(pop())),
            }
        )

    def _put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _discard(self, _: Any) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _last(self, count: int) -> tuple[Any, ...]:
        found = tuple(self.stack[-count:])
        if len(found) < count:
            raise Damaged("its stack is empty")
        del self.stack[-count:]
        return found

    def _taken(self) -> list[Any]:
        """What lies above the last mark, taken off the stack."""
        first = self.marks.pop()
        found = self.stack[first:]
        del self.stack[first:]
        return found

    def _top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise Damaged(f"it fills a {type(self.stack[-1]).__name__} as if it were a {kind.__name__}")
        return self.stack[-1]

    def _extend(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set(self, items: list[Any]) -> None:
        self._top(dict).update(_pairs(items))

    def _add(self, items: list[Any]) -> None:
        self._top(set).update(map(_key, items))

    def _call(self, _: Any) -> None:
        what, arguments = self._last(2)
        if not isinstance(what, Known) or not isinstance(arguments, tuple):
            raise Damaged(f"it calls a {type(what).__name__}")
        self.stack.append(what.function(*arguments))

    def _build(self, _: Any) -> None:
        """Attributes of a record; those that torch hangs on a state dict (version numbers) are left out."""
        state = self.stack.pop()
        made = self._top(dict)
        if isinstance(made, Record):
            parts = state if isinstance(state, tuple) else (state,)
            for part in parts:
                made.update(_pairs([x for pair in (part or {}).items() for x in pair]))


def ordered(items: Any = ()) -> dict[Any, Any]:
    """A state dict, of pairs or empty."""
    return _pairs([x for key, value in items for x in (key, value)])


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """key, value, key, value ... as a dict."""
    if len(items) % 2:
        raise Damaged("a key has no value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _key(value: Any) -> Any:
    """A key, if it is plain or a tuple of plain values: hashing what holds tuples of tuples may take for ever."""
    if type(value) in PLAIN or (type(value) is tuple and all(type(item) in PLAIN for item in value)):
        return value
    raise Damaged(f"a key is a {type(value).__name__}")


def _name(value: Any) -> str:
    if type(value) is not str:
        raise Damaged(f"a name is a {type(value).__name__}")
    return value


def _text(value: str) -> str:
    """A text of Python 2, whose bytes pickletools takes for Latin-1."""
    return value.encode("latin-1").decode(errors="replace")
