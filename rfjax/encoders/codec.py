"""Codecs: from a data set's pictures or latents to the z that the network sees, and from samples back to pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from rfjax import config as configs
from rfjax.errors import UserError


@runtime_checkable
class Codec(Protocol):
    """An `Encoder` of the data itself, whose output "z" can be decoded.

    One with a large network may also say `at_once` and `decodes_at_once`, how many rows a device encodes and decodes at
    a time (`parts.in_parts`), and `example`, the shape of what it reads of an example if it is not that of z.

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


ROUNDINGS = {"sit": lambda z: z * 127.5 + 128, "repa": lambda z: (z + 1) / 2 * 255}  # both then lose their fraction


def to_pixels(z: Any, rounding: str = "sit") -> Any:
    """-1..1 -> uint8 0..255, clipped at the ends. For numpy and JAX arrays alike.

    Args:
        z: values.
        rounding: of ROUNDINGS: "sit" rounds to the nearest level, "repa" always down, as each one's code does.
    """
    xp = jnp if isinstance(z, jnp.ndarray) else np
    return xp.clip(ROUNDINGS[rounding](z.astype(np.float32)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Pixels:
    """Pictures as they are: z is the pixels, which the network sees from -1 to 1.

    Attributes:
        shape: of z, (H, W, C).
        rounding: of decoded pixels, see `to_pixels`.
    """

    shape: tuple[int, ...]
    rounding: str = "sit"

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
        return to_pixels(jnp.nan_to_num(z, posinf=0.0, neginf=0.0), self.rounding)


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


LOG_VARIANCES = (-30.0, 20.0)  # LDM's clamp, and U-ViT's


@dataclass(frozen=True)
class Moments:
    """Latents drawn afresh from their stored distribution each time an example is seen: scale (mean + deviation noise).

    The noise belongs to (seed, step, the example's place in the batch).

    Attributes:
        shape: of z, (H, W, C).
        scale: what latents are multiplied by.
        form: what the second half of the stored channels is: "std", "logvar" (clamped), or "mode" to take the mean.
        shift: what is subtracted from latents before.
    """

    shape: tuple[int, ...]
    scale: float
    form: str = "std"
    shift: float = 0.0

    name: ClassVar[str] = "z"
    reads: ClassVar[tuple[str, ...]] = ("moments",)
    pictures: ClassVar[bool] = False

    def weights(self) -> tuple[()]:
        """None."""
        return ()

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes the moments on.

        Raises:
            UserError: if the data set has none, or of another shape.
        """
        found, wanted = _field(arrays, "moments", "moments", "latents"), (*self.shape[:-1], 2 * self.shape[-1])
        if found.shape[1:] != wanted:
            raise UserError(f"'moments' of the data set has shape {found.shape[1:]}, but the config says {wanted}")
        return {"moments": found}

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> Float[Array, "B *S C"]:
        """Latents of the moments."""
        mean, second = jnp.split(batch["moments"].astype(jnp.float32), 2, axis=-1)
        if self.form == "mode":
            return self.scale * (mean - self.shift)
        deviation = jnp.exp(jnp.clip(second, *LOG_VARIANCES) / 2) if self.form == "logvar" else second
        noise = jax.vmap(lambda key: jax.random.normal(key, self.shape))(keys)
        return self.scale * (mean - self.shift + deviation * noise)

    def decode(self, weights: Any, z: Float[Array, "B *S C"]) -> UInt8[Array, "B *S2 C2"]:
        """Raises UserError: there is no decoder."""
        raise UserError("moments of latents have no decoder here: config.data.codec names one that has")


def make_pixels(config: configs.Config) -> Pixels:
    """Pictures of the config's size."""
    return Pixels(shape_of(config.data))


def make_latents(config: configs.Config) -> Latents:
    """Latents of the config's size."""
    return Latents(shape_of(config.data))


def make_moments(config: configs.Config) -> Moments:
    """Latents that are drawn from moments, as the config says."""
    return Moments(shape_of(config.data), config.data.latent_scale, config.data.moments)


def shape_of(config: configs.Data) -> tuple[int, ...]:
    """The shape of one z, (H, W, C) or (F, H, W, C)."""
    return config.shape or (config.image_size, config.image_size, config.channels)


def _field(arrays: Mapping[str, np.ndarray], name: str, codec: str, other: str) -> np.ndarray:
    if name not in arrays:
        raise UserError(
            f"config.data.codec = '{codec}' reads '{name}', and the data set has {', '.join(arrays) or 'no arrays'}: "
            f"set config.data.codec = '{other}'"
        )
    return arrays[name]
