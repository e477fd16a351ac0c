"""The encoder of features that a published Vision Transformer makes: pictures in, patch tokens out."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax.encoders.codec import shape_of
from rfjax.encoders.vision import loading
from rfjax.encoders.vision.families import Colour, Description
from rfjax.encoders.vision.resampling import RULES, resize_matrix
from rfjax.encoders.vision.vit import ViT
from rfjax.errors import UserError, nearest

TOKEN = 16  # pixels of a picture along a side of a token, for every encoder
LEAST = 16  # tokens along a picture's shorter side, at least: those of 224 pixels in patches of 14
LATENT = 8  # pixels along a side of a latent pixel, of every autoencoder that SD3, SiT and REPA use
RESIZE = "bicubic"  # of pictures, as REPA's code: torch's, without antialias
POSITIONS = "antialias"  # of tables, as REPA's code by timm


@dataclass(frozen=True)
class VisionEncoder:
    """A published Vision Transformer as a `FeatureEncoder`.

    Attributes:
        name: of its output in the batch.
        path: the folder or file of its weights.
        what: the weights describe.
        image: (H, W, C) of the pictures, for the count of FLOPs; others are encoded too, on the same grid.
        grid: rows and columns of the tokens.
        colours: mean and standard deviation that the pixels are normalised by.
        rule: by which the table of positions is resampled, of `resampling.RULES`.
        heads: as given to `open_encoder`.
        dtype: of the matrix products.
    """

    name: str
    path: str
    what: Description
    image: tuple[int, ...]
    grid: tuple[int, int]
    colours: tuple[Colour, Colour]
    rule: str = POSITIONS
    heads: int = 0
    dtype: str = "float32"

    reads: ClassVar[tuple[str, ...]] = ("image",)

    @property
    def width(self) -> int:
        """Z."""
        return self.what.arch.width

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input in pixels."""
        return self.grid[0] * self.what.arch.patch, self.grid[1] * self.what.arch.patch

    @property
    def flops(self) -> int:
        """Of a picture, its resizing included: two for a multiplication and its addition."""
        (height, width, channels), (rows, columns) = self.image, self.size
        resize = (height != rows) * rows * height * width + (width != columns) * rows * columns * width
        return self.what.arch.flops(self.grid) + 2 * resize * channels

    def abstract_weights(self) -> dict[str, Any]:
        """The weights as shapes and dtypes, without a look at the files."""
        return loading.abstract_weights(self.what.arch, self.grid)

    def weights(self) -> dict[str, Any]:
        """Reads the weights, in float32.

        Raises:
            UserError: if there are none, the files have changed and hold something else, or they can't be read.
        """
        if self.path.endswith(loading.CONFIG):
            raise UserError(f"{self.path} describes an encoder without its weights: name the folder that holds both")
        source = loading.open_source(Path(self.path), self.heads)
        with source.tensors:
            if source.what != self.what:
                raise UserError(f"{self.path} has changed: it holds another encoder than before")
            return loading.read_weights(source, self.grid, self.rule)

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes the pictures on as bytes.

        Raises:
            UserError: if the data set has none.
        """
        if "image" not in arrays:
            raise UserError(
                f"vision@{self.path} encodes pictures, and the data set has {', '.join(arrays) or 'no arrays'}: "
                "take a data set with the field 'image', or store the features beside the latents"
            )
        return {"image": arrays["image"]}

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Any) -> Float[Array, "B N Z"]:
        """The patch tokens of `batch["image"]`, uint8 or floats from 0 to 1, (B, H, W, 1 or 3), row by row."""
        return ViT(self.what.arch, self.grid, jnp.dtype(self.dtype)).apply(
            {"params": weights}, self.pixels(batch["image"])
        )

    def pixels(self, images: Array) -> Float[Array, "B h w 3"]:
        """What the network sees: of its size, normalised, with grey pictures as three equal channels.

        Some of REPA's encoders are resized first and some normalised first: that is the same, as the rows of the
        matrices sum to 1 and nothing is clipped.
        """
        x = images.astype(jnp.float32) / 255 if images.dtype == jnp.uint8 else images.astype(jnp.float32)
        _, height, width, _ = x.shape
        if height != self.size[0]:
            rows = resize_matrix(self.size[0], height, RESIZE).astype(np.float32)
            x = jnp.einsum("mh,bhwc->bmwc", rows, x, precision="highest")
        if width != self.size[1]:
            columns = resize_matrix(self.size[1], width, RESIZE).astype(np.float32)
            x = jnp.einsum("nw,bmwc->bmnc", columns, x, precision="highest")
        mean, std = (np.array(colour, np.float32) for colour in self.colours)
        return (x - mean) / std


def tokens_of(height: int, width: int, side: int = 0) -> tuple[int, int]:
    """Rows and columns of tokens of a picture, by REPA's rule.

    A token stands for 16 pixels of the picture: 256 x 256 is 16 x 16 tokens and 512 x 512 is 32 x 32, as REPA's 224
    and 448 pixels in patches of 14, or 256 in patches of 16. A smaller picture is enlarged to 16 tokens along its
    shorter side, because the encoders were trained on objects that fill as many.

    Args:
        height: of the picture in pixels.
        width: of the picture in pixels.
        side: tokens along the shorter side; 0: by the rule.
    """
    short = min(height, width)
    side = side or max(short // TOKEN, LEAST)
    return height * side // short, width * side // short


def open_encoder(
    path: str | Path,
    image: tuple[int, ...],
    *,
    name: str = "",
    side: int = 0,
    rule: str = POSITIONS,
    heads: int = 0,
    dtype: str = "float32",
) -> VisionEncoder:
    """Opens a published encoder for pictures of a size, without reading its weights.

    Args:
        path: a Hugging Face folder with config.json and safetensors (DINO, DINOv2, DINOv3, MAE, I-JEPA, CLIP, SigLIP),
            or a torch file of MoCo v3. The config.json alone makes an encoder without weights, for a plan.
        image: (H, W, C) of the pictures, with C = 1 or 3.
        name: of its output; empty: "features:" and the path.
        side: tokens along the shorter side; 0: REPA's rule, see `tokens_of`.
        rule: by which the table of positions is resampled: `antialias` as REPA does, `bicubic` as transformers does
            for most, `offset` as DINOv2's own code.
        heads: attention heads of a MoCo v3 file whose width was not published.
        dtype: of the matrix products.

    Raises:
        UserError: if the path holds no such encoder, or the pictures are neither grey nor coloured.
    """
    if len(image) != 3 or image[2] not in (1, 3):
        raise UserError(f"vision@{path} encodes pictures (H, W, 1 or 3), and an example is {image}")
    if rule not in RULES:
        raise UserError(f"'{rule}' is no rule of resampling{nearest(rule, RULES)}")
    what = loading.read_description(Path(path), heads)
    colours = loading.colours(Path(path), what.family)
    grid = tokens_of(image[0], image[1], side)
    return VisionEncoder(name or f"features:{path}", str(path), what, image, grid, colours, rule, heads, dtype)


def make(config: configs.Config, argument: str) -> VisionEncoder:
    """The encoder `vision@PATH` or `vision@PATH#SIDE` of a config: SIDE tokens along a picture's shorter side.

    Raises:
        UserError: as `open_encoder`, or if the side is no number.
    """
    path, _, side = argument.partition("#")
    if not path or (side and not (side.isdigit() and 0 < int(side) <= 1024)):
        raise UserError(
            f"the encoder 'vision@{argument}' must be written vision@FOLDER, or vision@FOLDER#16 for 16 tokens a side"
        )
    return open_encoder(
        path,
        _picture(config.data),
        name=f"features:{argument}",
        side=int(side or 0),
        dtype=config.model.precision,
    )


def _picture(data: configs.Data) -> tuple[int, ...]:
    """The shape of a run's pictures; with latents, of those that lie beside them."""
    shape = shape_of(data)
    pictures = data.channels in (1, 3) and data.name != "latents"
    return shape if pictures else (shape[0] * LATENT, shape[1] * LATENT, 3)


def features(encoder: VisionEncoder, images: Any, weights: Any = None, batch: int = 64) -> Float[np.ndarray, "B N Z"]:
    """The patch tokens of any number of pictures, a batch at a time.

    Args:
        encoder: from `open_encoder`.
        images: uint8, or floats from 0 to 1, (B, H, W, C).
        weights: of the encoder, if they were read before; None reads them.
        batch: pictures on the devices at once.
    """
    weights = jax.device_put(encoder.weights() if weights is None else weights)
    found = []
    for start in range(0, len(images), batch):
        part = np.asarray(images[start : start + batch])
        padded = np.concatenate([part, np.repeat(part[-1:], min(batch, len(images)) - len(part), axis=0)])
        found.append(np.asarray(_jitted(encoder)(weights, padded))[: len(part)])
    return (
        np.concatenate(found) if found else np.zeros((0, encoder.grid[0] * encoder.grid[1], encoder.width), np.float32)
    )


@functools.cache
def _jitted(encoder: VisionEncoder) -> Callable[[Any, Any], Array]:
    return jax.jit(lambda weights, images: encoder.encode(weights, {"image": images}, None))
