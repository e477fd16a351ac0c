"""What each encoder stores of a batch, as one jitted program for each, so that each one's time can be told."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, Sharding
from jaxtyping import Array

from rfjax.config import Config
from rfjax.encoders import Encoder, make_codec, make_text_encoder
from rfjax.encoders.features import make_feature_encoder
from rfjax.encoders.parts import in_parts
from rfjax.errors import UserError
from rfjax.training.encode import STREAM, encoding_options, place_weights

AUTOENCODER, TEXT, FEATURES = "autoencoder", "text", "features"
FLIP_STREAM = 1  # of an example's key: 0 is for the picture as it is
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Program:
    """One encoder and what it stores.

    Attributes:
        kind: AUTOENCODER, TEXT or FEATURES.
        encoder: that runs.
        outputs: (encoder, weights, batch, keys) -> arrays by kind of file.
    """

    kind: str
    encoder: Encoder
    outputs: Callable[[Any, Any, Mapping[str, Array], Array], Arrays]

    def run(self, weights: Any, batch: Mapping[str, Array], seed: Any) -> Arrays:
        """Arrays of a batch on the devices, by kind of file."""
        return _jit(self, batch["slot"].sharding)(weights, batch, seed)


def make_programs(config: Config) -> tuple[Program, ...]:
    """The encoders that the config asks for, the codec first.

    Raises:
        UserError: if there is no such encoder, or it can't read the data set.
    """
    asked, codec = config.encode, make_codec(config)
    if asked.images != "pixels" and not config.autoencoder.path:
        raise UserError(
            f"config.encode.images = '{asked.images}' needs config.autoencoder.path; without one, set it to 'pixels'"
        )
    if asked.images == "pixels":
        if asked.flips:
            raise UserError("config.encode.flips is for latents and moments: stored pixels are mirrored when read")
        images: Callable[..., Arrays] = pixels
    else:
        images = functools.partial(
            _with_flips, flips=asked.flips, one=latents if asked.images == "latents" else moments
        )
    made = [Program(AUTOENCODER, codec, images)]
    if asked.text:
        if config.text.encoder in ("stored", "labels"):
            raise UserError(f"config.text.encoder = '{config.text.encoder}' encodes no text: set encode.text = False")
        made.append(Program(TEXT, make_text_encoder(config.text), text))
    if asked.features:
        made.append(Program(FEATURES, make_feature_encoder(asked.features, config, "encode.features"), features))
    return tuple(made)


def pixels(codec: Any, weights: Any, batch: Mapping[str, Array], keys: Array) -> Arrays:
    """The pictures themselves."""
    return {"images": batch["image"]}


def latents(codec: Any, weights: Any, batch: Mapping[str, Array], keys: Array) -> Arrays:
    """Latents as the network sees them."""
    return {"latents": codec.encode(weights, batch, keys)}


def moments(codec: Any, weights: Any, batch: Mapping[str, Array], keys: Array) -> Arrays:
    """Mean and standard deviation of the latents, unscaled."""
    mean, deviation = codec.moments(weights, batch["image"])
    return {"moments": jnp.concatenate([mean, deviation], axis=-1)}


def _with_flips(
    codec: Any, weights: Any, batch: Mapping[str, Array], keys: Array, *, one: Callable[..., Arrays], flips: bool
) -> Arrays:
    found = one(codec, weights, batch, keys)
    if flips:
        mirrored = {**batch, "image": batch["image"][..., ::-1, :]}
        own = jax.vmap(lambda key: jax.random.fold_in(key, FLIP_STREAM))(keys)
        found["flipped"] = next(iter(one(codec, weights, mirrored, own).values()))
    return found


def text(encoder: Any, weights: Any, batch: Mapping[str, Array], keys: Array) -> Arrays:
    """The text tokens and the pooled vector."""
    cond = encoder.encode(weights, batch, keys)
    return {"context": cond.context, "pooled": cond.pooled}


def features(encoder: Any, weights: Any, batch: Mapping[str, Array], keys: Array) -> Arrays:
    """Patch tokens in their rows and columns."""
    tokens = encoder.encode(weights, batch, keys)
    return {"features": tokens.reshape(len(tokens), *encoder.grid, encoder.width)}


@functools.cache
def _jit(program: Program, rows: Sharding) -> Callable[..., Arrays]:
    def run(weights: Any, batch: Any, seed: Any) -> Arrays:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), STREAM), 0)
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(batch["slot"])
        one = functools.partial(program.outputs, program.encoder)
        return in_parts(one, at_once, rows)(weights, batch, keys)

    at_once = getattr(program.encoder, "at_once", 0)
    return jax.jit(run, out_shardings=rows, compiler_options=encoding_options((program.encoder,)))


def place(programs: tuple[Program, ...], mesh: Mesh) -> tuple[Any, ...]:
    """The weights of each program on the devices."""
    return tuple(place_weights(program.encoder.weights(), mesh) for program in programs)
