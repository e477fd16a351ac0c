"""Text encoders: captions or class labels -> `TextConditioning`, in SD3's form of tokens and a pooled vector."""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from rfjax import config as configs
from rfjax.conditioning import Group, TextConditioning
from rfjax.encoders.words import words as split
from rfjax.errors import UserError

_DIGITS = 18  # of a class's number
CONTEXT, POOLED, LABEL = "context", "pooled", "label"  # arrays of a data set


@runtime_checkable
class TextEncoder(Protocol):
    """An `Encoder` whose output is the conditioning of the network.

    Attributes:
        output: the conditioning of one example, as shapes.
        kinds: how many of the text tokens are of each kind that may have weights of its own.
        classes: how many class labels it encodes in place of text; 0: it encodes text.
    """

    name: str
    classes: int

    @property
    def reads(self) -> tuple[str, ...]: ...

    @property
    def output(self) -> Any: ...

    @property
    def kinds(self) -> tuple[int, ...]: ...

    def weights(self) -> Any: ...

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]: ...

    def prompts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """What `prepare` returns, of texts that a user gives.

        Raises:
            UserError: if it can't encode them.
        """
        ...

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> TextConditioning: ...


def _output(length: int, width: int, pooled: int, groups: tuple[Group, ...]) -> TextConditioning:
    leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
    return TextConditioning(leaf(length, width), leaf(pooled), groups)


