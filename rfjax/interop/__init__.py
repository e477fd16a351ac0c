"""Imports and exports checkpoints of other projects: SD3 and SD3.5, DiT, SiT and REPA.

`read` opens another project's checkpoint as a network, `import_checkpoint` makes a run's folder from one, and `export`
writes a network as another project's checkpoint. `python -m rfjax.interop` offers the same on the command line. Tensors
go from the file to the devices one by one; no pickle is ever executed.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rfjax import config as configs
from rfjax import files, untrusted
from rfjax.errors import UserError
from rfjax.interop import layouts, recognition
from rfjax.jsonl import write_json
from rfjax.models.positions import sincos_2d
from rfjax.tensors import transfer
from rfjax.tensors.layout import Layout
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.safetensors import MAX_SHARD, write_safetensors
from rfjax.tensors.stored import DTYPE_NAMES, Tensors
from rfjax.training import mesh as meshes
from rfjax.training import weights
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.weights import Weights
from rfjax.trees import leaf_name

ORIGIN = "origin.json"  # the file of a run's folder that records where its weights come from


@dataclasses.dataclass(frozen=True)
class ImportOptions:
    """What a user adds to a checkpoint's layout.

    Attributes:
        heads: number of attention heads of a .pt file, which does not store it; 0 takes the published number.
        variant: which of a folder's copies of the network to read; empty takes full precision, or the only copy.
        outside: whether to read files outside the checkpoint's folder that the folder or an index refers to.
    """

    heads: int = 0
    variant: str = ""
    outside: bool = False

    def open(self, path: Path) -> Tensors:
        """Opens the checkpoint's tensors; raises what `open_tensors` raises."""
        return open_tensors(path, variant=self.variant, outside=self.outside)


DEFAULTS = ImportOptions()


class CheckpointInfo(NamedTuple):
    """What a checkpoint holds: its layout, by its name in `layouts.LAYOUTS`, and the config of its network."""

    layout: str
    config: configs.Config


def inspect(tensors: Tensors, layout: str = "", options: ImportOptions = DEFAULTS) -> CheckpointInfo:
    """Finds out what a checkpoint holds, without reading its weights.

    Args:
        layout: a name of `layouts.LAYOUTS`. Empty recognises the layout, which can't tell DiT from SiT.

    Raises:
        UserError: if the checkpoint has no known layout, or does not fit the given one.
    """
    metadata = layouts.read_metadata(tensors, options.outside)
    name = layout or recognition.recognise(tensors, metadata)
    form = layouts.find_format(name)
    if options.heads and form.file != ".pt":
        raise UserError(f"the layout '{name}' stores the number of heads: leave --heads out")
    config = form.read_config(tensors, metadata, options.heads)
    configs.check(config)
    return CheckpointInfo(name, config)


def read_config(path: Path, layout: str, options: ImportOptions = DEFAULTS) -> configs.Config:
    """The config of another project's checkpoint, of which no weight is read; errors as of `read`."""
    with options.open(path) as tensors:
        return inspect(tensors, layout, options).config


def read(path: Path, layout: str, mesh: configs.Mesh, dtype: Any = None, options: ImportOptions = DEFAULTS) -> Weights:
    """Opens another project's checkpoint and puts each tensor on the devices.

    Args:
        path: a .safetensors or .pt file, or a folder.
        dtype: of the weights. None keeps the stored type, but turns eight-bit types into bfloat16.

    Raises:
        UserError: if the file can't be read, or its tensors are not those of its network.
    """
    with options.open(path) as tensors:
        return _read(tensors, inspect(tensors, layout, options), mesh, dtype)


def layout_of(info: CheckpointInfo, spec: RunSpec) -> Layout:
    """The layout of a checkpoint's parameters."""
    return layouts.find_format(info.layout).layout(spec.model, spec.inputs, info.config)


def _read(tensors: Tensors, info: CheckpointInfo, mesh: configs.Mesh, dtype: Any) -> Weights:
    spec = make_run_spec(info.config)
    target = weights.abstract(spec, meshes.make_mesh(mesh))
    layout, ignore = layout_of(info, spec), layouts.find_format(info.layout).ignore
    leaves = transfer.load(tensors, layout, flat(target), dtype, ignore)
    tree = jax.tree.unflatten(jax.tree.structure(target), [leaves[path] for path in flat(target)])
    return Weights(info.config, spec, tree, 0)


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens a tree of weights to path in a layout -> leaf, in the tree's order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {leaf_name(path): leaf for path, leaf in leaves}


