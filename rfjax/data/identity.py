"""The identity of the data: it takes milliseconds to see that a study's data have changed since its start.

The identity shows, in either split, another number of examples, and, if the source lists its names, another example,
order, caption or file size. In the validation split it shows any other byte of the examples that the validation loss
uses; in the training split, another byte of SAMPLED examples, spread evenly. It does not show other bytes of the other
training examples in files of the same size, a change while a run trains, or another version of Pillow, which may decode
a file differently. Times don't count: copies of the same files are the same data.

The identity of `shapes`, which are rendered and not stored, is the generator's version and seed, and SAMPLED pictures
of each split.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rfjax.data.types import Examples, Named, Source, Stored, take_all, written_out

SAMPLED = 64  # training examples whose bytes are compared
DIGITS = 32  # of a hash, in hexadecimal
_BLOCK = 64  # examples that are read at once
_FIRST = ("image", "latent", "label", "context", "pooled")  # fields in the order that a hash has them; others follow


@dataclass(frozen=True)
class Split:
    """The identity of one split.

    Attributes:
        count: of examples.
        names: hash of the source's list of names; "" without one.
        examples: how many of them `content` covers.
        content: hash of these examples.
    """

    count: int
    names: str
    examples: int
    content: str


@dataclass(frozen=True)
class Identity:
    """The identity of the data: equal for equal data, on every machine."""

    train: Split
    validation: Split

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `from_dict` is its inverse."""
        return asdict(self)

    def digest(self) -> bytes:
        """A hash of all of it, 32 bytes."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).digest()


def from_dict(plain: Mapping[str, Any]) -> Identity:
    """The identity of plain values. Values of something else raise TypeError, KeyError or ValueError."""
    splits = {name: Split(**plain[name]) for name in ("train", "validation")}
    if any(type(number) is not int for split in splits.values() for number in (split.count, split.examples)):
        raise ValueError("a count that is no integer")
    return Identity(**splits)


def identify(train: Source, validation: Source, examples: int) -> Identity:
    """Reads the names, the first `examples` of the validation split, which its loss uses, and SAMPLED for training."""
    count = len(train)
    spread = sorted({place * count // SAMPLED for place in range(SAMPLED)}) if count else []
    first = range(min(examples, len(validation), SAMPLED if getattr(validation, "drawn", False) else examples))
    return Identity(
        train=Split(count, _names(train), len(spread), _digest(_pieces(train, spread))),
        validation=Split(len(validation), _names(validation), len(first), _digest(_pieces(validation, first))),
    )


def differences(before: Identity, now: Identity) -> list[str]:
    """The changes in words, such as "the training split has 15 examples, and had 16"; empty for the same data."""
    changes = []
    for name, old, new in (("training", before.train, now.train), ("validation", before.validation, now.validation)):
        if old.count != new.count:
            changes.append(f"the {name} split has {new.count:,} examples, and had {old.count:,}")
        elif old.names != new.names:
            changes.append(f"the {name} split has as many examples, but other names, captions or sizes of files")
        if old.examples == new.examples and old.content != new.content and (name == "validation" or not changes):
            which = f"first {new.examples:,}" if name == "validation" else f"{new.examples} that were compared"
            changes.append(f"the content of the {name} examples is another (of the {which})")
    return changes


def _names(source: Source) -> str:
    if not isinstance(source, Named):
        return ""
    return _digest(name.encode("utf-8", "surrogatepass") for name in source.names())


def _pieces(source: Source, indices: Sequence[int]) -> Iterator[bytes]:
    if isinstance(source, Stored):
        yield from (source.stored(index) for index in indices)
        return
    for start in range(0, len(indices), _BLOCK):
        yield from _fields(take_all(source, indices[start : start + _BLOCK]))


def _fields(examples: Examples) -> Iterator[bytes]:
    names = [name for name in _FIRST if name in examples.arrays] + sorted(examples.arrays.keys() - set(_FIRST))
    for row, caption in enumerate(examples.captions):
        yield written_out(caption).encode("utf-8", "surrogatepass")
        for name in names:
            yield np.ascontiguousarray(examples.arrays[name][row]).tobytes()


def _digest(pieces: Iterable[bytes]) -> str:
    """One hash of many pieces. Each piece follows its length, so that the boundaries count."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(len(piece).to_bytes(8, "little"))
        whole.update(piece)
    return whole.hexdigest()[:DIGITS]
