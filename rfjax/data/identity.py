"""What data these are: enough to notice, in milliseconds, that a study's data are no longer those that it began with.

Noticed is, in either split: another number of examples; another example, order, caption or file size, by the list of
names that the source gives; in the validation split, any other byte of the examples that the validation loss is of; in
the training split, another byte of SAMPLED examples, spread evenly. Not noticed are bytes of other training examples
that change while their files keep their sizes, a change while a run trains, and another version of Pillow, which may
decode the same file otherwise. Nobody's clock matters: copies of the same files are the same data.

`shapes` are drawn, not stored: their identity is the generator's version and seed, and SAMPLED pictures of each split.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rfjax.data.types import Examples, Named, Source, Stored, take

SAMPLED = 64  # training examples whose bytes are compared
DIGITS = 32  # of a hash, in hexadecimal
_BLOCK = 64  # examples that are read at once
_FIRST = ("image", "latent", "label", "context", "pooled")  # fields in the order that a hash has them; others follow


@dataclass(frozen=True)
class Split:
    """What is known of one split.

    Attributes:
        count: of examples. names: hash of the list of examples; "" where the source has none.
        examples: how many of them `content`, a hash of what they hold, is of.
    """

    count: int
    names: str
    examples: int
    content: str


@dataclass(frozen=True)
class Identity:
    """What data these are; equal for equal data, on every machine."""

    train: Split
    validation: Split

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `from_dict` is its inverse."""
        return asdict(self)

    def digest(self) -> bytes:
        """32 bytes that stand for all of it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).digest()


def from_dict(plain: Mapping[str, Any]) -> Identity:
    """Raises TypeError, KeyError or ValueError where the values are of something else."""
    splits = {name: Split(**plain[name]) for name in ("train", "validation")}
    if any(type(number) is not int for split in splits.values() for number in (split.count, split.examples)):
        raise ValueError("a count that is no number")
    return Identity(**splits)


def identify(train: Source, validation: Source, examples: int) -> Identity:
    """Reads as little as tells the data apart: names, `examples` of the validation split, SAMPLED for training.

    Args:
        train, validation: the splits. examples: the validation loss is of the first so many.
    """
    count = len(train)
    spread = sorted({place * count // SAMPLED for place in range(SAMPLED)}) if count else []
    first = range(min(examples, len(validation), SAMPLED if getattr(validation, "drawn", False) else examples))
    return Identity(
        train=Split(count, _names(train), len(spread), _content(train, spread)),
        validation=Split(len(validation), _names(validation), len(first), _content(validation, first)),
    )


def differences(before: Identity, now: Identity) -> list[str]:
    """What changed, in words: "the training split has 15 examples, and had 16"; nothing where the data are the same."""
    said = []
    for name, old, new in (
        ("training", before.train, now.train),
        ("validation", before.validation, now.validation),
    ):
        if old.count != new.count:
            said.append(f"the {name} split has {new.count:,} examples, and had {old.count:,}")
        elif old.names != new.names:
            said.append(f"the {name} split has as many examples, but other names, captions or sizes of files")
        if old.examples == new.examples and old.content != new.content and (name == "validation" or not said):
            which = f"first {new.examples:,}" if name == "validation" else f"{new.examples} that were compared"
            said.append(f"the content of the {name} examples is another (of the {which})")
    return said


def _names(source: Source) -> str:
    if not isinstance(source, Named):
        return ""
    return _digest(name.encode("utf-8", "surrogatepass") for name in source.names())


def _content(source: Source, indices: Sequence[int]) -> str:
    return _digest(_pieces(source, indices))


def _pieces(source: Source, indices: Sequence[int]) -> Iterator[bytes]:
    if isinstance(source, Stored):
        yield from (source.stored(index) for index in indices)
        return
    for start in range(0, len(indices), _BLOCK):
        yield from _fields(take(source, indices[start : start + _BLOCK]))


def _fields(examples: Examples) -> Iterator[bytes]:
    names = [name for name in _FIRST if name in examples.arrays] + sorted(examples.arrays.keys() - set(_FIRST))
    for row, caption in enumerate(examples.captions):
        yield caption.encode("utf-8", "surrogatepass")
        for name in names:
            yield np.ascontiguousarray(examples.arrays[name][row]).tobytes()


def _digest(pieces: Iterable[bytes]) -> str:
    """One hash of many pieces, each with its length, so that none can be taken for a part of its neighbour."""
    whole = hashlib.sha256()
    for piece in pieces:
        whole.update(len(piece).to_bytes(8, "little"))
        whole.update(piece)
    return whole.hexdigest()[:DIGITS]
