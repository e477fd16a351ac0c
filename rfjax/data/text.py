"""Text conditioning in SD3's form: tokens `context` (B, L, E) and a vector `pooled` (B, P) from a frozen encoder."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from rfjax.data.words import words as split
from rfjax.errors import UserError

_DIGITS = 18  # of a class's number
Part = tuple[slice, slice, slice]  # one encoder's text tokens, their channels, and its channels of the pooled vector


class Encoded(NamedTuple):
    """B captions as arrays; what lies beyond a caption's end is zero, and so is a caption that guidance drops."""

    context: Float32[np.ndarray, "B L E"]
    pooled: Float32[np.ndarray, "B P"]


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen encoder. Its shapes are known without running it; `parts` says what guidance drops together, `kinds`
    how many of the text tokens are of each kind."""

    length: int
    width: int
    pooled_width: int

    @property
    def parts(self) -> tuple[Part, ...]: ...

    @property
    def kinds(self) -> tuple[int, ...]: ...

    def __call__(self, captions: Sequence[str]) -> Encoded: ...


@dataclass(frozen=True)
class WordVectors:
    """An encoder that needs no download: a fixed vector of signs for each word, and its place in the sentence.

    A word's vector has the bits of its SHAKE-128 hash as signs, so that any two words are nearly orthogonal and every
    machine agrees. A token is that vector plus a sine-cosine code of its position; `pooled` is the sum of the words'
    vectors, each rotated by its position, over the root of their number, so that it knows their order as well. Words
    that don't fit are cut off.

    Several vocabularies stand for several encoders: each hashes words in its own way, has an equal share of the tokens,
    one after the other, and of the channels of the pooled vector, and is dropped on its own.
    """

    length: int
    width: int
    pooled_width: int
    vocabularies: int = 1

    @property
    def parts(self) -> tuple[Part, ...]:
        tokens, channels = self.length // self.vocabularies, -(-self.pooled_width // self.vocabularies)
        places = [(i * tokens, i * channels) for i in range(self.vocabularies)]
        return tuple((slice(t, t + tokens), slice(None), slice(c, c + channels)) for t, c in places)

    @property
    def kinds(self) -> tuple[int, ...]:
        return (self.length // self.vocabularies,) * self.vocabularies

    def __call__(self, captions: Sequence[str]) -> Encoded:
        rows = [_encode(self, caption) for caption in captions]
        return Encoded(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))


@functools.lru_cache(maxsize=100_000)
def _encode(encoder: WordVectors, caption: str) -> tuple[np.ndarray, np.ndarray]:
    count = encoder.length // encoder.vocabularies
    words = split(caption)[:count]
    context = np.zeros((encoder.length, encoder.width), np.float32)
    pooled = np.zeros(encoder.pooled_width, np.float32)
    place = np.arange(count)[:, None] * 100.0 ** -np.linspace(0, 1, encoder.width // 2)
    code = np.concatenate([np.sin(place), np.cos(place)], axis=1).astype(np.float32)
    for vocabulary, (tokens, _, channels) in enumerate(encoder.parts):
        vector = pooled[channels]
        for i, word in enumerate(words):
            known = f"{vocabulary} {word}" if vocabulary else word
            token = context[tokens][i]
            token += _signs(known, encoder.width)
            token[: code.shape[1]] += code[i]
            vector += np.roll(_signs(known, len(vector)), i)
    return context, pooled / np.float32(max(len(words), 1) ** 0.5)


def _signs(word: str, width: int) -> Float32[np.ndarray, " W"]:
    bits = np.frombuffer(hashlib.shake_128(word.encode()).digest(-(-width // 8)), np.uint8)
    return np.unpackbits(bits)[:width].astype(np.float32) * 2 - 1


@dataclass(frozen=True)
class Labels:
    """Class labels in place of text, for DiT and SiT: `pooled` is one-hot, all zero for no label; there are no tokens.

    A caption is a label's number ("207"), or "" for none.
    """

    classes: int

    length: ClassVar[int] = 0
    width: ClassVar[int] = 1
    kinds: ClassVar[tuple[int, ...]] = ()
    parts: ClassVar[tuple[Part, ...]] = ((slice(None), slice(None), slice(None)),)

    @property
    def pooled_width(self) -> int:
        return self.classes

    def __call__(self, captions: Sequence[str]) -> Encoded:
        pooled = np.zeros((len(captions), self.classes), np.float32)
        for row, caption in zip(pooled, captions, strict=True):
            if caption:
                row[self._label(caption)] = 1
        return Encoded(np.zeros((len(captions), 0, 1), np.float32), pooled)

    def _label(self, caption: str) -> int:
        if not (caption.isdecimal() and len(caption) <= _DIGITS and int(caption) < self.classes):
            raise UserError(f"'{caption}' is not the number of a class, 0 to {self.classes - 1}")
        return int(caption)


@dataclass(frozen=True)
class Stored:
    """Encodings that lie in the data set beside each image; it cannot encode a new caption.

    `layout` "sd3" is the paper's: 77 CLIP tokens whose first 768 channels are CLIP L's and the next 1280 CLIP G's, then
    the T5 tokens; `pooled` is CLIP L's 768 values, then CLIP G's 1280 (facts of SD3 App. B.2). "one" is one encoder.
    """

    length: int
    width: int
    pooled_width: int
    layout: str = "sd3"

    @property
    def parts(self) -> tuple[Part, ...]:
        if self.layout == "one":
            return ((slice(None), slice(None), slice(None)),)
        clip, t5, nothing = slice(0, 77), slice(77, None), slice(0, 0)
        return (
            (clip, slice(0, 768), slice(0, 768)),
            (clip, slice(768, 2048), slice(768, 2048)),
            (t5, slice(None), nothing),
        )

    @property
    def kinds(self) -> tuple[int, ...]:
        return (77, self.length - 77) if self.layout == "sd3" else (self.length,)

    def __call__(self, captions: Sequence[str]) -> Encoded:
        raise NotImplementedError("stored encodings come with the data set's examples")
