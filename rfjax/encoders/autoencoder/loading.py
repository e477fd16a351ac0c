"""Autoencoders in folders as diffusers writes them: config.json and diffusion_pytorch_model.safetensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jaxtyping import Array, Float

from rfjax import files, untrusted
from rfjax.encoders.autoencoder.description import Architecture, Description, describe
from rfjax.encoders.autoencoder.names import HALVES, ignored, layout, recognise
from rfjax.encoders.autoencoder.network import Decoder, Encoder
from rfjax.errors import UserError
from rfjax.tensors import transfer
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.safetensors import write_safetensors

CONFIG, PIPELINE, INNER = "config.json", "model_index.json", "vae"
MODULES = {"encoder": Encoder, "decoder": Decoder}


@dataclass(frozen=True)
class Autoencoder:
    """An autoencoder whose weights lie in files.

    Attributes:
        path: the folder of its config.json, or one of the copies of its weights there.
        what: the config describes.
        dtype: of the weights and the convolutions.
    """

    path: str
    what: Description
    dtype: str = "float32"

    @property
    def arch(self) -> Architecture:
        """The options of the network."""
        return self.what.arch

    def abstract_weights(self, halves: Sequence[str] = HALVES) -> dict[str, Any]:
        """The weights of "encoder", "decoder" or both as shapes and dtypes; nothing is read."""
        return {half: abstract_weights(self.arch, half, self.dtype) for half in halves}

    def weights(self, halves: Sequence[str] = HALVES) -> dict[str, Any]:
        """The weights, which stay in their files until they are placed (`Deferred`).

        Raises:
            UserError: if they are not there, or are not those that the config describes.
        """
        tensors = open_tensors(self.path)
        names = recognise({name: tensors.shape(name) for name in tensors.names}, tensors.source)
        found = {}
        for half, shapes in self.abstract_weights(halves).items():
            flat = traverse_util.flatten_dict(shapes, sep="/")
            pieces = layout(self.arch, half, names)
            leaves = transfer.defer(tensors, pieces, flat, self.dtype, ignored(names, half))
            found[half] = traverse_util.unflatten_dict(leaves, sep="/")
        return found

    def moments(self, weights: Mapping[str, Any], pixels: Float[Array, "B H W C"]) -> Float[Array, "B h w Z2"]:
        """Mean and log variance, one behind the other, of the latents of pictures from -1 to 1; float32."""
        network = Encoder(self.arch, jnp.dtype(self.dtype))
        return network.apply({"params": weights["encoder"]}, pixels).astype(jnp.float32)

    def pixels(self, weights: Mapping[str, Any], latent: Float[Array, "B h w Z"]) -> Float[Array, "B H W C"]:
        """Pictures, which lie about -1 to 1, of unscaled latents; float32."""
        network = Decoder(self.arch, jnp.dtype(self.dtype))
        return network.apply({"params": weights["decoder"]}, latent).astype(jnp.float32)


def abstract_weights(arch: Architecture, half: str, dtype: Any = jnp.float32) -> dict[str, Any]:
    """The weights of the encoder or the decoder as shapes and dtypes."""
    channels = arch.inputs if half == "encoder" else arch.latent
    example = jax.ShapeDtypeStruct((1, arch.factor, arch.factor, channels), jnp.float32)
    tree = jax.eval_shape(MODULES[half](arch).init, jax.random.key(0), example)["params"]
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.dtype(dtype)), tree)


def open_autoencoder(path: str | Path, dtype: str = "float32") -> Autoencoder:
    """Opens an autoencoder by its config.json, without a look at its weights.

    Args:
        path: the folder of an AutoencoderKL; or of a pipeline that has one in vae/; or a file of weights beside its
            config.json, to choose one of several copies.
        dtype: of the weights and the convolutions.

    Raises:
        UserError: if there is none, or one that this network can't follow.
    """
    folder = Path(path)
    if not folder.exists():
        raise UserError(f"there is no {folder}: config.autoencoder.path must name the folder of an autoencoder")
    if folder.is_dir() and not _described(folder) and (folder / INNER).is_dir():
        folder = folder / INNER
    where = (folder if folder.is_dir() else folder.parent) / CONFIG
    settings = untrusted.read_json(where, fix="take the config.json that came with the weights")
    if settings is None:
        raise UserError(
            f"{where.parent} has no {CONFIG}: config.autoencoder.path must name the folder of an autoencoder, or of a "
            f"pipeline that has one in {INNER}/"
        )
    return Autoencoder(str(folder), describe(settings, str(where)), dtype)


def _described(folder: Path) -> bool:
    """Whether the folder's own config.json is an autoencoder's: a pipeline's folder has a model_index.json instead."""
    return (folder / CONFIG).exists() and not (folder / PIPELINE).exists()


def write(folder: str | Path, what: Description, weights: Mapping[str, Any]) -> Path:
    """Writes an autoencoder as diffusers reads it: config.json and diffusion_pytorch_model.safetensors.

    Args:
        folder: is made; an autoencoder in it is replaced.
        what: its config.
        weights: {"encoder": ..., "decoder": ...}, arrays.

    Returns:
        The file of the weights.

    Raises:
        UserError: if the folder holds other weights.
        ValueError: if the weights are not those of the architecture.
    """
    folder = Path(folder)
    pieces = {f"{half}/{path}": piece for half in HALVES for path, piece in layout(what.arch, half).items()}
    leaves = traverse_util.flatten_dict(dict(weights), sep="/")
    if different := sorted(set(pieces) ^ set(leaves)):
        raise ValueError(f"the weights are not those of this architecture: {different[:3]}")
    folder.mkdir(parents=True, exist_ok=True)
    written = write_safetensors(folder, transfer.dump(leaves, pieces), transfer.specs(leaves, pieces))
    files.write(folder / CONFIG, json.dumps(what.to_plain(), indent=2) + "\n")
    return written
