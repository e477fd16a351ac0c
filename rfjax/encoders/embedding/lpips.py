"""LPIPS 0.1 (Zhang et al. 2018): a distance of two pictures by the features of VGG16 or AlexNet, with learnt weights.

The backbone is torchvision's file, the heads are those of the package lpips; both lie in `config.evaluate.lpips`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from rfjax import config as configs
from rfjax.encoders.embedding import sha256
from rfjax.encoders.embedding.convolution import convolve, max_pool, relu
from rfjax.encoders.embedding.reading import located, read_leaves
from rfjax.errors import UserError
from rfjax.tensors.layout import conv, same

KEY = "config.evaluate.lpips"
WANTED = "a folder with vgg16*.pth or alexnet*.pth of torchvision, and vgg.pth or alex.pth of the package lpips"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of the input, which is from -1 to 1
TINY = 1e-10  # is added to a feature vector's length
HALF = 127.5
CLASSIFIER = (r"classifier\.",)  # of the backbones' files, which is not needed
SUM_TOLERANCE = 1e-3  # the sums below have three decimals


class Conv(NamedTuple):
    """A convolution with ReLU behind it.

    Attributes:
        number: of torchvision's `features`. inputs, outputs: channels.
        size, stride, padding: of the kernel.
        pool: size of the max pool before it, of stride 2; 0: none.
        tap: whether its output is a feature.
    """

    number: int
    inputs: int
    outputs: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    tap: bool = False


class Backbone(NamedTuple):
    """A network of features.

    Attributes:
        files: pattern of the backbone's files. heads: name of the heads' file.
        sums: of each head's weights in version 0.1, with which version 0.0 and others are told apart.
        least: pixels of a picture's side at least.
        convs: in order.
    """

    files: str
    heads: str
    sums: tuple[float, ...]
    least: int
    convs: tuple[Conv, ...]

    @property
    def taps(self) -> tuple[int, ...]:
        """Channels of the features."""
        return tuple(one.outputs for one in self.convs if one.tap)


BACKBONES = {
    "vgg": Backbone(
        "vgg16*.pth",
        "vgg.pth",
        (6.926, 8.858, 17.515, 51.521, 47.035),
        16,
        (
            Conv(0, 3, 64),
            Conv(2, 64, 64, tap=True),
            Conv(5, 64, 128, pool=2),
            Conv(7, 128, 128, tap=True),
            Conv(10, 128, 256, pool=2),
            Conv(12, 256, 256),
            Conv(14, 256, 256, tap=True),
            Conv(17, 256, 512, pool=2),
            Conv(19, 512, 512),
            Conv(21, 512, 512, tap=True),
            Conv(24, 512, 512, pool=2),
            Conv(26, 512, 512),
            Conv(28, 512, 512, tap=True),
        ),
    ),
    "alex": Backbone(
        "alexnet*.pth",
        "alex.pth",
        (2.350, 16.143, 39.268, 27.197, 20.317),
        31,
        (
            Conv(0, 3, 64, size=11, stride=4, padding=2, tap=True),
            Conv(3, 64, 192, size=5, padding=2, pool=3, tap=True),
            Conv(6, 192, 384, pool=3, tap=True),
            Conv(8, 384, 256, tap=True),
            Conv(10, 256, 256, tap=True),
        ),
    ),
}


@dataclass(frozen=True)
class Lpips:
    """The distance with one backbone.

    Attributes:
        kind: `vgg` or `alex`.
        backbone, heads: the files.
    """

    kind: str
    backbone: str
    heads: str

    @property
    def name(self) -> str:
        """As records write it."""
        return f"lpips-{self.kind}@0.1"

    def about(self) -> dict[str, str]:
        """What a record says beside a number, as an embedder's."""
        files = (Path(self.backbone), Path(self.heads))
        return {
            "network": f"LPIPS 0.1 with {'VGG16' if self.kind == 'vgg' else 'AlexNet'}",
            "file": " and ".join(file.name for file in files),
            "sha256": " and ".join(map(sha256, files)),
            "resize": "none",
            "scaling": "x / 127.5 - 1, then LPIPS's own shift and scale",
        }

    def weights(self) -> dict[str, Any]:
        """The backbone's kernels and biases, and the heads' weights, float32.

        Raises:
            UserError: if a file is damaged, or holds another network or another version.
        """
        own, layout = BACKBONES[self.kind], {}
        for one in own.convs:
            name, size = f"features.{one.number}", (one.size, one.size)
            layout[f"{one.number}/kernel"] = (conv(f"{name}.weight", size, one.inputs, one.outputs),)
            layout[f"{one.number}/bias"] = (same(f"{name}.bias", (one.outputs,)),)
        leaves = read_leaves(Path(self.backbone), layout, f"take torchvision's {own.files}", CLASSIFIER)
        names = {str(i): (same(f"lin{i}.model.1.weight", (1, n, 1, 1)),) for i, n in enumerate(own.taps)}
        found = read_leaves(Path(self.heads), names, f"take weights/v0.1/{own.heads} of the package lpips")
        heads = [found[name].reshape(-1) for name in names]
        sums = tuple(float(head.sum()) for head in heads)
        if not np.allclose(sums, own.sums, rtol=0, atol=SUM_TOLERANCE):
            raise UserError(
                f"{self.heads} has other weights than LPIPS 0.1 with {self.kind}: its heads sum to "
                f"{', '.join(f'{value:.3f}' for value in sums)}, and should to {', '.join(map(str, own.sums))}"
            )
        convs = {f"{one.number}": {part: leaves[f"{one.number}/{part}"] for part in ("kernel", "bias")}
                 for one in own.convs}  # fmt: skip
        return {"convs": convs, "heads": heads}

    def distance(self, weights: Any, a: UInt8[Array, "B H W 3"], b: UInt8[Array, "B H W 3"]) -> Float[Array, "B"]:
        """The distance of each picture of `a` to that of `b`, 0 for equal ones.

        Raises:
            UserError: if the pictures are smaller than the backbone can see.
        """
        if min(a.shape[1:3]) < (least := BACKBONES[self.kind].least):
            raise UserError(
                f"LPIPS with {self.kind} needs pictures of {least} pixels a side at least, and these have "
                f"{a.shape[1]} x {a.shape[2]}"
            )
        total = jnp.zeros(len(a), jnp.float32)
        for feature, head in zip(
            self._features(weights["convs"], jnp.concatenate([a, b])), weights["heads"], strict=True
        ):
            length = jnp.sqrt(jnp.square(feature).sum(-1, keepdims=True))
            first, second = jnp.split(feature / (length + TINY), 2)
            total += (jnp.square(first - second) * head).sum(-1).mean((1, 2))
        return total

    def _features(self, weights: Mapping[str, Any], images: Array) -> list[Array]:
        x = images.astype(jnp.float32) / HALF - 1
        x = (x - np.array(SHIFT, np.float32)) / np.array(SCALE, np.float32)
        found = []
        for one in BACKBONES[self.kind].convs:
            x = max_pool(x, one.pool, 2) if one.pool else x
            padding = ((one.padding, one.padding),) * 2
            x = relu(convolve(weights[f"{one.number}"], x, one.stride, padding))
            if one.tap:
                found.append(x)
        return found


def make(config: configs.Config) -> Lpips:
    """LPIPS with the files of `config.evaluate.lpips`.

    Raises:
        UserError: if there are none, or several.
    """
    folder = located(config.evaluate.lpips, KEY, WANTED)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: {KEY} must name {WANTED}")
    pairs = []
    for kind, own in BACKBONES.items():
        pairs += [Lpips(kind, str(found), str(folder / own.heads)) for found in sorted(folder.glob(own.files))
                  if (folder / own.heads).is_file()]  # fmt: skip
    if not pairs:
        raise UserError(f"{folder} lacks a backbone or its heads: {KEY} must name {WANTED}")
    if len(pairs) > 1:
        names = ", ".join(Path(pair.backbone).name for pair in pairs)
        raise UserError(f"{folder} holds several backbones with their heads ({names}): leave one of them there")
    return pairs[0]
