"""The codec of an autoencoder: what the network sees are its latents, and samples become pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rfjax import config as configs
from rfjax.config.paths import expanded
from rfjax.encoders.autoencoder.loading import Autoencoder, open_autoencoder
from rfjax.encoders.autoencoder.names import HALVES
from rfjax.encoders.codec import LOG_VARIANCES, Latents, Moments, Pixels, shape_of, to_network, to_pixels
from rfjax.errors import UserError

STORED = ("latents", "moments")  # codecs of data that were encoded before


@dataclass(frozen=True)
class AutoencoderCodec:
    """z = (latent - shift) scale of an autoencoder, which decodes samples.

    Pictures are encoded here. Stored latents are z already; stored moments get the autoencoder's shift and scale.

    Attributes:
        autoencoder: with its weights in files.
        inner: reads the data set: `Pixels` of pictures, or `Latents` or `Moments` of what was encoded before.
        shape: of z, (h, w, Z).
        posterior: of an encoded picture: "sample" draws the latent, "mode" takes its mean.
        decodes_at_once: rows that a device decodes at once, see `parts`; pictures are encoded so, too.
        rounding: of decoded pixels, see `to_pixels`.
    """

    autoencoder: Autoencoder
    inner: Pixels | Latents | Moments
    shape: tuple[int, ...]
    posterior: str = "sample"
    decodes_at_once: int = 8
    rounding: str = "sit"

    name: ClassVar[str] = "z"
    pictures: ClassVar[bool] = True

    @property
    def encodes(self) -> bool:
        """Whether it runs the encoder: for pictures."""
        return isinstance(self.inner, Pixels)

    @property
    def factor(self) -> int:
        """Pixels of a picture for one of z, in height and in width."""
        return self.autoencoder.arch.factor

    @property
    def at_once(self) -> int:
        """Rows that a device encodes at once; 0, all of them, where no network encodes."""
        return self.decodes_at_once if self.encodes else 0

    @property
    def reads(self) -> tuple[str, ...]:
        """See `Encoder`."""
        return self.inner.reads

    @property
    def example(self) -> tuple[int, ...]:
        """The shape of what it reads of an example; moments have twice the channels."""
        return self.inner.shape

    @property
    def sources(self) -> dict[str, Path]:
        """Where the weights come from."""
        return {"autoencoder": Path(self.autoencoder.path)}

    @property
    def halves(self) -> tuple[str, ...]:
        """The parts of the autoencoder that are needed: data that were encoded before need no encoder."""
        return HALVES if self.encodes else ("decoder",)

    def weights(self) -> dict[str, Any]:
        """The weights of `halves`, which stay in their files until they are placed.

        Raises:
            UserError: if they can't be read.
        """
        return self.autoencoder.weights(self.halves)

    def abstract_weights(self) -> dict[str, Any]:
        """The weights as shapes and dtypes; nothing is read."""
        return self.autoencoder.abstract_weights(self.halves)

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes on what is stored.

        Raises:
            UserError: if the data set lacks it.
        """
        return self.inner.prepare(arrays, captions)

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> Float[Array, "B *S C"]:
        """z of pictures, of stored latents or of stored moments."""
        if not self.encodes:
            return self.inner.encode((), batch, keys)
        what = self.autoencoder.what
        mean, deviation = self.moments(weights, batch["image"])
        if self.posterior == "sample":
            mean += deviation * jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
        return (mean - what.shift) * what.scale

    def moments(self, weights: Any, images: Array) -> tuple[Float[Array, "B h w Z"], Float[Array, "B h w Z"]]:
        """Mean and standard deviation of the unscaled latents of pictures, uint8 or floats from -1 to 1."""
        mean, logvar = jnp.split(self.autoencoder.moments(weights, to_network(images)), 2, axis=-1)
        return mean, jnp.exp(jnp.clip(logvar, *LOG_VARIANCES) / 2)

    def decode(self, weights: Any, z: Float[Array, "B *S C"]) -> UInt8[Array, "B *S2 C2"]:
        """Pictures of z."""
        what = self.autoencoder.what
        known = jnp.nan_to_num(z.astype(jnp.float32), posinf=0.0, neginf=0.0)
        pixels = self.autoencoder.pixels(weights, known / what.scale + what.shift)
        return to_pixels(jnp.nan_to_num(pixels, posinf=0.0, neginf=0.0), self.rounding)


def make(config: configs.Config, name: str) -> AutoencoderCodec:
    """The codec of `config.autoencoder.path` for pictures ("pixels"), "latents" or "moments".

    Raises:
        UserError: if there is no autoencoder, or it does not fit the data.
    """
    own, data = config.autoencoder, config.data
    opened = open_autoencoder(expanded(own.path, "config.autoencoder.path"), own.precision)
    arch, shape = opened.arch, shape_of(data)
    if arch.outputs not in configs.PICTURE_CHANNELS:
        raise UserError(f"{opened.path} decodes to {arch.outputs} channels, which are no picture: 1 or 3 are")
    if len(shape) != 3:
        raise UserError(f"config.data.shape = {shape} is no picture (H, W, C), which config.autoencoder.path needs")
    if name in STORED:
        if shape[-1] != arch.latent:
            raise UserError(
                f"config.data says that stored latents have {shape[-1]} channels, and those of the autoencoder "
                f"{opened.path} have {arch.latent}"
            )
        what, inner = opened.what, Latents(shape)
        if name == "moments":
            inner = Moments(shape, what.scale, data.moments, what.shift)
        return AutoencoderCodec(opened, inner, shape, own.posterior, own.batch)
    height, width, channels = shape
    if channels != arch.inputs:
        raise UserError(
            f"config.data says that pictures have {channels} channels, and the autoencoder {opened.path} encodes "
            f"{arch.inputs}"
        )
    if height % arch.factor or width % arch.factor:
        key = "shape" if data.shape else "image_size"
        raise UserError(
            f"config.data.{key} = {data.shape or data.image_size} is no multiple of {arch.factor} pixels, of which the "
            f"autoencoder {opened.path} makes one"
        )
    small = (height // arch.factor, width // arch.factor, arch.latent)
    return AutoencoderCodec(opened, Pixels(shape), small, own.posterior, own.batch)
