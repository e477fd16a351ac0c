"""Embedders: frozen networks that turn whole pictures, and some of them texts, into vectors that metrics compare.

An embedder names the network and all that is done to a picture before it: two protocols have two names, for their
numbers can't be compared. Weights come from the files that `config.evaluate` names.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, UInt8

from rfjax import config as configs
from rfjax import lookup
from rfjax.errors import UserError

EMBEDDERS: dict[str, str] = {
    "inception": "rfjax.encoders.embedding.inception:make",
    "efficientnet": "rfjax.encoders.embedding.efficientnet:make",
    "dinov2": "rfjax.encoders.embedding.dinov2:make",
    "clip": "rfjax.encoders.embedding.clip:make",
    "clip336": "rfjax.encoders.embedding.clip:make_336",
    "pickscore": "rfjax.encoders.embedding.clip:make_pickscore",
    "hps": "rfjax.encoders.embedding.clip:make_hps",
}


@runtime_checkable
class Embedder(Protocol):
    """The contract.

    Attributes:
        name: of the network and its preprocessing, as records and files of statistics write it: `inception@adm`.
        outputs: name -> the number of values of a picture, such as {"pool": 2048, "spatial": 2023, "logits": 1008}.
    """

    name: str
    outputs: Mapping[str, int]

    def about(self) -> dict[str, str]:
        """What a record says beside a number: `network`, `file`, `sha256`, `resize`, `scaling`, as plain texts."""
        ...

    def weights(self) -> Any:
        """Reads the weights, in float32.

        Raises:
            UserError: if the files are missing, broken, or of another network.
        """
        ...

    def embed(self, weights: Any, images: UInt8[Array, "B H W 3"]) -> dict[str, Float[Array, "B F"]]:
        """The outputs, float32, of pictures of any one size; traced, so the preprocessing runs on the devices too."""
        ...


@runtime_checkable
class TextEmbedder(Embedder, Protocol):
    """An embedder of texts as well, into the same space as one of its outputs.

    Attributes:
        scale: what multiplies a cosine of the two: 1 for a plain one.
    """

    scale: float

    def tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenises on the host, B rows each; texts that are too long are cut as the network's own code does."""
        ...

    def embed_text(self, weights: Any, tokens: Mapping[str, Array]) -> Float[Array, "B F"]:
        """The texts' vectors beside the output "projected" of pictures, not normalised."""
        ...


def make_embedder(name: str, config: configs.Config, key: str = "sampling.metrics") -> Embedder:
    """The embedder of a name, an entry of `EMBEDDERS` or `MODULE:NAME`; its weights are not read yet.

    Raises:
        UserError: if there is none, or the config names no file of its weights.
    """
    made = lookup.find(name, EMBEDDERS, key)(config)
    if not isinstance(made, Embedder):
        raise UserError(f"config.{key}: '{name}' makes no embedder: it needs outputs, about, weights and embed")
    return made


def sha256(path: Path) -> str:
    """Of a file's bytes, the first 16 digits; computed once while its size and time are the same."""
    stamp = path.stat()
    return _sha256(path, stamp.st_size, stamp.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, size: int, time: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
