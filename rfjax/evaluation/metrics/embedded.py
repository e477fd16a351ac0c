"""Numbers that are computed from vectors of pictures: each network runs once over a batch, for all that need it.

The vectors stay on the host (8 kB a picture of Inception's), so that standard errors and distances between neighbours
can be computed from them in the end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Shaped, UInt8

from rfjax import config as configs
from rfjax.encoders.embedding import Embedder, TextEmbedder, make_embedder
from rfjax.errors import UserError
from rfjax.evaluation.quantity import Quantity
from rfjax.evaluation.statistics import Estimate
from rfjax.evaluation.statistics.references import Reference
from rfjax.evaluation.validation import gather


@dataclass(frozen=True)
class Vectors:
    """What a score is computed from.

    Attributes:
        own: output of the embedder -> its values for the n pictures, in order.
        texts: the vectors of their captions; None where the score reads none.
        captions: of the pictures.
        reference: what they are compared with; None where the score compares with nothing.
        scale: of a cosine between pictures and texts, see `TextEmbedder`.
    """

    own: Mapping[str, Float32[np.ndarray, "n _"]]
    texts: Float32[np.ndarray, "n _"] | None
    captions: tuple[str, ...]
    reference: Reference | None
    scale: float


@dataclass(frozen=True)
class Score:
    """Numbers from vectors of pictures.

    Attributes:
        embedder: an entry of `EMBEDDERS`, or `MODULE:NAME`.
        reads: the outputs that they are computed from.
        quantities: the numbers, with labels and directions; `error` is the key of a standard error.
        compute: the vectors -> each number by its quantity's key.
        compares: what it needs of the reference: "nothing", "moments", or "features" of its pictures.
        texts: whether it reads the captions' vectors.
    """

    embedder: str
    reads: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    compute: Callable[[Vectors], Mapping[str, Estimate]]
    compares: Literal["nothing", "moments", "features"] = "nothing"
    texts: bool = False


class Opened:
    """An embedder with its weights on the devices."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder
        self._host = embedder.weights()
        self._weights: dict[Any, Any] = {}
        self._embed = jax.jit(embedder.embed)
        self._embed_text = jax.jit(embedder.embed_text) if isinstance(embedder, TextEmbedder) else None

    def embed(self, images: Array) -> dict[str, Float32[np.ndarray, "B _"]]:
        """The outputs for a batch that lies on the devices, on the host of every process."""
        return {name: gather(values) for name, values in self._embed(self._at(images), images).items()}

    def embed_text(self, texts: Sequence[str], rows: "Rows") -> Float32[np.ndarray, "n _"]:
        """The vectors of texts, of which there may be fewer than the rows have room for."""
        assert self._embed_text and isinstance(self.embedder, TextEmbedder)
        padded = [*texts, *[texts[0]] * (rows.size - len(texts))]
        tokens = {name: rows.place(values) for name, values in self.embedder.tokens(padded).items()}
        return gather(self._embed_text(self._at(next(iter(tokens.values()))), tokens))[: len(texts)]

    def _at(self, like: Array) -> Any:
        """The weights, whole on every device of an array's mesh."""
        mesh = like.sharding.mesh if isinstance(like.sharding, NamedSharding) else None
        if mesh not in self._weights:
            sharding = NamedSharding(mesh, PartitionSpec()) if mesh else None
            self._weights[mesh] = jax.device_put(self._host, sharding)
        return self._weights[mesh]


_OPENED: dict[tuple[str, configs.Evaluate], Opened] = {}  # measurements along a run make their metrics each time


def opened(name: str, config: configs.Config) -> Opened:
    """The embedder of a name with its weights, read once for each set of files.

    Raises:
        UserError: if it can't be read.
    """
    if (name, config.evaluate) not in _OPENED:
        _OPENED[name, config.evaluate] = Opened(make_embedder(name, config))
    return _OPENED[name, config.evaluate]


@dataclass(frozen=True)
class Rows:
    """How batches lie on the devices.

    Attributes:
        size: of a whole batch.
        sharding: of its rows; None on one device.
    """

    size: int
    sharding: NamedSharding | None

    @classmethod
    def of(cls, images: Array | np.ndarray) -> "Rows":
        """Those of a batch."""
        sharding = getattr(images, "sharding", None)
        if not isinstance(sharding, NamedSharding):
            return cls(len(images), None)
        return cls(len(images), NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[:1])))

    def place(self, values: Shaped[np.ndarray, "n ..."]) -> Array:
        """Rows on the devices, the last one repeated where they do not fill a batch."""
        if fill := self.size - len(values):
            values = np.concatenate([values, np.repeat(values[-1:], fill, axis=0)])
        if self.sharding is None:
            return jnp.asarray(values)
        return jax.make_array_from_callback(values.shape, self.sharding, lambda index: values[index])


