"""The weights of a network without the rest of a run: of a finished run, or brought in from another project."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from rfjax import config as configs
from rfjax import flow
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.evaluation import pictures
from rfjax.jsonl import write_json
from rfjax.models.counting import abstract_parameters
from rfjax.models.projector import Projector
from rfjax.training import mesh as meshes
from rfjax.training.checkpoints import Checkpoints, small_whole
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.step import State, abstract_state
from rfjax.untrusted import read_json

FOLDER = "weights"  # of a run's folder that was made of another project's checkpoint
# How a network is computed, whatever its weights.
INTERNAL = ("remat", "unroll", "precision", "attention", "projectors", "projector_width")


@dataclass(frozen=True)
class Weights:
    """A network that can be used.

    Attributes:
        config, parts: of the run. params: the tree of weights. step: how many updates they have seen.
        projectors: weights of REPA's projectors, by number; empty where there are none.
    """

    config: Config
    parts: RunSpec
    params: Any
    step: int
    projectors: Mapping[str, Any] = field(default_factory=dict)

    def trained(self, image: tuple[int, int, int] | None = None) -> pictures.Trained:
        """As something to sample from, at the size of the training images or at another (H, W, C)."""
        formulation = flow.formulation(self.config.flow.formulation, self.config.flow.shift)
        image = image or self.parts.inputs.image
        flops = self.parts.model.forward_flops(image, *self.parts.inputs.shapes[1:])
        return pictures.Trained(self.parts.model, self.params, formulation, image, flops)


def abstract(config: Config, parts: RunSpec, mesh: Mesh) -> dict[str, Any]:
    """{"params", "projectors"}: the trees of weights as shapes, with their shardings."""
    tokens = jax.ShapeDtypeStruct((1, 1, parts.model.width), jnp.float32)
    projectors = {
        str(i): jax.eval_shape(Projector(target, config.model.projector_width).init, jax.random.key(0), tokens)[
            "params"
        ]
        for i, target in enumerate(config.model.projectors)
    }
    shapes = {"params": abstract_parameters(parts.model, parts.inputs), "projectors": projectors}
    shardings = meshes.shard_tree(shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def start_from(folder: Path, state: State, config: Config) -> State:
    """A fresh state with the weights of another run's folder, averaged ones where it has them, in both places.

    Raises:
        UserError: if that run's network is another than this one's.
    """
    other = read(folder, config.mesh)
    _check_alike(folder, other.config, other.params, config, state.params)
    put = lambda value, like: jax.device_put(value.astype(like.dtype), like.sharding)  # noqa: E731
    params = jax.tree.map(put, other.params, state.params)
    return state.replace(params=params, average=jax.tree.map(jnp.copy, params))


def check_start(folder: Path, config: Config, parts: RunSpec) -> None:
    """Raises UserError if a run can't begin with the weights in another run's folder; none of them is read."""
    try:
        other = _read_config(folder)
        if not (folder / FOLDER).is_dir() and not any((folder / "checkpoints").glob("[0-9]*")):
            raise UserError(f"the run in {folder} has no checkpoint yet: train it first")
    except UserError as error:
        raise UserError(f"config.training.start_from: {error}") from error
    theirs = make_run_spec(other)
    there, here = (abstract_parameters(each.model, each.inputs) for each in (theirs, parts))
    _check_alike(folder, other, there, config, here)


def _check_alike(folder: Path, their_config: Config, theirs: Any, our_config: Config, ours: Any) -> None:
    """Raises UserError if two trees of weights, or of their shapes, are not of the same network."""
    there, here = (dataclasses.asdict(each.model) for each in (their_config, our_config))
    differing = [name for name in here if here[name] != there[name] and name not in INTERNAL]
    found, wanted = (
        {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (theirs, ours))
    )
    where = f"config.training.start_from: {folder}"
    if found != wanted and differing:
        raise UserError(
            f"{where} holds another network: "
            + ", ".join(
                f"config.model.{name} is {there[name]!r} there and {here[name]!r} here" for name in differing[:3]
            )
        )
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            raise UserError(f"{where} holds {name} of shape {found.get(name)}, and here it is {wanted.get(name)}")


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
    tree = {"params": made.params, "projectors": dict(made.projectors)}
    with small_whole():
        ocp.save_pytree((folder / FOLDER).absolute(), tree)
    write_json(folder / "config.json", made.config.to_dict())  # last: a folder with a config is whole


def _read_config(folder: Path) -> Config:
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


def read(folder: Path, mesh: configs.Mesh, average: bool = True) -> Weights:
    """Reads the weights in a run's folder: those of its newest checkpoint, or the ones that were written by `write`.

    Args:
        average: take the average of the weights, where the run has one.

    Raises:
        UserError: if the folder is not a run's, has no weights yet, or is of another version.
    """
    config = _read_config(folder)
    made, parts = meshes.make_mesh(mesh), make_run_spec(config)
    if (folder / FOLDER).is_dir():
        tree = ocp.load_pytree((folder / FOLDER).absolute(), abstract(config, parts, made))
        return Weights(config, parts, tree["params"], 0, tree["projectors"])
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"the run in {folder} has no checkpoint yet: train it first")
    saved = Checkpoints(folder / "checkpoints", config.training.keep_checkpoints, writes=False)
    try:
        if not saved.finished():
            raise UserError(f"the run in {folder} has no checkpoint yet: train it first")
        state, _ = saved.restore(abstract_state(parts, made))
    finally:
        saved.close()
    return Weights(config, parts, state.average if average else state.params, int(state.step))
