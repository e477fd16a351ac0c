"""The weights of a network without the rest of a run: of a finished run, or brought in from another project."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from rfjax import config as configs
from rfjax import flow
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.evaluation.sampler import Sampleable
from rfjax.jsonl import write_json
from rfjax.models.counting import abstract_parameters
from rfjax.training import mesh as meshes
from rfjax.training.checkpoints import Checkpoints, small_whole
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.state import State, abstract_state, joined, partition, weights_of
from rfjax.untrusted import read_json

FOLDER = "weights"  # of a run's folder that was made of another project's checkpoint
# How a network is computed and trained, whatever its weights; and the heads, which the network itself does not need.
INTERNAL = (
    *("remat", "unroll", "precision", "attention", "projectors", "projector_width", "projector_block"),
    *("parameterisation", "base_width", "base_depth"),
)
PROJECTORS = "projectors"  # the tree beside "params" that folders of older versions have, in place of heads


@dataclass(frozen=True)
class Weights:
    """A network that can be used.

    Attributes:
        params: the tree of weights that the network reads, heads included.
        step: how many updates they have seen.
    """

    config: Config
    spec: RunSpec
    params: Any
    step: int

    def sampleable(self, stage: EncodeStage, shape: tuple[int, ...] | None = None) -> Sampleable:
        """As something to sample from.

        Args:
            stage: the run's encoders with their weights.
            shape: of z; None: that of the training images.
        """
        formulation = flow.formulation(self.config.flow.formulation, self.config.flow.shift)
        codec = dataclasses.replace(self.spec.codec, shape=shape) if shape else self.spec.codec
        inputs = dataclasses.replace(self.spec.inputs, shape=codec.shape)
        flops = self.spec.model.forward_flops(inputs)
        return Sampleable(self.spec.model, self.params, formulation, codec, stage.weights[0], flops)


def abstract(spec: RunSpec, mesh: Mesh) -> dict[str, Any]:
    """The tree of weights as shapes, with their shardings."""
    return meshes.with_shardings(abstract_parameters(spec.model, spec.inputs), mesh)


def start_from(folder: Path, state: State, spec: RunSpec, config: Config) -> State:
    """Puts the weights of another run's folder, averaged ones where it has them, into a fresh state and its average.

    Heads that the other run lacks keep their fresh weights.

    Raises:
        UserError: if that run's network is another than this one's.
    """
    other = read_weights(folder, config.mesh)
    fresh = joined(state.frozen, {} if spec.adapter else state.params)
    _check_alike(folder, (other.config, other.spec, other.params), (config, spec, fresh))
    ours, theirs = (traverse_util.flatten_dict(tree, sep="/") for tree in (fresh, other.params))
    put = lambda value, like: jax.device_put(value.astype(like.dtype), like.sharding)  # noqa: E731
    taken = {path: put(theirs[path], leaf) if path in theirs else leaf for path, leaf in ours.items()}
    params, frozen = partition(spec, traverse_util.unflatten_dict(taken, sep="/"))
    if spec.adapter:
        return state.replace(frozen=frozen)
    return state.replace(params=params, frozen=frozen, ema_params=jax.tree.map(jnp.copy, params))


def check_start(folder: Path, config: Config, spec: RunSpec) -> None:
    """Raises UserError if a run can't begin with the weights in another run's folder; none of them is read."""
    try:
        other = read_config(folder)
        if not (folder / FOLDER).is_dir() and not any((folder / "checkpoints").glob("[0-9]*")):
            raise UserError(f"the run in {folder} has no checkpoint yet: train it first")
    except UserError as error:
        raise UserError(f"config.training.start_from: {error}") from error
    theirs = make_run_spec(other)
    there, here = (abstract_parameters(each.model, each.inputs) for each in (theirs, spec))
    _check_alike(folder, (other, theirs, there), (config, spec, here))


Network = tuple[Config, RunSpec, Any]  # config, spec, the tree of weights or of their shapes


def _check_alike(folder: Path, there: Network, here: Network) -> None:
    """Raises UserError if two trees of weights, or of their shapes, are not of the same network, heads aside."""
    theirs, ours = (dataclasses.asdict(config.model) for config, _, _ in (there, here))
    differing = [name for name in ours if ours[name] != theirs[name] and name not in INTERNAL]
    found, wanted = (_shapes(spec, tree) for _, spec, tree in (there, here))
    where = f"config.training.start_from: {folder}"
    if found != wanted and differing:
        said = [f"config.model.{name} is {theirs[name]!r} there and {ours[name]!r} here" for name in differing[:3]]
        raise UserError(f"{where} holds another network: {', '.join(said)}")
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            raise UserError(f"{where} holds {name} of shape {found.get(name)}, and here it is {wanted.get(name)}")


def _shapes(spec: RunSpec, tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = traverse_util.flatten_dict(tree, sep="/")
    return {path: leaf.shape for path, leaf in leaves.items() if not spec.model.is_head(path)}


def check_empty(folder: Path) -> None:
    """Raises UserError if there is something in a folder already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: choose another folder for the weights")