def stored_encodings(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """The encodings that a data set stores, in float32, or in float16 if it stores them so; None if it stores none.

    `encode` makes float16 float32: on the host, that would take four times as long as reading them, and its transfer
    to the devices twice as long.
    """
    if CONTEXT in arrays and POOLED in arrays:
        found = {name: arrays[name] for name in (CONTEXT, POOLED)}
        return {name: x if x.dtype == np.float16 else x.astype(np.float32, copy=False) for name, x in found.items()}
    return None


class _Text:
    """What the encoders share whose tokens and pooled vectors are ready on the host."""

    length: int
    width: int
    pooled_width: int
    groups: tuple[Group, ...]

    name: ClassVar[str] = "cond"
    reads: ClassVar[tuple[str, ...]] = (CONTEXT, POOLED)
    classes: ClassVar[int] = 0

    @property
    def output(self) -> TextConditioning:
        """The shapes."""
        return _output(self.length, self.width, self.pooled_width, self.groups)

    def weights(self) -> tuple[()]:
        """None."""
        return ()

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> TextConditioning:
        """The arrays as a conditioning."""
        context, pooled = (batch[name].astype(jnp.float32) for name in (CONTEXT, POOLED))
        return TextConditioning(context, pooled, self.groups)


@dataclass(frozen=True)
class WordVectors(_Text):
    """An encoder that needs no download: a fixed vector of signs for each word, and its place in the sentence.

    A word's vector has the bits of its SHAKE-128 hash as signs, so that any two words are nearly orthogonal and every
    machine agrees. A token is that vector plus a sine-cosine code of its position; `pooled` is the sum of the words'
    vectors, each rotated by its position, over the root of their number, so that it knows their order as well. Words
    that don't fit are cut off. What lies beyond a caption's end is zero.

    Several vocabularies stand for several encoders: each hashes words in its own way, has an equal share of the tokens,
    one after the other, and of the channels of the pooled vector, and is dropped on its own.

    Attributes:
        length: text tokens L.
        width: channels E of a token.
        pooled_width: channels P of the pooled vector.
        vocabularies: how many encoders it stands for.
    """

    length: int
    width: int
    pooled_width: int
    vocabularies: int = 1

    @property
    def groups(self) -> tuple[Group, ...]:
        """What each vocabulary has of the tokens and of the pooled vector."""
        tokens, channels = self.length // self.vocabularies, -(-self.pooled_width // self.vocabularies)
        places = [(i * tokens, i * channels) for i in range(self.vocabularies)]
        return tuple(Group((t, t + tokens), (0, None), (c, c + channels)) for t, c in places)

    @property
    def kinds(self) -> tuple[int, ...]:
        """The tokens of each vocabulary."""
        return (self.length // self.vocabularies,) * self.vocabularies

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """The encodings that the data set stores, else those of the captions."""
        return stored_encodings(arrays) or self.prompts(captions)

    def prompts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Encodes the texts."""
        rows = [_encode(self, text) for text in texts]
        return {CONTEXT: np.stack([row[0] for row in rows]), POOLED: np.stack([row[1] for row in rows])}


@functools.lru_cache(maxsize=100_000)
def _encode(encoder: WordVectors, caption: str) -> tuple[np.ndarray, np.ndarray]:
    count = encoder.length // encoder.vocabularies
    words = split(caption)[:count]
    context = np.zeros((encoder.length, encoder.width), np.float32)
    pooled = np.zeros(encoder.pooled_width, np.float32)
    place = np.arange(count)[:, None] * 100.0 ** -np.linspace(0, 1, encoder.width // 2)
    code = np.concatenate([np.sin(place), np.cos(place)], axis=1).astype(np.float32)
    for vocabulary, (tokens, _, channels) in enumerate(encoder.groups):
        vector = pooled[slice(*channels)]
        for i, word in enumerate(words):
            known = f"{vocabulary} {word}" if vocabulary else word
            token = context[slice(*tokens)][i]
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

    A prompt is a label's number ("207"), or "" for none.

    Attributes:
        classes: how many labels there are.
    """

    classes: int

    name: ClassVar[str] = "cond"
    reads: ClassVar[tuple[str, ...]] = (LABEL,)
    kinds: ClassVar[tuple[int, ...]] = ()
    groups: ClassVar[tuple[Group, ...]] = (Group(),)

    @property
    def output(self) -> TextConditioning:
        """The shapes."""
        return _output(0, 1, self.classes, self.groups)

    def weights(self) -> tuple[()]:
        """None."""
        return ()

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """The labels.

        Raises:
            UserError: if the data set has none, or one that is too large.
        """
        if LABEL not in arrays:
            raise UserError("this data set has no class labels: choose another config.text.encoder than 'labels'")
        return self.prompts([str(label) for label in arrays[LABEL].tolist()])

    def prompts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The numbers of the classes; -1 for none."""
        return {LABEL: np.array([self._label(text) if text else -1 for text in texts], np.int32)}

    def _label(self, text: str) -> int:
        if not (text.isdecimal() and len(text) <= _DIGITS and int(text) < self.classes):
            raise UserError(f"'{text}' is not the number of a class, 0 to {self.classes - 1}")
        return int(text)

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> TextConditioning:
        """One-hot vectors."""
        label: Int32[Array, " B"] = batch[LABEL]
        return TextConditioning(
            jnp.zeros((len(label), 0, 1), jnp.float32), jax.nn.one_hot(label, self.classes), self.groups
        )


@dataclass(frozen=True)
class Stored(_Text):
    """Encodings that lie in the data set beside each image; it cannot encode a new text.

    The layout "sd3" is the paper's: 77 CLIP tokens whose first 768 channels are CLIP L's and the next 1280 CLIP G's,
    then the T5 tokens; `pooled` is CLIP L's 768 values, then CLIP G's 1280 (facts of SD3 App. B.2). "one" is one
    encoder.

    Attributes:
        length: text tokens L.
        width: channels E of a token.
        pooled_width: channels P of the pooled vector.
        layout: "sd3" or "one".
    """

    length: int
    width: int
    pooled_width: int
    layout: str = "sd3"

    @property
    def groups(self) -> tuple[Group, ...]:
        """What each encoder has of the tokens and of the pooled vector."""
        if self.layout == "one":
            return (Group(),)
        clip, t5, nothing = (0, 77), (77, None), (0, 0)
        return (
            Group(clip, (0, 768), (0, 768)),
            Group(clip, (768, 2048), (768, 2048)),
            Group(t5, (0, None), nothing),
        )

    @property
    def kinds(self) -> tuple[int, ...]:
        """CLIP's tokens and T5's."""
        return (77, self.length - 77) if self.layout == "sd3" else (self.length,)

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """The encodings.

        Raises:
            UserError: if the data set stores none.
        """
        if (stored := stored_encodings(arrays)) is None:
            raise UserError("this data set stores no encodings: choose another config.text.encoder than 'stored'")
        return stored

    def prompts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Raises UserError: its encoder is not here."""
        raise UserError("encodings that a data set stores come with its examples, so a new text has none")


def make_words(config: configs.Text) -> WordVectors:
    """The built-in encoder, as the config says."""
    length = config.length * config.vocabularies
    return WordVectors(length, config.width, config.pooled_width, config.vocabularies)


def make_labels(config: configs.Text) -> Labels:
    """Class labels, as many as the config says."""
    return Labels(config.pooled_width)


def make_stored(config: configs.Text) -> Stored:
    """Stored encodings of the shapes that the config says."""
    return Stored(config.length, config.width, config.pooled_width, config.layout)
