"""What `sd3` and `sentence` share: towers with their tokenizers, and the encodings of the empty prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rfjax.conditioning import Group, TextConditioning
from rfjax.encoders.language.tokens import Cuts, Tokenizer
from rfjax.encoders.language.tower import Tower
from rfjax.encoders.text import CONTEXT, POOLED, stored_encodings

States = tuple[Array, Array]  # context (B, L, E) and pooled (B, P)


class Part(NamedTuple):
    """One of an encoder's text networks.

    Attributes:
        name: of it.
        tower: the network.
        tokenizer: what it reads.
    """

    name: str
    tower: Tower
    tokenizer: Tokenizer

    @property
    def ids(self) -> str:
        """The name of its tokens among what goes to the devices."""
        return f"{self.name}_ids"

    @property
    def counts(self) -> str:
        """The name of their numbers there."""
        return f"{self.name}_counts"


@dataclass(frozen=True)
class LanguageEncoder:
    """A `TextEncoder` of published networks.

    Attributes:
        length: text tokens L.
        width: channels E of a token.
        pooled_width: channels P of the pooled vector.
        parts: the networks that run.
        null: what stands for no text: "zeros", or "empty" for the encodings of the empty prompt.
        cuts: counts the captions and prompts that were too long.
    """

    length: int
    width: int
    pooled_width: int
    parts: tuple[Part, ...]
    null: str = "zeros"
    cuts: Cuts = field(default_factory=Cuts, compare=False, repr=False)

    name: ClassVar[str] = "cond"
    reads: ClassVar[tuple[str, ...]] = (CONTEXT, POOLED)
    classes: ClassVar[int] = 0

    @property
    def groups(self) -> tuple[Group, ...]:
        """What each network has of the tokens and of the pooled vector."""
        return (Group(),)

    @property
    def kinds(self) -> tuple[int, ...]:
        """How many tokens are of each kind that may have weights of its own."""
        return (self.length,)

    @property
    def output(self) -> TextConditioning:
        """The shapes."""
        leaf = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)  # noqa: E731
        shapes = leaf(self.length, self.width), leaf(self.pooled_width)
        return TextConditioning(*shapes, self.groups, shapes if self.null == "empty" else None)

    @property
    def sources(self) -> dict[str, Path]:
        """network -> the folder of its weights."""
        return {part.name: Path(part.tower.path) for part in self.parts}

    @property
    def flops(self) -> int:
        """Of a text: two for a multiplication and its addition."""
        return sum(part.tower.flops(part.tokenizer.length) for part in self.parts)

    def abstract_weights(self) -> dict[str, Any]:
        """The weights as shapes and dtypes; nothing is read."""
        return {part.name: part.tower.abstract_weights() for part in self.parts}

    def weights(self) -> dict[str, Any]:
        """The weights by network; each leaf is read when it is placed.

        Raises:
            UserError: if weights or a tokenizer are missing, or of another network.
        """
        for part in self.parts:
            part.tokenizer.load(part.tower.arch.vocabulary)
        return {part.name: part.tower.weights() for part in self.parts}

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """The encodings that the data set stores, else the tokens of the captions."""
        return stored_encodings(arrays) or self.prompts(captions)

    def prompts(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """The tokens of texts."""
        found, cut = {}, {}
        for part in self.parts:
            tokens = part.tokenizer(texts)
            found |= {part.ids: tokens.ids, part.counts: tokens.counts}
            cut[part.name] = tokens.cut
        self.cuts.add(len(texts), cut)
        return found

    def states(self, weights: Any, tokens: Mapping[str, Array]) -> States:
        """The encodings of tokens, as `prompts` gives them."""
        raise NotImplementedError

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> TextConditioning:
        """The conditioning of tokens, or of stored encodings."""
        if CONTEXT in batch:
            made = batch[CONTEXT].astype(jnp.float32), batch[POOLED].astype(jnp.float32)
        else:
            made = self.states(weights, batch)
        return TextConditioning(*made, self.groups, self._empty(weights, made) if self.null == "empty" else None)

    def _empty(self, weights: Any, like: States) -> States:
        """The encodings of the empty prompt for each example: the network that runs on one text more."""
        tokens: dict[str, Array] = {}
        for part in self.parts:
            found = part.tokenizer([""])
            tokens |= {part.ids: jnp.asarray(found.ids), part.counts: jnp.asarray(found.counts)}
        one = self.states(weights, tokens)
        return tuple(jnp.broadcast_to(x, each.shape) for x, each in zip(one, like, strict=True))
