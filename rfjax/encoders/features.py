"""Frozen encoders of the clean picture, whose patch tokens hidden states are aligned with or compared to (REPA)."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax import lookup
from rfjax.errors import UserError

FEATURES: dict[str, str] = {
    "shapes": "rfjax.encoders.semantics:make",
    "stored": "rfjax.encoders.stored_features:make",
    "trained": "rfjax.training.small_encoder:make",
    "vision": "rfjax.encoders.vision:make",
}


@runtime_checkable
class FeatureEncoder(Protocol):
    """An `Encoder` whose output is the tokens of a picture.

    Attributes:
        name: of its output in the batch; no two encoders share one.
        grid: rows and columns of the tokens.
        width: of a token, Z.
        flops: of one picture, 2 for a multiplication and its addition.
    """

    name: str
    grid: tuple[int, int]
    width: int
    flops: int

    @property
    def reads(self) -> tuple[str, ...]: ...

    def weights(self) -> Any: ...

    def abstract_weights(self) -> Any:
        """The weights as shapes and dtypes, for a plan; nothing is read."""
        ...

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]: ...

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> Float[Array, "B N Z"]:
        """The tokens of the clean pictures, row by row, float32."""
        ...


def make_features(config: configs.Config) -> tuple[FeatureEncoder, ...]:
    """The encoders that the config aligns the network with: none if its weight is 0.

    Raises:
        UserError: if there is no such encoder, or it can't read this run's data.
    """
    names = config.alignment.encoders if config.alignment.active else ()
    return tuple(make_feature_encoder(name, config) for name in names)


def make_feature_encoder(name: str, config: configs.Config, key: str = "alignment.encoders") -> FeatureEncoder:
    """The encoder that the config names as NAME, NAME@ARGUMENT or MODULE:NAME@ARGUMENT.

    Args:
        name: as the config writes it.
        config: of the run; the encoder reads the keys of its data.
        key: that holds the name, for the message.

    Raises:
        UserError: if there is no such encoder, or it can't read this run's data.
    """
    kind, _, argument = name.partition("@")
    made = lookup.find(kind, FEATURES, key)(config, argument)
    if not isinstance(made, FeatureEncoder):
        raise UserError(f"config.{key} = '{name}' makes no encoder of features: it needs a grid, a width and flops")
    return made
