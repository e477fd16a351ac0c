"""Weights from and to other projects: SD3 and SD3.5, DiT, SiT and REPA.

`read` opens another project's checkpoint as a network that can be used, `bring` makes a run's folder of one, and
`export` writes a network as another project's checkpoint. `python -m rfjax.interop` does the same by hand. Tensors go
from the file to the devices one by one; no pickle is ever executed.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax import config as configs
from rfjax import files, untrusted
from rfjax.errors import UserError
from rfjax.interop import engine, layouts, recognition
from rfjax.interop.layout import Layout
from rfjax.interop.safetensors import MAX_SHARD, write_safetensors
from rfjax.interop.stored import DTYPE_NAMES, Tensors
from rfjax.interop.tensors import open_tensors
from rfjax.jsonl import write_json
from rfjax.models.positions import sincos_2d
from rfjax.training import mesh as meshes
from rfjax.training import weights
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.weights import Weights

ORIGIN = "origin.json"  # of a run's folder: where its weights come from


@dataclasses.dataclass(frozen=True)
class Told:
    """What a user says of a checkpoint beside its layout.

    Attributes:
        heads: how many attention heads, of a .pt file, which does not say it; 0: as many as such a network has.
        variant: which of a folder's copies of the network; empty: that of full precision, or the only one.
        outside: whether files that a folder or an index has outside of the folder are read.
    """

    heads: int = 0
    variant: str = ""
    outside: bool = False

    def open(self, path: Path) -> Tensors:
        """The checkpoint's tensors; errors as of `open_tensors`."""
        return open_tensors(path, variant=self.variant, outside=self.outside)


NOTHING = Told()


@dataclasses.dataclass(frozen=True)
class Found:
    """What a checkpoint is, before its weights are read: its layout's name and its config."""

    layout: str
    config: configs.Config


def inspect(tensors: Tensors, layout: str = "", told: Told = NOTHING) -> Found:
    """Finds out what a checkpoint is.

    Args:
        layout: a name of `layouts.LAYOUTS`; empty: by its names, which can't tell DiT from SiT.

    Raises:
        UserError: if it is none that we know, or does not fit the layout.
    """
    facts = layouts.facts_beside(tensors, told.outside)
    name = layout or recognition.recognise(tensors, facts)
    kind = layouts.find(name)
    if told.heads and kind.file != ".pt":
        raise UserError(f"the layout '{name}' tells the number of heads itself: leave --heads out")
    config = kind.describe(tensors, facts, told.heads)
    configs.check(config)
    return Found(name, config)


def read(path: Path, layout: str, mesh: configs.Mesh, dtype: Any = None, told: Told = NOTHING) -> Weights:
    """Opens another project's checkpoint, each tensor straight into its place on the devices.

    Args:
        path: a .safetensors or .pt file, or a folder. layout: as in `inspect`. mesh: the devices.
        dtype: of the weights; None: as they are stored, and bfloat16 for eight bits.

    Raises:
        UserError: if the file can't be read, or its tensors are not those of the network it should hold.
    """
    with told.open(path) as tensors:
        found = inspect(tensors, layout, told)
        return _read(tensors, found, mesh, dtype)


def places(found: Found, parts: RunSpec) -> Layout:
    """Where the parameters of what was found lie; parts: made of its config."""
    return layouts.find(found.layout).layout(parts.model, parts.inputs, found.config)


