"""Codecs: from a data set's pictures or latents to the z that the network sees, and from samples back to pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from rfjax.errors import UserError


@runtime_checkable
class Codec(Protocol):
    """An `Encoder` of the data itself, whose output "z" can be decoded.

    Attributes:
        shape: of one z, channels last.
        pictures: whether `decode` gives pictures.
    """

    name: str
    shape: tuple[int, ...]
    pictures: bool

    @property
    def reads(self) -> tuple[str, ...]: ...

    def weights(self) -> Any: ...

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]: ...

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> Shaped[Array, "B *S C"]:
        """z in floats, or as bytes, which `to_network` turns into floats where z is used."""
        ...

    def decode(self, weights: Any, z: Float[Array, "B *S C"]) -> UInt8[Array, "B *S2 C2"]:
        """Pictures of uint8 pixels; numbers that are not finite become 0.

        Raises:
            UserError: if the codec has no decoder.
        """
        ...


def to_network(image: Any) -> Any:
    """An encoded z as the network sees it: pixels 0..255 of uint8 become float32 -1..1, floats pass unchanged.

    It runs within the programs that use z: until then pixels take a fourth of the memory. For numpy and JAX arrays.
    """
    return image.astype(np.float32) / 127.5 - 1 if image.dtype == np.uint8 else image


def to_pixels(z: Any) -> Any:
    """-1..1 -> uint8 0..255, rounded, clipped at the ends. For numpy and JAX arrays alike."""
    xp = jnp if isinstance(z, jnp.ndarray) else np
    return xp.clip(z.astype(np.float32) * 127.5 + 128, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Pixels:
    """Pictures as they are: z is the pixels, which the network sees from -1 to 1.

    Attributes:
        shape: of z, (H, W, C).
    """

    shape: tuple[int, ...]

    name: ClassVar[str] = "z"
    reads: ClassVar[tuple[str, ...]] = ("image",)
    pictures: ClassVar[bool] = True

    def weights(self) -> tuple[()]:
        """None."""
        return ()

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes the pictures on as bytes."""
        return {"image": _field(arrays, "image", "pixels", "latents")}

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> Shaped[Array, "B *S C"]:
        """The pixels, as bytes."""
        return batch["image"]

    def decode(self, weights: Any, z: Float[Array, "B *S C"]) -> UInt8[Array, "B *S C"]:
        """Pixels of z."""
        return to_pixels(jnp.nan_to_num(z, posinf=0.0, neginf=0.0))


@dataclass(frozen=True)
class Latents:
    """Latents that the data set stores, unscaled, and that nothing here can decode.

    Attributes:
        shape: of z, (H, W, C).
    """

    shape: tuple[int, ...]

    name: ClassVar[str] = "z"
    reads: ClassVar[tuple[str, ...]] = ("latent",)
    pictures: ClassVar[bool] = False

    def weights(self) -> tuple[()]:
        """None."""
        return ()

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes the latents on in the type that they are stored in."""
        return {"latent": _field(arrays, "latent", "latents", "pixels")}

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> Float[Array, "B *S C"]:
        """The latents themselves."""
        return batch["latent"]

    def decode(self, weights: Any, z: Float[Array, "B *S C"]) -> UInt8[Array, "B *S2 C2"]:
        """Raises UserError: there is no decoder."""
        raise UserError("latents of this data set have no decoder here: config.data.codec names one that has")


def _field(arrays: Mapping[str, np.ndarray], name: str, codec: str, other: str) -> np.ndarray:
    if name not in arrays:
        raise UserError(
            f"config.data.codec = '{codec}' reads '{name}', and the data set has {', '.join(arrays) or 'no arrays'}: "
            f"set config.data.codec = '{other}'"
        )
    return arrays[name]
