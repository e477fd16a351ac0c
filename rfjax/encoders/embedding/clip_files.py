"""Files of a whole CLIP: Hugging Face's folder, or a file of open_clip, whose tensors are read under the names of the
former. Nothing is copied: a part or a transpose of a tensor is another view of the same bytes."""

import functools
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rfjax import untrusted
from rfjax.config.paths import expanded
from rfjax.encoders.embedding import sha256
from rfjax.encoders.vision.loading import CONFIG, folder_of
from rfjax.errors import UserError, one_line
from rfjax.tensors.fingerprint import fingerprint
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.stored import Entry, Tensors, row_major

FIX = "take the one that came with the weights"
OWN_CONFIG = "open_clip_config.json"  # which open_clip's newer folders have
WRAPPER = "module."  # in front of all names, from training on several devices
FIRST = "visual.conv1.weight"  # by which open_clip's files are known
BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)")
TOWERS = {"visual.": "vision_model", None: "text_model"}
WITHIN = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj", "mlp.c_fc": "mlp.fc1",
          "mlp.c_proj": "mlp.fc2"}  # fmt: skip
OTHERS = {
    FIRST: "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
TURNED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
MASK = "attn_mask"  # that older files store: the causal one
# The files store no number of heads: width -> heads of the published networks.
VISION_HEADS = {768: 12, 1024: 16, 1280: 16}
TEXT_HEADS = {512: 8, 768: 12, 1024: 16}
NORMAL = ("model.safetensors", "model.safetensors.index.json")  # beside which a folder may have open_clip's copy


def named(path: str, key: str, what: str) -> Path:
    """The path that a config names.

    Raises:
        UserError: if it names none, or nothing is there.
    """
    if not path:
        raise UserError(f"config.{key} is empty: name {what}")
    found = expanded(path, f"config.{key}")
    if not found.exists():
        raise UserError(f"config.{key} = '{path}' does not exist: name {what}")
    return found


def open_files(path: Path) -> Tensors:
    """The tensors of a CLIP under Hugging Face's names.

    Raises:
        UserError: if they can't be read.
    """
    tensors = open_tensors(next((path / name for name in NORMAL if (path / name).is_file()), path))
    if not any(name.removeprefix(WRAPPER) == FIRST for name in tensors.names):
        return tensors
    with tensors:
        views = {new: entry for name, old in tensors.entries.items() for new, entry in _views(name, old)}
        return Tensors(tensors.source, views)


def _views(name: str, entry: Entry) -> Iterator[tuple[str, Entry]]:
    """A tensor of open_clip as one or three of Hugging Face."""
    name = name.removeprefix(WRAPPER)
    if name in OTHERS:
        yield OTHERS[name], entry
    elif name in TURNED and len(entry.shape) == 2:
        turned = (entry.strides or row_major(entry.shape))[::-1]
        yield TURNED[name], entry._replace(shape=entry.shape[::-1], strides=turned)
    elif not (match := BLOCK.fullmatch(name)):
        if name != MASK:
            yield name, entry
    else:
        start, inner = f"{TOWERS[match[1]]}.encoder.layers.{match[2]}", match[3]
        if inner in ("attn.in_proj_weight", "attn.in_proj_bias"):
            for place, role in enumerate("qkv"):
                yield f"{start}.self_attn.{role}_proj.{inner.rpartition('_')[2]}", _third(entry, place)
        else:
            stem, _, kind = inner.rpartition(".")
            yield f"{start}.{WITHIN.get(stem, stem)}.{kind}", entry


def _third(entry: Entry, place: int) -> Entry:
    """One of three equal parts of a tensor's rows."""
    rows = entry.shape[0] // 3 if entry.shape else 0
    strides = entry.strides or row_major(entry.shape)
    skip = place * rows * strides[0] * entry.dtype.itemsize if rows and entry.dtype else 0
    return entry._replace(offset=entry.offset + skip, shape=(rows, *entry.shape[1:]))


def settings_of(path: Path) -> tuple[dict[str, Any], str]:
    """The sizes of a CLIP as config.json has them, and the file that says so: of open_clip, the weights.

    Raises:
        UserError: if there are none, or they describe something else.
    """
    where = folder_of(path) / CONFIG
    if path.is_file() and path.suffix != ".json":
        with open_tensors(path) as tensors:
            own = any(name.removeprefix(WRAPPER) == FIRST for name in tensors.names)
        if own:
            return _own_settings(path), str(path)
    settings = untrusted.read_json(where, fix=FIX)
    if settings is None:
        raise UserError(
            f"{where.parent} has no {CONFIG}: give Hugging Face's folder with all of its files, or a file of open_clip"
        )
    if (kind := settings.get("model_type")) != "clip":
        alone = " is one tower alone, and" if str(kind).startswith("clip_") else ""
        raise UserError(
            f"{where} has model_type {one_line(repr(kind))}, which{alone or ' is no CLIP:'} a CLIP of pictures and "
            "texts was expected (model_type clip)"
        )
    return settings, str(where)


def _own_settings(path: Path) -> dict[str, Any]:
    """By the tensors of open_clip; heads and activation by its config where there is one, or as published."""
    with open_files(path) as tensors:
        shapes = {name: tensors.shape(name) for name in tensors.names}
    said = (untrusted.read_json(path.parent / OWN_CONFIG, fix=FIX) or {}).get("model_cfg")
    said = said if isinstance(said, Mapping) else {}
    vision, text = (_tower(shapes, name, path) for name in ("vision_model", "text_model"))
    *_, patch = _shape(shapes, OTHERS[FIRST], 4, path)
    width, head = vision["hidden_size"], _inner(said, "vision_cfg").get("head_width")
    vision |= {
        "patch_size": patch,
        "image_size": math.isqrt(max(0, _positions(shapes, "vision_model", path) - 1)) * patch,
        "num_attention_heads": _heads(path, width, width // head if _whole(head) else VISION_HEADS.get(width)),
    }
    given = _inner(said, "text_cfg").get("heads")
    text |= {
        "max_position_embeddings": _positions(shapes, "text_model", path),
        "vocab_size": _shape(shapes, OTHERS["token_embedding.weight"], 2, path)[0],
        "num_attention_heads": _heads(
            path, text["hidden_size"], given if _whole(given) else TEXT_HEADS.get(text["hidden_size"])
        ),
        "eos_token_id": 2,  # the largest number, as open_clip pools
    }
    act = {"hidden_act": "quick_gelu" if said.get("quick_gelu") else "gelu", "layer_norm_eps": 1e-5}
    projected = _shape(shapes, TURNED["visual.proj"], 2, path)[0]
    return {"model_type": "clip", "projection_dim": projected, "vision_config": vision | act, "text_config": text | act}


def _tower(shapes: Mapping[str, tuple[int, ...]], name: str, path: Path) -> dict[str, Any]:
    """What both towers have."""
    layers = re.compile(rf"{name}\.encoder\.layers\.(\d+)\.")
    depth = len({match[1] for match in map(layers.match, shapes) if match})
    inner, width = _shape(shapes, f"{name}.encoder.layers.0.mlp.fc1.weight", 2, path)
    return {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": depth}


def _positions(shapes: Mapping[str, tuple[int, ...]], name: str, path: Path) -> int:
    return _shape(shapes, f"{name}.embeddings.position_embedding.weight", 2, path)[0]


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str, axes: int, path: Path) -> tuple[int, ...]:
    found = shapes.get(name, ())
    if len(found) != axes:
        what = f"has the shape {found}" if name in shapes else "is missing"
        raise UserError(f"{path} holds no whole CLIP of open_clip: what Hugging Face calls {name} {what}")
    return found


def _heads(path: Path, width: int, heads: int | None) -> int:
    if heads is None:
        raise UserError(
            f"{path} has a tower of width {width}, and open_clip's files store no number of attention heads: put "
            f"{OWN_CONFIG} beside it"
        )
    return heads


def _inner(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return found if isinstance(found := said.get(name), Mapping) else {}


def _whole(value: Any) -> bool:
    return type(value) is int and value > 0


def file_and_digest(path: Path) -> dict[str, str]:
    """`file` and `sha256` of a record; of weights in several files, the fingerprint of all in place of the latter.

    Raises:
        UserError: if they can't be read.
    """
    with open_files(path) as tensors:
        files = {tensors.where(name) for name in tensors.names}
        one = next(iter(files)) if len(files) == 1 else None
        digest = _digest(one, one.stat().st_mtime_ns) if one else f"fingerprint {fingerprint(tensors)}"
        return {"file": str(tensors.source), "sha256": digest}


@functools.cache
def _digest(path: Path, changed: int) -> str:
    """Of a file of gigabytes, which several numbers of each measurement along a run ask for; changed: when it was."""
    return sha256(path)
