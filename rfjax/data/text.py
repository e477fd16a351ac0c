"""Text conditioning in SD3's form: tokens `context` (B, L, E) and a vector `pooled` (B, P) from a frozen encoder."""

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

Part = tuple[slice, slice, slice]  # one encoder's text tokens, their channels, and its channels of the pooled vector


class Encoded(NamedTuple):
    """B captions as arrays; what lies beyond a caption's end is zero, and so is a caption that guidance drops."""

    context: Float32[np.ndarray, "B L E"]
    pooled: Float32[np.ndarray, "B P"]


@runtime_checkable
class TextEncoder(Protocol):
    """A frozen encoder. Its shapes are known without running it; `parts` says what guidance drops together."""

    length: int
    width: int
    pooled_width: int

    @property
    def parts(self) -> tuple[Part, ...]: ...

    def __call__(self, captions: Sequence[str]) -> Encoded: ...


@dataclass(frozen=True)
class WordVectors:
    """An encoder that needs no download: a fixed vector of signs for each word, and its place in the sentence.

    A word's vector has the bits of its SHAKE-128 hash as signs, so that any two words are nearly orthogonal and every
    machine agrees. A token is that vector plus a sine-cosine code of its position; `pooled` is the sum of the words'
    vectors, each rotated by its position, over the root of their number, so that it knows their order as well. Words
    beyond `length` are cut off.
    """

    length: int
    width: int
    pooled_width: int

    @property
    def parts(self) -> tuple[Part, ...]:
        return ((slice(None), slice(None), slice(None)),)

    def __call__(self, captions: Sequence[str]) -> Encoded:
        rows = [_encode(self, caption) for caption in captions]
        return Encoded(np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows]))


@functools.lru_cache(maxsize=100_000)
def _encode(encoder: WordVectors, caption: str) -> tuple[np.ndarray, np.ndarray]:
    words = re.findall(r"\w+", caption.lower())[: encoder.length]
    context = np.zeros((encoder.length, encoder.width), np.float32)
    pooled = np.zeros(encoder.pooled_width, np.float32)
    place = np.arange(encoder.length)[:, None] * 100.0 ** -np.linspace(0, 1, encoder.width // 2)
    code = np.concatenate([np.sin(place), np.cos(place)], axis=1).astype(np.float32)
    for i, word in enumerate(words):
        context[i] = _signs(word, encoder.width)
        context[i, : code.shape[1]] += code[i]
        pooled += np.roll(_signs(word, encoder.pooled_width), i)
    return context, pooled / np.float32(max(len(words), 1) ** 0.5)


def _signs(word: str, width: int) -> Float32[np.ndarray, " W"]:
    bits = np.frombuffer(hashlib.shake_128(word.encode()).digest(-(-width // 8)), np.uint8)
    return np.unpackbits(bits)[:width].astype(np.float32) * 2 - 1


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

    def __call__(self, captions: Sequence[str]) -> Encoded:
        raise NotImplementedError("stored encodings come with the data set's examples")
