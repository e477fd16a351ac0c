"""DINOv2 (Oquab et al. 2023) as the embedder of FD-DINOv2 (Stein et al. 2023): the class token behind the last norm.

FD-DINOv2 is of L/14 without registers; other sizes are read too, and named. Pictures are squashed to 224 x 224 pixels
by Pillow's bicubic on bytes, whatever their shape, as in dgm-eval; EDM2 resizes floats, which makes little difference.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
from jaxtyping import Array, Float, UInt8

from rfjax import config as configs
from rfjax.encoders.embedding.clip import network_name
from rfjax.encoders.embedding.clip_files import file_and_digest, named
from rfjax.encoders.embedding.clip_pixels import pixels, said, said_colours
from rfjax.encoders.vision import loading
from rfjax.encoders.vision.families import Colour, Description
from rfjax.encoders.vision.vit import ViT
from rfjax.errors import UserError

FAMILY = "dinov2"
SIZE = 224  # pixels of a side
FIT = "squash"


@dataclasses.dataclass(frozen=True)
class DinoEmbedder:
    """A DINOv2 as an `Embedder`.

    Attributes:
        name: of the network, with "@" and what is done to a picture: `dinov2-l14@squash224`.
        path: the folder of the weights.
        what: the weights describe.
        colours: mean and standard deviation that pixels are normalised by.
        rule: by which the table of positions is resampled: that of DINOv2's own code, which FD-DINOv2 runs.
        precision: of matrix products, as jax.default_matmul_precision.
    """

    name: str
    path: str
    what: Description
    colours: tuple[Colour, Colour]
    rule: str = "offset"
    precision: str = "highest"

    @property
    def outputs(self) -> dict[str, int]:
        """`cls`, the class token."""
        return {"cls": self.what.arch.width}

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return (SIZE // self.what.arch.patch,) * 2

    def about(self) -> dict[str, str]:
        """See `Embedder`; reads the whole file for its hash."""
        arch = self.what.arch
        network = (
            f"DINOv2 without registers, {arch.depth} blocks of width {arch.width}, patches of {arch.patch} pixels, "
            f"positions by the rule `{self.rule}`"
        )
        how = {"resize": said(FIT, SIZE), "scaling": said_colours(self.colours)}
        return {"network": network, **file_and_digest(Path(self.path)), **how}

    def weights(self) -> dict[str, Any]:
        """Reads the weights, in float32.

        Raises:
            UserError: if the files are missing, broken, or of another network than before.
        """
        source = loading.open_source(Path(self.path))
        with source.tensors:
            if source.what != self.what:
                raise UserError(f"{self.path} has changed: it holds another DINOv2 than before")
            return loading.read_weights(source, self.grid, self.rule)

    def embed(self, weights: Any, images: UInt8[Array, "B H W 3"]) -> dict[str, Float[Array, "B _"]]:
        """The class tokens of pictures."""
        with jax.default_matmul_precision(self.precision):
            x = pixels(images, FIT, SIZE, self.colours)
            return {"cls": ViT(self.what.arch, self.grid, whole=True).apply({"params": weights}, x)[:, 0]}


def make(config: configs.Config) -> DinoEmbedder:
    """The embedder of `config.evaluate.dinov2`.

    Raises:
        UserError: if the config names none, or the path holds another network.
    """
    path = named(config.evaluate.dinov2, "evaluate.dinov2", "the folder of DINOv2 L/14 without registers")
    what = loading.read_description(path)
    if what.family != FAMILY:
        raise UserError(
            f"{path} holds a {what.family}, and FD-DINOv2 needs DINOv2 without registers (model_type {FAMILY})"
        )
    if SIZE % what.arch.patch:
        raise UserError(f"{path} has patches of {what.arch.patch} pixels, which do not divide {SIZE}")
    return DinoEmbedder(f"dinov2-{network_name(what)}@{FIT}{SIZE}", str(path), what, loading.colours(path, FAMILY))
