"""A network of metrics without weights in files: means and mean squares of the channels; texts by their lengths."""

import dataclasses
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np

from rfjax.errors import UserError
from rfjax.evaluation.metrics.scores import agreement, distance
from rfjax.evaluation.quantity import Quantity


@dataclass(frozen=True)
class Toy:
    name: str = "toy@moments"
    outputs: dict[str, int] = field(default_factory=lambda: {"pool": 6, "projected": 3})
    scale: float = 1.0
    mark: str = "1"

    def about(self):
        return {"network": "means of channels", "sha256": self.mark, "resize": "none"}

    def weights(self):
        return {"scale": np.float32(1 / 255)}

    def embed(self, weights, images):
        x = images.astype(jnp.float32) * weights["scale"]
        means = x.mean((1, 2))
        return {"pool": jnp.concatenate([means, jnp.square(x).mean((1, 2))], axis=-1), "projected": means + 0.1}

    def tokens(self, texts):
        return {"length": np.array([len(text) for text in texts], np.int32)}

    def embed_text(self, weights, tokens):
        return jnp.stack([tokens["length"], 0 * tokens["length"] + 1, tokens["length"] % 3], -1).astype(jnp.float32)


def make(config):
    return Toy()


FD = distance("toy_fd", "FD toy", "toy_embedder:make", "pool")
AGREEMENT = agreement("toy_agreement", "agreement", "toy_embedder:make")


def _refused(vectors):
    raise UserError("It needs more pictures.")


REFUSED = dataclasses.replace(FD, quantities=(Quantity("toy_refused", "refused", "lower"),), compute=_refused)
