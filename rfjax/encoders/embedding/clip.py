"""CLIP (Radford et al. 2021) as an embedder of pictures and texts: L/14, L/14-336, H/14, and the raters built on H/14.

One network serves four names of `EMBEDDERS`, which differ in files and in what is done to a picture. Hugging Face's
folders and open_clip's files are read. Texts become tokens as transformers makes them; open_clip's own tokenizer mends
dirty text before that (ftfy, and HTML's entities twice), so its numbers differ for such text alone.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rfjax import config as configs
from rfjax.encoders.embedding.clip_files import file_and_digest, named, open_files, settings_of
from rfjax.encoders.embedding.clip_pixels import pixels, said, said_colours
from rfjax.encoders.language.clip import PROJECTION, Clip, ClipText, read_clip
from rfjax.encoders.language.tokens import Tokenizer
from rfjax.encoders.language.tower import Tower
from rfjax.encoders.vision import loading
from rfjax.encoders.vision.families import Colour, Description, describe
from rfjax.encoders.vision.vit import ViT
from rfjax.errors import UserError

VISUAL = "visual_projection.weight"
SCALE = "logit_scale"
RULE = "bicubic"  # of positions: any, as the table is of this grid already
KIND = "clip_l"  # of tokens.KINDS; how a text is filled up does not matter, as no token sees those behind it
TOKENIZER = "tokenizer"  # a folder beside the weights, if the tokenizer does not lie among them
USUAL = 224  # pixels of a side, which a name leaves out
LETTERS = {(384, 12): "s", (768, 12): "b", (1024, 24): "l", (1280, 32): "h", (1408, 40): "g", (1536, 40): "g",
           (1664, 48): "bigg"}  # fmt: skip
RATERS = "h14"  # the network of PickScore and HPS
HPS = re.compile(r"HPS_v(\d+(?:\.\d+)?)", re.IGNORECASE)  # which version, by the published files' names


@dataclasses.dataclass(frozen=True)
class ClipEmbedder:
    """A CLIP as a `TextEmbedder`.

    Attributes:
        name: of the network, with "@" and what is done to a picture: `clip-l14@pil224`.
        path: the folder or the file of the weights.
        vision: the tower of pictures, with its last norm.
        text: the tower of texts.
        tokenizer: that lies beside the weights.
        fit: how a picture becomes square, of `clip_pixels.FITS`.
        colours: mean and standard deviation that pixels are normalised by.
        scale: what multiplies a cosine.
        precision: of matrix products, as jax.default_matmul_precision; others than "highest" change the third digit.
    """

    name: str
    path: str
    vision: Description
    text: Clip
    tokenizer: Tokenizer
    fit: str
    colours: tuple[Colour, Colour]
    scale: float = 1.0
    precision: str = "highest"

    @property
    def outputs(self) -> dict[str, int]:
        """`projected`, into the space of texts, and `pooled` before it: the class token behind the last norm."""
        return {"projected": self.text.projected, "pooled": self.vision.arch.width}

    @property
    def size(self) -> int:
        """A side of the network's input in pixels."""
        return self.vision.side * self.vision.arch.patch

    @property
    def _network(self) -> ViT:
        return ViT(self.vision.arch, (self.vision.side, self.vision.side), whole=True)

    def about(self) -> dict[str, str]:
        """See `Embedder`; reads the whole file for its hash."""
        arch = self.vision.arch
        network = (
            f"CLIP, {arch.depth} blocks of width {arch.width}, patches of {arch.patch} pixels, {arch.activation}, into "
            f"{self.text.projected} values; {self.text.positions} tokens of text"
        )
        how = {"resize": said(self.fit, self.size), "scaling": said_colours(self.colours)}
        return {"network": network, **file_and_digest(Path(self.path)), **how}

    def weights(self) -> dict[str, Any]:
        """Reads the weights of both towers, in float32.

        Raises:
            UserError: if the files are missing, broken, or of another network than before.
        """
        with open_files(Path(self.path)) as tensors:
            source = loading.source_of(self.vision, tensors)
            wanted = (self.text.projected, self.vision.arch.width)
            _check_projection(source, VISUAL, wanted)
            _check_projection(source, PROJECTION, (self.text.projected, self.text.width))
            text = Tower(self.path, "clip", self.text).weights_of(tensors)
            return {
                "vision": loading.read_weights(source, (self.vision.side, self.vision.side), RULE),
                "projection": np.ascontiguousarray(tensors.read(VISUAL).astype(np.float32).T),
                "text": jax.tree.map(lambda leaf: leaf if isinstance(leaf, np.ndarray) else leaf.read(), text),
            }

    def embed(self, weights: Any, images: UInt8[Array, "B H W 3"]) -> dict[str, Float[Array, "B _"]]:
        """The vectors of pictures, none of them normalised."""
        with jax.default_matmul_precision(self.precision):
            x = pixels(images, self.fit, self.size, self.colours)
            pooled = self._network.apply({"params": weights["vision"]}, x)[:, 0]
            return {"projected": pooled @ weights["projection"], "pooled": pooled}

    def tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenises; of a long text the beginning is kept, and the end token as the last.

        Raises:
            UserError: if there is no tokenizer, or it is of another network.
        """
        self.tokenizer.load(self.text.vocabulary)
        return {"ids": self.tokenizer(texts).ids}

    def embed_text(self, weights: Any, tokens: Mapping[str, Array]) -> Float[Array, "B F"]:
        """The vectors of texts, projected, not normalised."""
        with jax.default_matmul_precision(self.precision):
            return ClipText(self.text).apply({"params": weights["text"]}, jnp.asarray(tokens["ids"])).pooled


def _check_projection(source: loading.Source, name: str, wanted: tuple[int, int]) -> None:
    where = source.tensors.source
    if name not in source.tensors.names:
        raise UserError(f"{where} lacks {name}, so it is no whole CLIP: take the one with both towers")
    if (found := source.tensors.shape(name)) != wanted:
        raise UserError(f"{where} has a {name} of the shape {found}, and its description says {wanted}")


def open_embedder(
    path: Path, *, fit: str = "pil", texts: bool = True, called: str = "", scale: float | None = None
) -> ClipEmbedder:
    """Opens a CLIP without reading its weights.

    Args:
        path: Hugging Face's folder, one of its files of weights, or a file of open_clip.
        fit: how a picture becomes square, of `clip_pixels.FITS`.
        texts: whether texts are embedded, which need the tokenizer.
        called: a rater, in place of "clip" in the name if the network is its H/14, or before the network's name.
        scale: what multiplies a cosine; None: the exponential of the file's `logit_scale`.

    Raises:
        UserError: if the path holds no whole CLIP, or its tokenizer is missing or of another network.
    """
    settings, where = settings_of(path)
    vision = describe(settings, where)
    vision = dataclasses.replace(vision, arch=dataclasses.replace(vision.arch, final_norm=True))
    text = read_clip(settings, where)
    tokenizer = Tokenizer(str(_tokenizer_folder(path)), KIND, text.positions)
    if texts:
        tokenizer.load(text.vocabulary)
    network, size = network_name(vision), vision.side * vision.arch.patch
    name = called if called and network == RATERS else f"{called or 'clip'}-{network}"
    return ClipEmbedder(
        name=f"{name}@{fit}{size}",
        path=str(path),
        vision=vision,
        text=text,
        tokenizer=tokenizer,
        fit=fit,
        colours=loading.colours(path, "clip"),
        scale=_scale(path) if scale is None else scale,
    )


def network_name(what: Description) -> str:
    """`l14` of the published sizes, with the pixels if they are not the usual ones; `32x3p7` of others."""
    arch, size = what.arch, what.side * what.arch.patch
    letters = LETTERS.get((arch.width, arch.depth))
    known = f"{letters}{arch.patch}" if letters else f"{arch.width}x{arch.depth}p{arch.patch}"
    return known + (f"-{size}" if letters and size != USUAL and what.family == "clip" else "")


def _tokenizer_folder(path: Path) -> Path:
    """The folder of the weights, or the one in it."""
    folder = loading.folder_of(path)
    return folder / TOKENIZER if (folder / TOKENIZER).is_dir() else folder


def _scale(path: Path) -> float:
    """The factor that the network learnt for cosines."""
    with open_files(path) as tensors:
        if SCALE not in tensors.names or math.prod(tensors.shape(SCALE)) != 1:
            raise UserError(f"{tensors.source} has no number {SCALE}, by which this score is scaled")
        value = float(tensors.read(SCALE).astype(np.float64).reshape(()))
        if not abs(value) < math.log(1e6):  # CLIP's own is at most log(100)
            raise UserError(f"{tensors.source} has {SCALE} = {value}: it must be a number around log(100)")
    return math.exp(value)


def make(config: configs.Config) -> ClipEmbedder:
    """CLIP of the CLIP score and of CLIP-FID, as OpenAI prepares pictures.

    Raises:
        UserError: as `open_embedder`, or if the config names none.
    """
    path = named(config.evaluate.clip, "evaluate.clip", "the folder of CLIP L/14 with its tokenizer")
    return open_embedder(path, scale=1.0)


def make_336(config: configs.Config) -> ClipEmbedder:
    """CLIP of CMMD, as Google's code prepares pictures; it needs no tokenizer.

    Raises:
        UserError: as `open_embedder`, or if the config names none.
    """
    path = named(config.evaluate.clip336, "evaluate.clip336", "the folder of CLIP L/14 at 336 pixels")
    return open_embedder(path, fit="square", texts=False, scale=1.0)


def make_pickscore(config: configs.Config) -> ClipEmbedder:
    """PickScore (Kirstain et al. 2023): the cosine times the scale that was learnt with it.

    Raises:
        UserError: as `open_embedder`, or if the config names none.
    """
    path = named(config.evaluate.pickscore, "evaluate.pickscore", "the folder of PickScore v1 with a CLIP's tokenizer")
    return open_embedder(path, called="pickscore")


def make_hps(config: configs.Config) -> ClipEmbedder:
    """HPS v2 and v2.1 (Wu et al. 2023): the plain cosine. Pictures are resized as floats, their longer side to 224.

    Raises:
        UserError: as `open_embedder`, or if the config names none.
    """
    path = named(config.evaluate.hps, "evaluate.hps", "the file HPS_v2.1_compressed.pt, with a CLIP's tokenizer beside")
    version = HPS.match(path.name)
    return open_embedder(path, fit="pad", called=f"hps-v{version[1]}" if version else "hps", scale=1.0)
