"""Reads a published encoder: from a Hugging Face folder (config.json and safetensors), or MoCo v3's own file."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import untrusted
from rfjax.encoders.vision.families import FAMILIES, Colour, Description, Family, describe
from rfjax.encoders.vision.parts import POSITIONS, parts
from rfjax.encoders.vision.resampling import resample_table
from rfjax.encoders.vision.vit import Architecture, ViT
from rfjax.errors import UserError, one_line
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.pt import open_pt
from rfjax.tensors.stored import Tensors
from rfjax.trees import leaf_name

CONFIG = "config.json"
# MoCo v3's file stores no number of heads: width -> heads, of its S, B and L; S has 12 heads of 32.
MOCO_HEADS = {384: 12, 768: 12, 1024: 16}
# Names that RCG's copy of MoCo v3 L misspells -> what they should be.
MISSPELT = {"blocks.13.norm13.": "blocks.13.norm1.", "blocks.13.mlp.fc13.": "blocks.13.mlp.fc1.",
            "blocks.14.norm14.": "blocks.14.norm2.", "blocks.14.mlp.fc14.": "blocks.14.mlp.fc2."}  # fmt: skip


class Source(NamedTuple):
    """An opened checkpoint.

    Attributes:
        what: it holds.
        tensors: of the files.
        names: name without the family's prefix, and spelt as it should be -> the file's name.
    """

    what: Description
    tensors: Tensors
    names: Mapping[str, str]


def open_source(path: Path, heads: int = 0) -> Source:
    """Opens a folder or a file, and checks that it holds the tensors of its encoder, rightly shaped, and no others.

    Args:
        path: a folder with config.json and safetensors, or one of its copies of the weights (a file or an index); or a
            torch file of MoCo v3.
        heads: attention heads of a MoCo v3 file of a width that was not published.

    Raises:
        UserError: if it does not, or can't be read.
    """
    if not path.exists():
        raise UserError(f"there is no {path}: give a folder with config.json and safetensors, or a file of MoCo v3")
    if path.is_dir() or path.suffix in (".safetensors", ".json"):
        what, tensors = _read_config(path), open_tensors(path)
    else:
        what, tensors = None, open_pt(path).tensors
    try:
        return source_of(what, tensors, heads)
    except BaseException:
        tensors.close()
        raise


def source_of(what: Description | None, tensors: Tensors, heads: int = 0) -> Source:
    """The same of tensors that are open; what: None for those of MoCo v3."""
    family = FAMILIES[what.family if what else "mocov3"]
    names = _names(tensors, family, what.family if what else "MoCo v3")
    what = what or _describe_moco(tensors, names, heads)
    _check(what, tensors, names)
    return Source(what, tensors, names)


def read_description(path: Path, heads: int = 0) -> Description:
    """What `open_source` would open. A config.json alone is enough: for a plan, where the weights are elsewhere."""
    if path.name == CONFIG:
        return _read_config(path)
    source = open_source(path, heads)
    source.tensors.close()
    return source.what


def _read_config(path: Path) -> Description:
    where = folder_of(path) / CONFIG
    settings = untrusted.read_json(where, fix="take the config.json that came with the weights")
    if settings is None:
        raise UserError(f"{where.parent} has no config.json: give a folder of Hugging Face with all of its files")
    return describe(settings, str(where))


def folder_of(path: Path) -> Path:
    """The folder that describes the weights at a path."""
    return path if path.is_dir() else path.parent


def _names(tensors: Tensors, family: Family, kind: str) -> dict[str, str]:
    """name without the prefix -> name, of all tensors, where the prefix is the one that the patches' kernel has."""
    for prefix in family.prefixes:
        if f"{prefix}{family.names.patch}.weight" in tensors.names:
            found = {name.removeprefix(prefix): name for name in tensors.names}
            for wrong, right in MISSPELT.items() if kind == "MoCo v3" else ():
                found = {name.replace(wrong, right): old for name, old in found.items()}
            return found
    first = f"{family.prefixes[-1]}{family.names.patch}.weight"
    raise UserError(f"{tensors.source} holds no encoder of the kind {kind}: it lacks {first}")


