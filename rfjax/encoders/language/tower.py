"""Opens a published text network: its sizes from config.json, its weights leaf by leaf from safetensors."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from rfjax import untrusted
from rfjax.encoders.language import bert, clip, t5
from rfjax.errors import UserError, one_line
from rfjax.tensors import transfer
from rfjax.tensors.layout import Layout
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.stored import Tensors
from rfjax.trees import leaf_name

CONFIG = "config.json"
FIX = "take the config.json that came with the weights"
LARGEST_CONFIG = 2**24  # bytes


class Kind(NamedTuple):
    """A kind of text network.

    Attributes:
        called: in messages. types: its names as `model_type`. read: its sizes, of config.json's content and its name.
        network: Flax module of sizes and dtype. ignored: beginnings of names of tensors that files may hold besides.
    """

    called: str
    types: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str], Any]
    network: Callable[..., nn.Module]
    ignored: tuple[str, ...]


KINDS = {
    "clip": Kind("a CLIP text tower", ("clip_text_model", "clip"), clip.read_clip, clip.ClipText, clip.IGNORED),
    "t5": Kind("a T5 encoder", ("t5",), t5.read_t5, t5.T5Encoder, t5.IGNORED),
    "bert": Kind("a BERT encoder", ("bert",), bert.read_bert, bert.BertEncoder, bert.IGNORED),
}


@dataclass(frozen=True)
class Tower:
    """A published text network in a folder.

    Attributes:
        path: the folder.
        kind: of KINDS.
        arch: its sizes.
        precision: dtype of the matrices, and of the inputs of their products.
    """

    path: str
    kind: str
    arch: clip.Clip | t5.T5 | bert.Bert
    precision: str = "float32"

    @property
    def network(self) -> nn.Module:
        """The Flax module."""
        return KINDS[self.kind].network(self.arch, jnp.dtype(self.precision))

    def abstract_weights(self) -> dict[str, Any]:
        """The weights as shapes and dtypes; no file of weights is looked at."""
        ids = jax.ShapeDtypeStruct((1, 2), jnp.int32)
        mask = (jax.ShapeDtypeStruct((1, 2), jnp.bool_),) if self.kind == "bert" else ()
        return jax.eval_shape(self.network.init, jax.random.key(0), ids, *mask)["params"]

    def weights(self) -> dict[str, Any]:
        """The weights, each of which is read when it is placed on devices.

        Raises:
            UserError: if there are none, or they are not those of the config.
        """
        tensors = open_tensors(self.path)
        try:
            return self.weights_of(tensors)
        except BaseException:
            tensors.close()
            raise

    def weights_of(self, tensors: Tensors) -> dict[str, Any]:
        """The same of tensors that are open, and stay so until the last is placed."""
        found, tree = {}, self.abstract_weights()
        wanted = {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        layout = self._layout(tensors)
        transfer.check(tensors, layout, KINDS[self.kind].ignored)
        for dtype in {leaf.dtype for leaf in wanted.values()}:
            part = {path: pieces for path, pieces in layout.items() if wanted[path].dtype == dtype}
            shapes = {path: wanted[path] for path in part}
            found |= transfer.defer(tensors, part, shapes, dtype, ignore=("",))
        if "projection" in wanted and "projection" not in found:
            found["projection"] = self._identity()
        return jax.tree_util.tree_map_with_path(lambda path, _: found[leaf_name(path)], tree)

    def __call__(self, weights: Any, ids: Any, *mask: Any) -> Any:
        """The states of tokens (B, L): `clip.ClipStates`, or (B, L, D) of T5 and BERT.

        Args:
            weights: as from `weights`, on devices, or from `read`.
            ids: of the tokens.
            mask: of BERT: which tokens count.
        """
        return self.network.apply({"params": weights}, ids, *mask)

    def flops(self, length: int) -> int:
        """Of a text of so many tokens: two for a multiplication and its addition."""
        return self.arch.flops(length)

    def _layout(self, tensors: Tensors) -> Layout:
        names = set(tensors.names)
        if self.kind == "t5":
            return t5.t5_layout(self.arch, tuple(name for name in t5.TABLES if name in names))
        module = {"clip": clip, "bert": bert}[self.kind]
        prefix = next((one for one in module.PREFIXES if f"{one}{module.FIRST}" in names), None)
        if prefix is None:
            raise UserError(f"{tensors.source} holds no {KINDS[self.kind].called[2:]}: it lacks {module.FIRST}")
        if self.kind == "clip":
            return clip.clip_layout(self.arch, prefix, clip.PROJECTION in names)
        return bert.bert_layout(self.arch, prefix)

    def _identity(self) -> np.ndarray:
        """In place of a projection that the files lack."""
        if self.arch.width != self.arch.projected:
            raise UserError(
                f"{self.path} lacks {clip.PROJECTION}, which {CONFIG} says has {self.arch.projected} channels of "
                f"{self.arch.width}"
            )
        return np.eye(self.arch.width, dtype=np.float32)


def open_tower(path: str | Path, kind: str, precision: str = "float32") -> Tower:
    """Opens a folder with config.json and safetensors, without a look at the weights.

    Args:
        path: of the folder.
        kind: of KINDS.
        precision: as in `Tower`.

    Raises:
        UserError: if there is no such folder, or its config.json describes something else.
    """
    path, wanted = Path(path), KINDS[kind]
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: {wanted.called} was expected there, with {CONFIG} and safetensors")
    where = path / CONFIG
    settings = untrusted.read_json(where, limit=LARGEST_CONFIG, fix=FIX)
    if settings is None:
        raise UserError(f"{path} has no {CONFIG}: {FIX}")
    if (found := settings.get("model_type")) not in wanted.types:
        said = one_line(json.dumps(found))
        raise UserError(f"{where} has model_type {said}, and {wanted.called} was expected ({', '.join(wanted.types)})")
    return Tower(str(path), kind, wanted.read(settings, str(where)), precision)


def read(tower: Tower) -> Any:
    """The weights on the first device, for use without a mesh."""
    device = SingleDeviceSharding(jax.devices()[0])
    put = lambda leaf: leaf.place(device) if isinstance(leaf, transfer.Deferred) else jax.device_put(leaf, device)  # noqa: E731
    return jax.tree.map(put, tower.weights())
