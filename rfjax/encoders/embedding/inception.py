"""FID's Inception-v3 as an embedder, under the three protocols by which published numbers see a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from rfjax import config as configs
from rfjax.encoders.embedding import sha256
from rfjax.encoders.embedding.inception_names import CLASSES, FEATURES, read_inception
from rfjax.encoders.embedding.inception_network import SIDE, SPATIAL_CHANNELS, arranged, inception
from rfjax.encoders.embedding.reading import located
from rfjax.encoders.embedding.resizing import resize
from rfjax.errors import UserError, nearest

KEY = "config.evaluate.inception"
WANTED = "torch-fidelity's or pytorch-fid's .pth, TensorFlow's classify_image_graph_def.pb, or .safetensors made of one"
SPATIAL_SIDE = 17  # of the output "spatial"
MOST = 255  # of a byte


class Protocol(NamedTuple):
    """How a picture becomes the network's input.

    Attributes:
        rule: of `resizing.RULES`.
        centre, spread: the input is (x - centre) / spread.
        resize: in words.
    """

    rule: str
    centre: float
    spread: float
    resize: str


PROTOCOLS = {
    "adm": Protocol("tf1", 128, 128, "TensorFlow 1's bilinear to 299 x 299 (position j W / 299, no antialias)"),
    "pytorch-fid": Protocol("bilinear", 127.5, 127.5, "half-pixel bilinear to 299 x 299, no antialias"),
    "clean": Protocol("bicubic", 128, 128, "antialiased bicubic to 299 x 299 in floats, clipped to 0..255"),
}


@dataclass(frozen=True)
class Inception:
    """The network and a protocol.

    Attributes:
        path: of the file of weights.
        protocol: `adm`, as ADM's evaluator and torch-fidelity; `pytorch-fid`; or `clean`, as clean-fid.
    """

    path: str
    protocol: str = "adm"

    outputs: ClassVar[Mapping[str, int]] = {
        "pool": FEATURES,
        "spatial": SPATIAL_SIDE * SPATIAL_SIDE * SPATIAL_CHANNELS,
        "logits": CLASSES,
    }

    @property
    def name(self) -> str:
        """See `Embedder`."""
        return f"inception@{self.protocol}"

    def about(self) -> dict[str, str]:
        """See `Embedder`."""
        protocol = PROTOCOLS[self.protocol]
        return {
            "network": "Inception-v3 of FID (TensorFlow, 2015-12-05)",
            "file": Path(self.path).name,
            "sha256": sha256(Path(self.path)),
            "resize": protocol.resize,
            "scaling": f"(x - {protocol.centre:g}) / {protocol.spread:g}",
        }

    def weights(self) -> dict[str, Any]:
        """The folded weights, float32.

        Raises:
            UserError: if the file is damaged, or holds another network.
        """
        return arranged(read_inception(Path(self.path)))

    def embed(self, weights: Any, images: UInt8[Array, "B H W 3"]) -> dict[str, Float[Array, "B F"]]:
        """The outputs of pictures of any one size, whose sides need not be equal.

        On a processor, 8 at a time are faster than 32, whose activations leave its caches (benchmarks/embedding.py).
        """
        return inception(weights, self.pixels(images))

    def pixels(self, images: UInt8[Array, "B H W 3"]) -> Float[Array, "B 299 299 3"]:
        """What the network sees."""
        protocol = PROTOCOLS[self.protocol]
        x = resize(images, SIDE, protocol.rule)
        if protocol.rule == "bicubic":
            x = jnp.clip(x, 0, MOST)
        return (x - protocol.centre) / protocol.spread


def make(config: configs.Config) -> Inception:
    """The embedder of `config.evaluate.inception` and `config.evaluate.protocol`.

    Raises:
        UserError: if there is no such file or protocol.
    """
    own = config.evaluate
    if own.protocol not in PROTOCOLS:
        raise UserError(
            f"config.evaluate.protocol = '{own.protocol}' is no protocol of Inception{nearest(own.protocol, PROTOCOLS)}"
        )
    return Inception(str(located(own.inception, KEY, WANTED)), own.protocol)
