"""Reads a pickle's values without Python's unpickler: a stack machine that calls only functions that its caller named.

Python's own unpickler allocates memory that a few bytes request (a memo of 2^32 entries, a text of 2^60 bytes), hashes
nested tuples in exponential time, and sets attributes on any object. Here memory and time are linear in the pickle's
length, keys are plain, and only a `Record` or a `Whole` has attributes.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rfjax.errors import UserError

PLAIN = (str, bytes, int, float, bool, type(None))


class Damaged(Exception):
    """The pickle is invalid, or uses features that no state dict needs."""


class Allowed(NamedTuple):
    """A function that a pickle may call."""

    function: Callable[..., Any]


class Record(dict):
    """An object's attributes."""


class Whole(dict):
    """An object that keeps the state that the pickle gives it as it is.

    Attributes:
        state: None until then.
    """

    state: Any = None


def record() -> Record:
    """An object without attributes yet."""
    return Record()


def load(data: bytes, find: Callable[[str], Any], persistent: Callable[[Any], Any]) -> Any:
    """Reads the value of a pickle.

    Args:
        data: the whole pickle.
        find: full name "module.name" -> its meaning, which the pickle can call only if it is `Allowed`.
        persistent: persistent id -> its object.

    Raises:
        Damaged: if the pickle is invalid, or uses features that no state dict needs.
        UserError: if `find` or `persistent` raises one.
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
    """The stack, its marks and the memo; `steps` maps an opcode to what it does to them."""

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
                "POP_MARK": lambda _: self._pop_to_mark(),
                "EMPTY_TUPLE": lambda _: push(()),
                "TUPLE1": lambda _: push((pop(),)),
                "TUPLE2": lambda _: push(self._last(2)),
                "TUPLE3": lambda _: push(self._last(3)),
                "TUPLE": lambda _: push(tuple(self._pop_to_mark())),
                "EMPTY_LIST": lambda _: push([]),
                "LIST": lambda _: push(self._pop_to_mark()),
                "APPEND": lambda _: self._extend([pop()]),
                "APPENDS": lambda _: self._extend(self._pop_to_mark()),
                "EMPTY_DICT": lambda _: push({}),
                "DICT": lambda _: push(_pairs(self._pop_to_mark())),
                "SETITEM": lambda _: self._set(list(self._last(2))),
                "SETITEMS": lambda _: self._set(self._pop_to_mark()),
                "EMPTY_SET": lambda _: push(set()),
                "ADDITEMS": lambda _: self._add(self._pop_to_mark()),
                "FROZENSET": lambda _: push(frozenset(map(_key, self._pop_to_mark()))),
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
        items = tuple(self.stack[-count:])
        if len(items) < count:
            raise Damaged("its stack is empty")
        del self.stack[-count:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        """Removes and returns all items above the last mark."""
        first = self.marks.pop()
        items = self.stack[first:]
        del self.stack[first:]
        return items

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
        if not isinstance(what, Allowed) or not isinstance(arguments, tuple):
            raise Damaged(f"it calls a {type(what).__name__}")
        self.stack.append(what.function(*arguments))

    def _build(self, _: Any) -> None:
        """Sets attributes of a record; those that torch sets on a state dict (version numbers) are left out."""
        state = self.stack.pop()
        made = self._top(dict)
        if isinstance(made, Whole):
            made.state = state
        elif isinstance(made, Record):
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
    """Refuses a key that is not plain or a tuple of plain values: hashing nested tuples may take exponential time."""
    if type(value) in PLAIN or (type(value) is tuple and all(type(item) in PLAIN for item in value)):
        return value
    raise Damaged(f"a key is a {type(value).__name__}")


def _name(value: Any) -> str:
    if type(value) is not str:
        raise Damaged(f"a name is a {type(value).__name__}")
    return value


def _text(value: str) -> str:
    """A text of Python 2, whose bytes pickletools decodes as Latin-1."""
    return value.encode("latin-1").decode(errors="replace")
