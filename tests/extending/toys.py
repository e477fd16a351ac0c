"""A user's own modules, as docs/extending.md describes them: nothing here is a part of rfjax."""

from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from rfjax import flow
from rfjax.conditioning import TextConditioning
from rfjax.data import Field
from rfjax.evaluation.quantity import Quantity
from rfjax.models.backbone import Backbone, Head
from rfjax.models.blocks import Stream
from rfjax.models.stacking import Stack
from rfjax.objectives.flow_matching import FlowMatching, NoiseSample


# A data source.
@dataclass(frozen=True)
class Stripes:
    """Stripes whose number is in the caption, with an array of its own beside the picture."""

    split: str
    size: int

    @property
    def fields(self):
        return {"image": Field((self.size, self.size, 3), "uint8", flips=True), "count": Field((), "int64")}

    def __len__(self):
        return 64

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        count = 1 + (index + (self.split == "validation")) % 4
        row = (np.arange(self.size) * count // self.size % 2 * 200 + 20).astype(np.uint8)
        image = np.broadcast_to(row[:, None, None], (self.size, self.size, 3)).copy()
        return {"image": image, "count": np.int64(count), "caption": f"{count} stripes", "index": index}


def open_source(config, split):
    return Stripes(split, config.image_size)


# A frozen encoder: it runs on the mesh before the step, with weights of its own.
@dataclass(frozen=True)
class Brightness:
    """A linear function of the picture's quadrants, and the count that the data set stores."""

    name: ClassVar[str] = "features"
    reads: ClassVar[tuple[str, ...]] = ("image", "count")

    def weights(self):
        return {"kernel": np.linspace(0, 1, 12, dtype=np.float32).reshape(12, 1) * np.ones((1, 5), np.float32)}

    def prepare(self, arrays, captions):
        return {"count": arrays["count"]}

    def encode(self, weights, batch, keys):
        image = batch["image"].astype(jnp.float32) / 255
        quadrants = jnp.stack([image[:, i::2, j::2].mean((1, 2)) for i in (0, 1) for j in (0, 1)], axis=1)
        flat = quadrants.reshape(len(image), -1)
        return flat @ weights["kernel"] + batch["count"][:, None].astype(jnp.float32)


def make_encoder(config):
    return Brightness()


# An objective with two terms: flow matching, and the alignment of hidden states with the frozen features.
@dataclass(frozen=True)
class Aligned(FlowMatching):
    weight: float

    terms: ClassVar[tuple[str, ...]] = ("loss", "denoising", "alignment")
    heads: ClassVar[tuple[Head, ...]] = (Head("toy_head", 1, nn.Dense(5)),)

    def __call__(self, networks, batch, noise: NoiseSample):
        shown, target = flow.noised(noise.at, batch["z"], noise.eps)
        cond = batch["cond"].drop(noise.keep)
        prediction, heads = networks.policy.with_heads(shown, noise.at.time, cond)
        denoising = flow.squared_error(prediction, target)
        alignment = flow.squared_error(heads["toy_head"].mean(1), batch["features"])
        return {"loss": denoising + self.weight * alignment, "denoising": denoising, "alignment": alignment}


def make_objective(config):
    return Aligned(config.text.drop, config.options.get("weight", 0.5))


# A metric.
class Darkness:
    """How dark the pictures are."""

    quantities: ClassVar[tuple[Quantity, ...]] = (Quantity("darkness", "mean darkness", "lower"),)

    def init(self):
        return 0.0, 0

    def update(self, state, images, captions):
        total, count = state
        return total + (1 - images.astype(jnp.float32) / 255).mean((1, 2, 3)).sum(), count + len(captions)

    def result(self, state):
        return {"darkness": float(state[0]) / state[1]}


def make_metric(config):
    return Darkness()


# A measurement.
class Norm:
    """The norm of the weights."""

    at_end: ClassVar[str] = "last"
    from_start: ClassVar[bool] = False

    def every(self, config):
        return 0

    def run(self, context, state, at):
        import optax

        yield "norm", {"value": float(optax.global_norm(state.params))}

    def result(self, lines):
        return {"norm": lines[0][1]["value"]}


# A backbone.
class Block(nn.Module):
    spec: Any

    @nn.compact
    def __call__(self, x, y):
        stream = Stream(self.spec, name="stream")
        ada = stream.adaln(y)
        q, k, v = stream.project(x, ada)
        return stream.add_attention(x, self.spec.attend(q, k, v), ada), None


class AttentionOnly(Backbone):
    """A DiT without MLPs."""

    @nn.compact
    def __call__(self, z, t, cond: TextConditioning):
        y = self.time_vector(t) + self.pooled_vector(cond.pooled)
        x = self.run_stacks([Stack(Block, "blocks", self.depth, {})], self.image_tokens(z), y)
        return self.image(x, y, z.shape[1:])

    def forward_flops(self, inputs):
        tokens, square = self.tokens(inputs.shape), self.width**2
        block = 6 * square + tokens * 4 * square + 2 * tokens**2 * self.width
        return 2 * (self.macs_of_ends(inputs, (0, 0)) + self.depth * block)