def _read(tensors: Tensors, found: Found, mesh: configs.Mesh, dtype: Any) -> Weights:
    parts = make_run_spec(found.config)
    target = weights.abstract(parts, meshes.make_mesh(mesh))
    where, ignore = places(found, parts), layouts.find(found.layout).ignore
    leaves = engine.load(tensors, where, flat(target), dtype, ignore)
    tree = jax.tree.unflatten(jax.tree.structure(target), [leaves[path] for path in flat(target)])
    return Weights(found.config, parts, tree, 0)


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of weights as paths in a layout -> leaves, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def bring(
    path: Path, folder: Path, layout: str = "", mesh: configs.Mesh | None = None, told: Told = NOTHING
) -> Weights:
    """Makes a run's folder of another project's checkpoint, in float32, so that it can be drawn from and trained on.

    Raises:
        UserError: as `read`, and if the folder is not empty.
    """
    weights.check_empty(folder)
    with told.open(path) as tensors:
        found = inspect(tensors, layout, told)
        made = _read(tensors, found, mesh or configs.Mesh(), np.float32)
        where = places(found, made.spec)
        dtypes = {leaf: engine.kept(tensors.dtype(pieces[0].name)).name for leaf, pieces in where.items()}
    weights.write(folder, made)
    write_json(folder / ORIGIN, {"source": str(path), "layout": found.layout, "dtypes": dtypes})
    return made


def export(made: Weights, path: Path, layout: str, dtype: Any = None, max_shard: int = MAX_SHARD) -> Path:
    """Writes a network as another project's checkpoint, one tensor in memory at a time; returns the file or folder.

    Args:
        path: a folder, or a file that ends as the layout's files do.
        dtype: of the tensors, or of each leaf by its path; None: as they are.
        max_shard: bytes in a file of a folder, beyond which it gets several and an index.

    Raises:
        UserError: if the layout has no place for this network, or the path does not fit the layout.
    """
    kind, parts, config = layouts.find(layout), made.spec, made.config
    layouts.check_export(layout, config, parts.model)
    if path.suffix != kind.file and (kind.file or path.suffix in (".safetensors", ".pt")):
        wanted = f"a file that ends in {kind.file}" if kind.file else "a folder"
        raise UserError(f"the layout '{layout}' is {wanted}, not {path}")
    leaves = flat(made.params)
    if kind.table and not parts.model.positions.stored:
        parts, leaves = _with_table(parts, leaves)
    elif not kind.table and (side := parts.model.positions.stored):
        raise UserError(f"the layout '{layout}' has no table of positions, and this network has one of {side} a side")
    facts = kind.facts(parts.model, parts.inputs) if kind.facts else None
    where = kind.layout(parts.model, parts.inputs, config)
    kinds = dtype if isinstance(dtype, Mapping) else dict.fromkeys(where, dtype)
    manifest, tensors = engine.specs(leaves, where, kinds), engine.dump(leaves, where, kinds)
    if kind.file == ".pt":
        from rfjax.interop.pt import write_pt

        write_pt(path, tensors, manifest)
    else:
        write_safetensors(path, tensors, manifest, max_shard_bytes=max_shard)
    if facts is not None:
        files.write(path / "config.json", json.dumps(facts, indent=2) + "\n")
    return path


def _with_table(parts: RunSpec, leaves: Mapping[str, Any]) -> tuple[RunSpec, dict[str, Any]]:
    """The same network with its positions as a table of the largest image's size, rather than by formula."""
    model, positions = parts.model, parts.model.positions
    side = positions.largest or parts.inputs.shape[0] // model.patch[0]
    table = sincos_2d(side, side, model.width, positions)
    stored = model.clone(positions=dataclasses.replace(positions, stored=side))
    return dataclasses.replace(parts, model=stored), {**leaves, "positions": table}


def origin(folder: Path) -> dict[str, Any] | None:
    """Where the weights in a run's folder come from: source, layout, dtypes; None where they were trained here.

    Raises:
        UserError: if the record is damaged.
    """
    mend = "import the checkpoint again, or remove the file"
    found = untrusted.read_json(folder / ORIGIN, mend=mend)
    names = list(map(str, DTYPE_NAMES))
    dtypes = {} if found is None else found.get("dtypes")
    if not isinstance(dtypes, dict) or not all(name in names for name in dtypes.values()):
        raise UserError(f"{folder / ORIGIN} does not say the types of the tensors: {mend}")
    return found