def import_checkpoint(path: Path, folder: Path, layout: str = "", options: ImportOptions = DEFAULTS) -> Weights:
    """Makes a run's folder from another project's checkpoint, in float32, to generate pictures from or to train on.

    Raises:
        UserError: for the reasons of `read`, and if the folder is not empty.
    """
    weights.check_empty(folder)
    with options.open(path) as tensors:
        info = inspect(tensors, layout, options)
        imported = _read(tensors, info, configs.Mesh(), np.float32)
        pieces = layout_of(info, imported.spec).items()
        dtypes = {leaf: transfer.default_dtype(tensors.dtype(first.name)).name for leaf, (first, *_) in pieces}
    weights.write(folder, imported)
    write_json(folder / ORIGIN, {"source": str(path), "layout": info.layout, "dtypes": dtypes})
    return imported


def export(network: Weights, path: Path, layout: str, dtype: Any = None, max_shard: int = MAX_SHARD) -> Path:
    """Writes a network as another project's checkpoint, with one tensor in memory at a time; returns its path.

    Args:
        path: a folder, or a file with the suffix of the layout's files.
        layout: a name of `layouts.LAYOUTS`.
        dtype: of the tensors, or path of a leaf -> dtype. None keeps the types.
        max_shard: largest file of a folder in bytes; a larger network gets several files and an index.

    Raises:
        UserError: if the layout can't store this network, or the path does not fit the layout.
    """
    form, spec, config = layouts.find_format(layout), network.spec, network.config
    layouts.check_export(layout, config, spec.model)
    if path.suffix != form.file and (form.file or path.suffix in (".safetensors", ".pt")):
        wanted = f"a file that ends in {form.file}" if form.file else "a folder"
        raise UserError(f"the layout '{layout}' needs {wanted}, not {path}")
    leaves = flat(network.params)
    if form.table and not spec.model.positions.stored:
        spec, leaves = _with_table(spec, leaves)
    elif not form.table and (side := spec.model.positions.stored):
        raise UserError(f"the layout '{layout}' has no table of positions, and this network has one of side {side}")
    metadata = form.metadata(spec.model, spec.inputs) if form.metadata else None
    pieces = form.layout(spec.model, spec.inputs, config)
    dtypes = dtype if isinstance(dtype, Mapping) else dict.fromkeys(pieces, dtype)
    manifest, tensors = transfer.specs(leaves, pieces, dtypes), transfer.dump(leaves, pieces, dtypes)
    if form.file == ".pt":
        from rfjax.tensors.pt import write_pt

        write_pt(path, tensors, manifest)
    else:
        write_safetensors(path, tensors, manifest, max_shard_bytes=max_shard)
    if metadata is not None:
        files.write(path / "config.json", json.dumps(metadata, indent=2) + "\n")
    return path


def _with_table(spec: RunSpec, leaves: Mapping[str, Any]) -> tuple[RunSpec, dict[str, Any]]:
    """The same network with a stored table of positions, for the largest image, in place of the formula."""
    model, positions = spec.model, spec.model.positions
    side = positions.largest or spec.inputs.shape[0] // model.patch[0]
    table = sincos_2d(side, side, model.width, positions)
    stored = model.clone(positions=dataclasses.replace(positions, stored=side))
    return dataclasses.replace(spec, model=stored), {**leaves, "positions": table}


def origin(folder: Path) -> dict[str, Any] | None:
    """Where the weights of a run's folder come from.

    Returns:
        The checkpoint's source, layout and dtypes, or None if the run was trained here.

    Raises:
        UserError: if the record is damaged.
    """
    fix = "import the checkpoint again, or remove the file"
    record = untrusted.read_json(folder / ORIGIN, fix=fix)
    names = list(map(str, DTYPE_NAMES))
    dtypes = {} if record is None else record.get("dtypes")
    if not isinstance(dtypes, dict) or not all(name in names for name in dtypes.values()):
        raise UserError(f"{folder / ORIGIN} has no valid types of the tensors: {fix}")
    return record