def _describe_moco(tensors: Tensors, names: Mapping[str, str], heads: int) -> Description:
    """MoCo v3's sizes by its tensors; the learned table may be for any picture."""

    def shape(name: str, axes: int) -> tuple[int, ...]:
        """Of a tensor that may be missing or have too few axes, which `_check` says afterwards."""
        found = tensors.shape(names[name]) if name in names else ()
        return (*found, *[1] * axes)[:axes]

    width, _, patch = shape("patch_embed.proj.weight", 3)
    if not (heads := heads or MOCO_HEADS.get(width, 0)) or width % heads:
        raise UserError(
            f"{tensors.source} has the width {width}, and MoCo v3 stores no number of heads: the widths 384, 768 and "
            "1024 are known, for others give `heads`, which must divide it"
        )
    depth = max(1, len({name.split(".")[1] for name in names if re.match(r"blocks\.\d+\.", name)}))
    side = max(1, math.isqrt(shape("pos_embed", 3)[1] - 1))
    arch = Architecture(patch, width, depth, heads, shape("blocks.0.mlp.fc1.weight", 1)[0], "gelu", 1e-6)
    return Description("mocov3", arch, side)


def _check(what: Description, tensors: Tensors, names: Mapping[str, str]) -> None:
    wanted = {part.name: part.shape for part in parts(what)}
    kind = f"{tensors.source} is described as a {what.family} of {what.arch.depth} blocks and width {what.arch.width}"
    if missing := [name for name in wanted if name not in names]:
        raise UserError(f"{kind}, and lacks {len(missing)} of its {len(wanted)} tensors, such as {missing[0]}")
    for name, shape in wanted.items():
        found = tensors.shape(names[name])
        if _without_ones(found) != _without_ones(shape):
            raise UserError(
                f"{kind}, whose {name} has the shape {shape}; in {tensors.where(names[name])} it has {found}"
            )
    ignore = FAMILIES[what.family].ignore
    others = [name for name in names if name not in wanted and not re.match(ignore, name)]
    surplus = [name for name in others if math.prod(tensors.shape(names[name]))]  # no registers are an empty tensor
    if surplus:
        raise UserError(f"{kind}, and holds {len(surplus)} tensors more than that, such as {one_line(surplus[0])}")


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(1, 1, D), (1, D) and (D,) are the same token to different projects."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape


def abstract_weights(arch: Architecture, grid: tuple[int, int]) -> dict[str, Any]:
    """The weights of `ViT` as shapes and dtypes."""
    pixels = jax.ShapeDtypeStruct((1, grid[0] * arch.patch, grid[1] * arch.patch, 3), jnp.float32)
    return jax.eval_shape(ViT(arch, grid).init, jax.random.key(0), pixels)["params"]


def read_weights(source: Source, grid: tuple[int, int], rule: str) -> dict[str, Any]:
    """The weights of `ViT` on a grid, in float32; biases that the encoder does not have are 0.

    Args:
        rule: by which the table of positions is resampled, of `resampling.RULES`.

    Raises:
        UserError: if a file can't be read.
    """
    what, tensors, names = source
    arch = what.arch
    tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract_weights(arch, grid))
    flat = {leaf_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(tree)}
    for part in parts(what):
        values = tensors.read(names[part.name], part.rows).astype(np.float32)
        values = values.reshape(part.view).transpose(part.order)
        if part.path == POSITIONS:
            if arch.cls:
                flat["prefix"][0] += values[0]
            table = values[arch.cls :].reshape(what.side, what.side, -1)
            flat[POSITIONS][...] = resample_table(table, grid, rule)
        else:
            region = flat[part.path][part.index]
            flat[part.path][part.index] = values.reshape(region.shape)
    return tree


def colours(path: Path, family: str) -> tuple[Colour, Colour]:
    """Mean and standard deviation of the pixels: of the folder's preprocessor_config.json, or of the family.

    Raises:
        UserError: if the file has no three numbers there.
    """
    where = folder_of(path) / "preprocessor_config.json"
    fix = "take the one that came with the weights, or remove it"
    settings = {} if family == "mocov3" else untrusted.read_json(where, fix=fix) or {}
    found = []
    for key, default in zip(("image_mean", "image_std"), FAMILIES[family].colours, strict=True):
        value = settings.get(key, default)
        numbers = isinstance(value, list | tuple) and all(type(x) in (int, float) and 0 <= x <= 1 for x in value)
        if not numbers or len(value) != 3 or (key == "image_std" and min(value) == 0):
            what = "three numbers from 0 to 1" if key == "image_mean" else "three numbers above 0, at most 1"
            raise UserError(f"{where} has {key} = {value!r}: it must be {what}")
        found.append(tuple(map(float, value)))
    return tuple(found)
