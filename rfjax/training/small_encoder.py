"""`trained`: a small Vision Transformer that is trained in place, for alignment where there are no published weights.

`trained@masked` fills in hidden patches of the pictures, without labels (as SimMIM does, Xie et al. 2022);
`trained@labels` tells their classes. Either takes seconds on a CPU and gives the same weights each time on one machine.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax import data
from rfjax.encoders import make_codec
from rfjax.encoders.codec import to_network
from rfjax.encoders.vision.vit import Architecture, ViT
from rfjax.errors import UserError, nearest

WIDTH, DEPTH, HEADS = 64, 3, 4
EXAMPLES = 4096  # pictures, from the start of the train split
STEPS, BATCH, WARMUP, RATE = 300, 64, 20, 2e-3
HIDDEN_SHARE = 0.6  # of the patches of `masked`
SEED = 0


@dataclass(frozen=True)
class SmallEncoder:
    """A frozen encoder, trained when its weights are asked for.

    Attributes:
        data: the data set.
        method: of METHODS.
        grid: rows and columns of the tokens.
        patch: side of a patch in pixels.
    """

    data: configs.Data
    method: str
    grid: tuple[int, int]
    patch: int

    reads: ClassVar[tuple[str, ...]] = ("image",)
    width: ClassVar[int] = WIDTH

    @property
    def name(self) -> str:
        """Of its output in the batch."""
        return f"features of trained@{self.method}"

    @property
    def network(self) -> ViT:
        """Pictures of three channels -> tokens."""
        arch = Architecture(self.patch, WIDTH, DEPTH, HEADS, 2 * WIDTH, "gelu", 1e-6, cls=False)
        return ViT(arch, self.grid)

    @property
    def flops(self) -> int:
        """Of one picture."""
        return self.network.arch.flops(self.grid)

    def weights(self) -> Any:
        """Trains the encoder; process 0 does it for all, once a program.

        Raises:
            UserError: if the data set lacks what the method needs.
        """
        return _trained(self)

    def abstract_weights(self) -> Any:
        """The weights as shapes and dtypes."""
        images = jnp.zeros((1, self.data.image_size, self.data.image_size, 3))
        return jax.eval_shape(self.network.init, jax.random.key(0), images)["params"]

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """Passes the pictures on as bytes."""
        return {"image": arrays["image"]}

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Any) -> Float[Array, "B N Z"]:
        """The tokens of `batch["image"]`."""
        return self.network.apply({"params": weights}, coloured(batch["image"]))


def coloured(images: Any) -> Any:
    """Pictures (B, H, W, 1 or 3) from -1 to 1 in three channels."""
    x = to_network(images)
    return jnp.broadcast_to(x, (*x.shape[:-1], 3))


class Masked(nn.Module):
    """Predicts the pixels of hidden patches."""

    encoder: SmallEncoder

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], labels: Array, key: Array) -> Float[Array, " B"]:
        (rows, columns), side = self.encoder.grid, self.encoder.patch
        hidden = jax.random.bernoulli(key, HIDDEN_SHARE, (len(images), rows, columns, 1))
        pixels = hidden.repeat(side, 1).repeat(side, 2)
        tokens = self.encoder.network.clone(name="encoder", parent=self)(jnp.where(pixels, 0.0, images))
        found = nn.Dense(side * side * 3)(tokens).reshape(len(images), rows, columns, side, side, 3)
        error = jnp.abs(found.transpose(0, 1, 3, 2, 4, 5).reshape(images.shape) - images) * pixels
        return error.sum((1, 2, 3)) / (3 * pixels.sum((1, 2, 3)) + 1e-6)


class Labelled(nn.Module):
    """Tells the class from the mean of the tokens."""

    encoder: SmallEncoder
    classes: int

    @nn.compact
    def __call__(self, images: Float[Array, "B H W 3"], labels: Array, key: Array) -> Float[Array, " B"]:
        tokens = self.encoder.network.clone(name="encoder", parent=self)(images)
        return optax.softmax_cross_entropy_with_integer_labels(nn.Dense(self.classes)(tokens.mean(1)), labels)


METHODS: dict[str, Callable[[SmallEncoder, np.ndarray], nn.Module]] = {
    "masked": lambda encoder, labels: Masked(encoder),
    "labels": lambda encoder, labels: Labelled(encoder, int(labels.max()) + 1),
}


@functools.cache
def _trained(encoder: SmallEncoder) -> Any:
    source = data.open_source(encoder.data, "train")
    names = ["image", "label"] if encoder.method == "labels" else ["image"]
    if missing := [name for name in names if name not in source.fields]:
        raise UserError(f"trained@{encoder.method} needs the field '{missing[0]}', which the data set does not have")
    taken = data.take(source, range(min(len(source), EXAMPLES)), names)
    images, labels = taken.arrays["image"], taken.arrays.get("label", np.zeros(len(taken.captions), np.int64))
    with jax.default_device(jax.local_devices()[0]):
        params = jax.device_get(_fit(METHODS[encoder.method](encoder, labels), images, labels))
    return multihost_utils.broadcast_one_to_all(params) if jax.process_count() > 1 else params


def _fit(task: nn.Module, images: np.ndarray, labels: np.ndarray) -> Any:
    """The encoder's weights after STEPS of AdamW."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, RATE, WARMUP, STEPS)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05))
    key, images, labels = jax.random.key(SEED), jnp.asarray(images), jnp.asarray(labels, jnp.int32)
    params = task.init(key, coloured(images[:1]), labels[:1], key)["params"]

    @jax.jit
    def train(params: Any, images: Array, labels: Array) -> Any:
        def step(state: Any, number: Array) -> tuple[Any, Array]:
            params, opt_state = state
            own = jax.random.fold_in(key, number)
            rows = jax.random.randint(own, (BATCH,), 0, len(images))
            loss = lambda p: task.apply({"params": p}, coloured(images[rows]), labels[rows], own).mean()  # noqa: E731
            value, grads = jax.value_and_grad(loss)(params)
            changes, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, changes), opt_state), value

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(STEPS))
        return params

    return train(params, images, labels)["encoder"]


def make(config: configs.Config, argument: str) -> SmallEncoder:
    """The encoder `trained@METHOD`, on the network's own grid of tokens; "": masked.

    Raises:
        UserError: for another method, or data that are no pictures.
    """
    method, source = argument or "masked", config.data
    if method not in METHODS:
        raise UserError(f"the encoder 'trained@{method}' is not known{nearest(method, METHODS)}")
    if source.channels not in (1, 3) or source.shape:
        raise UserError("the encoder 'trained' learns from square pictures, which config.data does not have")
    side = make_codec(config).shape[0] // config.model.patch
    return SmallEncoder(
        dataclasses.replace(source, cache_mb=0.0), method, (side, side), source.image_size // max(side, 1)
    )
