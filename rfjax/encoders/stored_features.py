"""`stored`: patch tokens that the data set holds beside its latents, made once by any vision encoder."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax.errors import UserError


@dataclass(frozen=True)
class StoredFeatures:
    """The data set's field `features`, (rows, columns, Z).

    Attributes:
        grid: rows and columns of the tokens.
        width: of a token, Z.
    """

    grid: tuple[int, int]
    width: int

    name: ClassVar[str] = "stored features"
    reads: ClassVar[tuple[str, ...]] = ("features",)
    flops: ClassVar[int] = 0  # they were spent before

    def weights(self) -> tuple[()]:
        """None."""
        return ()

    abstract_weights = weights

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes the features on in the type that they are stored in.

        Raises:
            UserError: if there are none, or their shape is another.
        """
        if "features" not in arrays:
            raise UserError("config.alignment.encoders names 'stored', and the data set has no field 'features'")
        found, wanted = arrays["features"].shape[1:], (*self.grid, self.width)
        if found != wanted:
            wrong, right = ("x".join(map(str, shape)) for shape in (wanted, found))
            raise UserError(f"the stored features have the shape {found}, and not stored@{wrong}: write stored@{right}")
        return {"features": arrays["features"]}

    def encode(self, weights: tuple[()], batch: Mapping[str, Array], keys: Array) -> Float[Array, "B N Z"]:
        """The tokens, row by row."""
        features = batch["features"].astype(jnp.float32)
        return features.reshape(len(features), -1, self.width)


def make(config: configs.Config, argument: str) -> StoredFeatures:
    """The encoder `stored@ROWSxCOLUMNSxZ`.

    Raises:
        UserError: for another argument.
    """
    matched = re.fullmatch(r"(\d+)x(\d+)x(\d+)", argument)
    if not matched:
        raise UserError(
            f"the encoder 'stored@{argument}' must name the shape of the stored features, such as stored@16x16x768"
        )
    rows, columns, width = map(int, matched.groups())
    return StoredFeatures((rows, columns), width)