class State(NamedTuple):
    """What is kept of the pictures so far: by batch."""

    own: tuple[dict[str, np.ndarray], ...] = ()
    texts: tuple[np.ndarray, ...] = ()
    captions: tuple[str, ...] = ()
    rows: Rows | None = None


@dataclass(frozen=True)
class EmbeddedMetric:
    """A `Metric`: all scores of one network.

    Attributes:
        opened: the network.
        scores: that are computed from its vectors.
        reference: (network, rows of a batch, whether features are needed) -> what the pictures are compared with.
    """

    opened: Opened
    scores: tuple[Score, ...]
    reference: Callable[[Opened, Rows, bool], Reference]
    quantities: tuple[Quantity, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantities", tuple(one for score in self.scores for one in score.quantities))

    @property
    def reads_captions(self) -> bool:
        """Whether a score compares pictures with their captions."""
        return any(score.texts for score in self.scores)

    def init(self) -> State:
        return State()

    def update(self, state: State, images: UInt8[Array, "B H W C"] | np.ndarray, captions: Sequence[str]) -> State:
        """Embeds one more batch; grey pictures become three equal channels.

        Raises:
            UserError: for what is no batch of pictures.
        """
        if images.ndim != 4 or images.shape[-1] not in (1, 3) or images.dtype != np.uint8:
            raise UserError(
                f"{self.opened.embedder.name} measures pictures, uint8 (n, H, W, 1 or 3), not {images.shape}"
            )
        rows = state.rows or Rows.of(images)
        whole = isinstance(images, jax.Array) and len(images) == rows.size
        placed = images if whole else rows.place(gather(images) if isinstance(images, jax.Array) else images)
        placed = jnp.repeat(placed, 3, axis=-1) if placed.shape[-1] == 1 else placed
        found = {
            name: values[: len(images)] for name, values in self.opened.embed(placed).items() if name in self._reads
        }
        texts = state.texts
        if self.reads_captions:
            texts = (*texts, self.opened.embed_text(captions, rows))
        return State((*state.own, found), texts, (*state.captions, *captions), rows)

    @property
    def _reads(self) -> set[str]:
        return {name for score in self.scores for name in score.reads}

    def result(self, state: State) -> dict[str, Any]:
        """Every number with its standard error, its protocol in words, and sentences that a page shows beside them.

        Raises:
            UserError: if there are too few pictures for every number, or the reference is not for this network.
        """
        assert state.rows is not None
        own = {name: np.concatenate([part[name] for part in state.own]) for name in self._reads}
        compares = {score.compares for score in self.scores}
        reference = None
        if compares != {"nothing"}:
            reference = self.reference(self.opened, state.rows, "features" in compares)
        texts = np.concatenate(state.texts) if state.texts else None
        scale = getattr(self.opened.embedder, "scale", 1.0)
        vectors = Vectors(own, texts, state.captions, reference, scale)
        found: dict[str, Any] = {"count": len(state.captions)}
        about = self.opened.embedder.about() | {"embedder": self.opened.embedder.name}
        protocols, notes = {}, list(reference.notes) if reference else []
        failed: list[UserError] = []
        for score in self.scores:
            try:
                made = score.compute(vectors)
            except UserError as error:  # the other numbers of these vectors, which took long, are not lost
                failed.append(error)
                notes += [f"{', '.join(one.label for one in score.quantities)} is left out. {error}"]
                continue
            for one in score.quantities:
                found[one.key] = made[one.key].value
                if one.error:
                    found[one.error] = made[one.key].stderr
                found |= {f"{one.key}_{name}": value for name, value in made[one.key].extras.items()}
                protocols[one.key] = _protocol(about, score, reference)
                notes += [note for note in made[one.key].notes if note not in notes]
        if len(failed) == len(self.scores):
            raise failed[0]
        return found | {"protocols": protocols, "notes": notes}


def _protocol(about: dict[str, str], score: Score, reference: Reference | None) -> dict[str, str]:
    """How a number was made: the network, and what it compares with."""
    if score.compares == "nothing" or reference is None:
        return about
    return about | {"reference": reference.about.get("data", ""), "reference_count": reference.about.get("count", "")}
