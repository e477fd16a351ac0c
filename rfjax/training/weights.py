"""The weights of a network without the rest of a run: of a finished run, or brought in from another project."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from orbax.checkpoint import v1 as ocp

from rfjax import config as configs
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.models.counting import abstract_parameters
from rfjax.training import mesh as meshes
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.logs import write_json
from rfjax.training.parts import Parts, make_parts
from rfjax.training.step import abstract_state

FOLDER = "weights"  # of a run's folder that was made of another project's checkpoint


@dataclass(frozen=True)
class Weights:
    """A network that can be used: the run's config and parts, the tree of weights, and after how many steps it is."""

    config: Config
    parts: Parts
    params: Any
    step: int


def abstract_params(parts: Parts, mesh: Mesh) -> Any:
    """The tree of weights as shapes, with their shardings."""
    shapes = abstract_parameters(parts.model, parts.inputs)
    shardings = meshes.shard_tree(shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def write(folder: Path, config: Config, params: Any) -> None:
    """Makes a run's folder of weights alone: `config.json` and the weights.

    Raises:
        UserError: if there is something in the folder already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: choose another folder for the weights")
    folder.mkdir(parents=True, exist_ok=True)
    ocp.save_pytree((folder / FOLDER).absolute(), params)
    write_json(folder / "config.json", config.to_dict())  # last: a folder with a config is whole


def read(folder: Path, mesh: configs.Mesh, average: bool = True) -> Weights:
    """Reads the weights in a run's folder: those of its newest checkpoint, or the ones that were written by `write`.

    Args:
        average: take the average of the weights, where the run has one.

    Raises:
        UserError: if the folder is not a run's, or has no weights yet.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder} is not the folder of a run: it has no config.json")
    config = configs.from_dict(json.loads(path.read_text()))
    made, parts = meshes.make_mesh(mesh), make_parts(config)
    if (folder / FOLDER).is_dir():
        return Weights(config, parts, ocp.load_pytree((folder / FOLDER).absolute(), abstract_params(parts, made)), 0)
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"the run in {folder} has no checkpoint yet: train it first")
    saved = Checkpoints(folder / "checkpoints", config.training.keep_checkpoints)
    try:
        if saved.latest is None:
            raise UserError(f"the run in {folder} has no checkpoint yet: train it first")
        state, _ = saved.restore(abstract_state(parts, made), None)
    finally:
        saved.close()
    return Weights(config, parts, state.average if average else state.params, int(state.step))