def write(folder: Path, made: Weights) -> None:
    """Makes a run's folder of weights alone: `config.json` and the weights.

    Raises:
        UserError: if there is something in the folder already.
    """
    check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with small_whole():
        ocp.save_pytree((folder / FOLDER).absolute(), {"params": made.params})
    write_json(folder / "config.json", made.config.to_dict())  # last: a folder with a config is whole


def read_config(folder: Path) -> Config:
    """The config in a run's folder, with an attention that this machine has.

    Raises:
        UserError: if the folder is not a run's, or is of another version.
    """
    path = folder / "config.json"
    plain = read_json(path, fix="put the run's own config there again")
    if plain is None:
        raise UserError(f"{folder} is not the folder of a run: it has no config.json")
    try:
        config = configs.from_dict(plain)
    except UserError as error:
        raise UserError(f"{path} can't be used, perhaps of another version of rfjax: {error}") from error
    if config.model.attention == "cudnn" and jax.default_backend() != "gpu":  # says where the run was, not what it is
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, attention=""))
    return config


def kept_steps(folder: Path) -> tuple[int, ...]:
    """The steps of the weights in a run's folder: those of its checkpoints, or 0 of what was written by `write`."""
    if (folder / FOLDER).is_dir():
        return (0,)
    if not (folder / "checkpoints").is_dir():
        return ()
    saved = Checkpoints(folder / "checkpoints", 1, writes=False)
    try:
        return tuple(saved.finished())
    finally:
        saved.close()


def read_weights(
    folder: Path, mesh: configs.Mesh, average: bool = True, step: int | None = None, config: Config | None = None
) -> Weights:
    """Reads the weights in a run's folder: those of a checkpoint, or the ones that were written by `write`.

    Args:
        folder: of the run.
        mesh: the devices.
        average: take the average of the weights, where the run has one.
        step: of the checkpoint; None: the newest.
        config: of the same network, with other encoders perhaps; None: the run's own.

    Raises:
        UserError: if the folder is not a run's, has no weights yet, or is of another version.
    """
    config = config or read_config(folder)
    made, spec = meshes.make_mesh(mesh), make_run_spec(config)
    if (folder / FOLDER).is_dir():
        return Weights(config, spec, _read_tree((folder / FOLDER).absolute(), abstract(spec, made)), 0)
    saved = Checkpoints(folder / "checkpoints", config.training.keep_checkpoints, writes=False)
    try:
        if not saved.finished():
            raise UserError(f"the run in {folder} has no checkpoint yet: train it first")
        state, _ = saved.restore(abstract_state(spec, made), step)
    finally:
        saved.close()
    return Weights(config, spec, weights_of(spec, state, ema=average), int(state.step))


def _read_tree(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The tree that `write` wrote, or that an older version wrote with its projectors beside the network."""
    if PROJECTORS not in ocp.pytree_metadata(path).metadata:
        return ocp.load_pytree(path, {"params": wanted})["params"]
    prefix = "projector_"
    heads = {name.removeprefix(prefix): tree for name, tree in wanted.items() if name.startswith(prefix)}
    params = {name: tree for name, tree in wanted.items() if not name.startswith(prefix)}
    tree = ocp.load_pytree(path, {"params": params, PROJECTORS: heads})
    return tree["params"] | {f"{prefix}{name}": head for name, head in tree[PROJECTORS].items()}
