"""What the parity suite compares (tests/parity, with torch and diffusers) and the light suite repeats from recordings.

A case is a network of another project with the inputs to compare on. Its weights and inputs are pure functions of
names, shapes and a seed, so nothing but what comes out needs recording. A result is a dict of arrays in the other
project's conventions (NCHW, their names): "output", "grad/z" ..., and "grad/weight/NAME" for every weight, where the
gradients are of the output's product with a fixed "cotangent". Imports no torch.
"""

import dataclasses
import functools
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import config as configs
from rfjax import interop
from rfjax.compiling import quick_options
from rfjax.conditioning import TextConditioning
from rfjax.interop import layouts
from rfjax.models import crossdit, layers, uvit
from rfjax.models.blocks import Spec
from rfjax.models.crossdit import CrossAttention
from rfjax.tensors import transfer
from rfjax.tensors.pt import write_pt
from rfjax.tensors.safetensors import write_safetensors
from rfjax.training.weights import Weights

SEEDS = (0, 1, 2)
BATCH = 3

Result = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


# Random numbers


def uniform(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Numbers of mean 0 and variance 1, of a name and a seed: 24 bits each of Philox, whose stream never changes."""
    count = math.prod(shape)
    bits = np.random.Philox(key=[zlib.crc32(name.encode()), seed]).random_raw(count) >> np.uint64(40)
    return ((bits.astype(np.float64) + 0.5) / 2**23 - 1).reshape(shape) * math.sqrt(3)


def original(name: str) -> str:
    """The name of the tensor of which this one is a copy: diffusers' DiT embeds time and label in every block."""
    return re.sub(r"^transformer_blocks\.\d+\.norm1\.emb\.", "transformer_blocks.0.norm1.emb.", name)


def weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A weight at which a network is well conditioned, as float32: values of about 1 stay about 1."""
    raw = uniform(original(name), shape, seed)
    if "embedding_table" in name:
        scaled = raw
    elif "pos_embed" in name and len(shape) == 3:
        scaled = 0.7 * raw  # a table, no formula: a copy that was made by formula would show
    elif len(shape) > 1:
        scaled = raw / math.sqrt(math.prod(shape[1:]))
    else:
        scaled = 0.1 * raw + ("norm" in name and name.endswith("weight"))
    return scaled.astype(np.float32)


def weights(shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """All of a network."""
    return {name: weight(name, shape, seed) for name, shape in shapes.items()}


# Cases


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and what it is shown.

    Attributes:
        layout: a name of `layouts.LAYOUTS`. settings: of the other project's class. image: (H, W) of z.
        text: text tokens.
    """

    name: str
    layout: str
    settings: Mapping[str, Any]
    image: tuple[int, int]
    text: int = 0

    def __str__(self) -> str:
        return self.name

    def inputs(self, seed: int) -> dict[str, np.ndarray]:
        """(z, t, context, pooled or label, cotangent).

        Times are eighths, at which 1000 t, 1000 t - 1 and 1 - t are exact in float32 in whatever order they are made;
        the labels have the one for "no label" among them.
        """
        settings, values = self.settings, functools.partial(uniform, seed=seed)
        channels = settings["in_channels"]
        made = {"z": values("z", (BATCH, channels, *self.image))}
        made["t"] = (np.argsort(values("t", (8,)))[:BATCH] + 1) / 8
        outputs = channels
        if self.layout == "sd3":
            made["context"] = values("context", (BATCH, self.text, settings["joint_attention_dim"]))
            made["pooled"] = values("pooled", (BATCH, settings["pooled_projection_dim"]))
        else:
            classes = settings["num_embeds_ada_norm"]
            made["label"] = np.array([seed % classes, classes, classes - 1])
            outputs *= 1 + (self.layout in ("dit", "dit-folder") and self.learns_sigma)
        made["cotangent"] = values("cotangent", (BATCH, outputs, *self.image))
        return {name: value if name == "label" else value.astype(np.float32) for name, value in made.items()}

    @property
    def recorded(self) -> bool:
        """Whether the light suite repeats it."""
        return self.name in LIGHT

    @property
    def learns_sigma(self) -> bool:
        """Whether a DiT's final layer has twice the channels."""
        return self.settings["out_channels"] == 2 * self.settings["in_channels"]


def _sd3(name: str, image: tuple[int, int], text: int, **changes: Any) -> Case:
    settings = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "joint_attention_dim": 20,
        "pooled_projection_dim": 12,
        "pos_embed_max_size": 6,
        "dual_attention_layers": (),
        "qk_norm": None,
    } | changes
    settings["caption_projection_dim"] = settings["attention_head_dim"] * settings["num_attention_heads"]
    return Case(f"sd3-{name}", "sd3", {"_class_name": "SD3Transformer2DModel"} | settings, image, text)


SD3 = (
    _sd3("plain", (8, 8), 7, num_layers=3),
    _sd3("one-block", (8, 8), 4, num_layers=1, attention_head_dim=16, num_attention_heads=2),
    _sd3("wide-image", (4, 12), 5, num_layers=4, pos_embed_max_size=7),
    _sd3("tall-image-of-patches-of-1", (6, 3), 1, patch_size=1, in_channels=3, out_channels=3, sample_size=3),
    _sd3("patches-of-4", (16, 8), 33, patch_size=4, in_channels=16, out_channels=16, pos_embed_max_size=4),
    _sd3("qk-norm", (8, 8), 7, num_layers=3, qk_norm="rms_norm"),
    _sd3("qk-norm-wide-heads", (4, 4), 3, qk_norm="rms_norm", attention_head_dim=64, num_attention_heads=2),
    _sd3("dual-first", (8, 12), 7, num_layers=3, qk_norm="rms_norm", dual_attention_layers=(0,)),
    _sd3("dual-but-last", (8, 8), 5, num_layers=3, qk_norm="rms_norm", dual_attention_layers=(0, 1)),
    _sd3("dual-all", (8, 8), 5, num_layers=3, qk_norm="rms_norm", dual_attention_layers=(0, 1, 2)),
    _sd3("dual-without-qk-norm", (4, 8), 5, dual_attention_layers=(0,)),
    _sd3("dual-one-block", (4, 4), 2, num_layers=1, qk_norm="rms_norm", dual_attention_layers=(0,)),
)


def _dit(name: str, layout: str, side: int, **changes: Any) -> Case:
    """A DiT, of diffusers' folder or of a .pt file, in diffusers' words; more are REPA's projectors."""
    settings = {
        "sample_size": side,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "attention_head_dim": 8,
        "num_attention_heads": 4,
        "num_embeds_ada_norm": 10,
        "norm_eps": 1e-6,
    } | changes
    return Case(f"{layout}-{name}", layout, {"_class_name": "DiTTransformer2DModel"} | settings, (side, side))


PIXELS = {"in_channels": 3, "out_channels": 3}
SIGMA = {"out_channels": 8}
HEADS = {"attention_head_dim": 64}  # what a .pt file of no published size is read as
DIT = (
    _dit("plain", "dit-folder", 8, num_layers=3),
    _dit("sigma", "dit-folder", 8, **SIGMA),
    _dit("one-block", "dit-folder", 12, num_layers=1, attention_head_dim=24, num_attention_heads=2, **SIGMA),
    _dit("patches-of-4", "dit-folder", 16, patch_size=4, num_embeds_ada_norm=3, **PIXELS),
    _dit("patches-of-1", "dit-folder", 3, patch_size=1, num_layers=4, num_embeds_ada_norm=1000),
)
PT = (
    _dit("sigma", "dit", 8, num_attention_heads=1, num_layers=3, **HEADS, **SIGMA),
    _dit("plain", "dit", 8, num_attention_heads=2, num_layers=1, **HEADS),
    _dit("sigma", "sit", 8, num_attention_heads=1, num_layers=3, **HEADS, **SIGMA),
    _dit("plain", "sit", 12, num_attention_heads=2, patch_size=4, **HEADS, **PIXELS),
    _dit("one-projector", "repa", 8, num_attention_heads=1, num_layers=3, **HEADS, projectors=(24,), hidden=40),
    _dit("two-projectors", "repa", 4, num_attention_heads=2, patch_size=1, **HEADS, projectors=(24, 7), hidden=16),
)
CASES = {case.name: case for case in (*SD3, *DIT, *PT)}
# What the light suite repeats: every layout and every setting that changes the program, in half a minute.
LIGHT = (
    "sd3-plain",
    "sd3-one-block",
    "sd3-wide-image",
    "sd3-patches-of-4",
    "sd3-dual-first",
    "sd3-dual-all",
    "dit-folder-sigma",
    "dit-sigma",
    "sit-plain",
    "repa-one-projector",
)


# Our side of a case


def ours(case: Case, made: Weights, given: Mapping[str, np.ndarray], *, of_weights: bool = True) -> Result:
    """What our network makes of the inputs, in their conventions; of_weights: with the gradients of the weights."""
    z, cotangent = (given[name].transpose(0, 2, 3, 1) for name in ("z", "cotangent"))
    if case.layout == "sd3":
        context, pooled = given["context"], given["pooled"]
    else:
        classes = case.settings["num_embeds_ada_norm"]
        context, pooled = np.zeros((BATCH, 0, 1), np.float32), np.eye(classes + 1, dtype=np.float32)[given["label"]]
        pooled = pooled[:, :classes]  # "no label" is all zeros
    method = "with_sigma" if case.layout in ("dit", "dit-folder") else None
    params = jax.tree.map(np.asarray, made.params)  # off the eight devices
    run = _program(made.spec.model, method)
    output, (params, z, cond) = run(params, z, given["t"], TextConditioning(context, pooled), cotangent)
    result = {"output": output.transpose(0, 3, 1, 2), "grad/z": z.transpose(0, 3, 1, 2)}
    if case.layout == "sd3":
        result |= {"grad/context": cond.context, "grad/pooled": cond.pooled}
    result = {name: np.asarray(value) for name, value in result.items()}
    if not of_weights:
        return result
    places = layouts.find_format(case.layout).layout(made.spec.model, made.spec.inputs, made.config)
    for name, gradient in transfer.dump(interop.flat(params), places):
        if "pos_embed" in name and gradient.ndim == 3:
            assert not gradient.any(), "the table of positions is not trained"
        elif "projectors" in name:
            assert not gradient.any(), "the heads do not touch the output"
        elif original(name) == name:
            result[f"grad/weight/{name}"] = gradient
    return result


@functools.cache
def _program(model: Any, method: str | None) -> Callable[..., Any]:
    """(params, z, t, cond, cotangent) -> output, gradients; one for all seeds."""

    def run(params: Any, z: Any, t: Any, cond: Any, cotangent: Any) -> Any:
        def network(params: Any, z: Any, cond: Any) -> Any:
            return model.apply({"params": params}, z, t, cond, method=method)

        with jax.default_matmul_precision("highest"):
            output, pull = jax.vjp(network, params, z, cond)
            return output, pull(cotangent)

    return jax.jit(run, compiler_options=quick_options())


def write(case: Case, tensors: Mapping[str, np.ndarray], folder: Path) -> Path:
    """A checkpoint of the case, without torch; returns what to import."""
    if case.layout in ("sd3", "dit-folder"):
        (folder / "config.json").write_text(json.dumps(dict(case.settings)))
        write_safetensors(folder, tensors.items(), tensors)
        return folder
    write_pt(folder / "x.pt", tensors.items(), tensors)
    return folder / "x.pt"


def bring(case: Case, path: Path) -> Weights:
    """Imports a checkpoint of the case."""
    return interop.read(path, case.layout, configs.Mesh())


# RunSpec: a module of ours as a function of the weights of another project's module


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a network, and the module of torch or diffusers that computes the same.

    Attributes:
        shapes: of their weights, by their names. inputs: shapes of what it is shown (images are NCHW).
        apply: (weights, inputs) -> output, by our module, with their weights.
    """

    name: str
    shapes: Shapes
    inputs_: Shapes
    apply: Callable[[Mapping[str, Any], Mapping[str, Any]], Any]

    def __str__(self) -> str:
        return self.name

    def inputs(self, seed: int) -> dict[str, np.ndarray]:
        """Random inputs, and the cotangent of the output."""
        shapes = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in self.shapes.items()}
        seen = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in self.inputs_.items()}
        output = jax.eval_shape(self.apply, shapes, seen).shape
        named = {**self.inputs_, "cotangent": output}
        return {name: uniform(name, shape, seed).astype(np.float32) for name, shape in named.items()}

    def ours(self, tensors: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> Result:
        """What our module makes of the inputs."""
        seen = {name: given[name] for name in self.inputs_}

        output, of_weights, of_inputs = _part_program(self.apply)(dict(tensors), seen, given["cotangent"])
        result = {"output": output} | {f"grad/{name}": value for name, value in of_inputs.items()}
        result |= {f"grad/weight/{name}": value for name, value in of_weights.items()}
        return {name: np.asarray(value) for name, value in result.items()}


@functools.cache
def _part_program(apply: Callable[..., Any]) -> Callable[..., Any]:
    def run(tensors: Any, seen: Any, cotangent: Any) -> Any:
        with jax.default_matmul_precision("highest"):
            output, pull = jax.vjp(apply, tensors, seen)
            return output, *pull(cotangent)

    return jax.jit(run, compiler_options=quick_options())


WIDTH, HEAD_COUNT, TOKENS, TEXT = 32, 4, 12, 5
HEAD = WIDTH // HEAD_COUNT
SPEC = Spec(WIDTH, HEAD_COUNT)


def dense(tensors: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Our Dense of their Linears, side by side; 1 x 1 convolutions too."""
    matrices = [tensors[f"{name}.weight"] for name in names]
    kernels = [matrix.reshape(matrix.shape[:2]).T for matrix in matrices]
    return {"kernel": jnp.concatenate(kernels, 1), "bias": jnp.concatenate([tensors[f"{n}.bias"] for n in names])}


def convolution(tensors: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Our Conv of their Conv2d."""
    return {"kernel": tensors[f"{name}.weight"].transpose(2, 3, 1, 0), "bias": tensors[f"{name}.bias"]}


def norm(tensors: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Our GroupNorm of theirs."""
    return {"scale": tensors[f"{name}.weight"], "bias": tensors[f"{name}.bias"]}


def linear_shapes(**sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """{"a__b": (outputs, inputs ...)} -> the shapes of a.b.weight and a.b.bias."""
    named = {name.replace("__", "."): shape for name, shape in sizes.items()}
    return {f"{n}.{kind}": s if kind == "weight" else s[:1] for n, s in named.items() for kind in ("weight", "bias")}


def _attention_shapes(name: str) -> dict[str, tuple[int, ...]]:
    return linear_shapes(**{f"{name}to_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "out__0")})


def heads(tensors: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Our Linear to heads: (D, H, K), or (D, n, H, K) of n names."""
    shape = (len(names), HEAD_COUNT, HEAD) if len(names) > 1 else (HEAD_COUNT, HEAD)
    found = dense(tensors, *names)
    return {"kernel": found["kernel"].reshape(WIDTH, *shape), "bias": found["bias"].reshape(shape)}


def _cross(tensors: Mapping[str, Any], name: str) -> dict[str, Any]:
    q, kv, out = (f"{name}to_q",), (f"{name}to_k", f"{name}to_v"), (f"{name}to_out.0",)
    return {"q": heads(tensors, *q), "kv": heads(tensors, *kv), "out": dense(tensors, *out)}


def _cross_attention(tensors: Mapping[str, Any], seen: Mapping[str, Any]) -> Any:
    return CrossAttention(SPEC).apply({"params": _cross(tensors, "")}, seen["x"], seen["context"])


def _cross_block(tensors: Mapping[str, Any], seen: Mapping[str, Any]) -> Any:
    stream = {
        "modulation": {"linear": dense(tensors, "modulation")},
        "qkv": {"linear": heads(tensors, "attn1.to_q", "attn1.to_k", "attn1.to_v")},
        "out": dense(tensors, "attn1.to_out.0"),
        "mlp": {"fc1": dense(tensors, "ff.net.0.proj"), "fc2": dense(tensors, "ff.net.2")},
    }
    params = {"stream": stream, "cross": _cross(tensors, "attn2.")}
    return crossdit.Block(SPEC).apply({"params": params}, seen["x"], (seen["y"], seen["context"]))[0]


def _res_block(channels: int) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Any]:
    def apply(tensors: Mapping[str, Any], seen: Mapping[str, Any]) -> Any:
        params = {f"norm{i}": norm(tensors, f"norm{i}") for i in (1, 2)}
        params |= {f"conv{i}": convolution(tensors, f"conv{i}") for i in (1, 2)}
        params["modulation"] = dense(tensors, "time_emb_proj")
        if "conv_shortcut.weight" in tensors:
            params["shortcut"] = dense(tensors, "conv_shortcut")
        out = uvit.ResBlock(channels).apply({"params": params}, seen["x"].transpose(0, 2, 3, 1), seen["y"])
        return out.transpose(0, 3, 1, 2)

    return apply


def _res_block_part(name: str, inside: int, channels: int) -> Part:
    shapes = linear_shapes(norm1=(inside,), norm2=(channels,))
    shapes |= linear_shapes(conv1=(channels, inside, 3, 3), conv2=(channels, channels, 3, 3))
    shapes |= linear_shapes(time_emb_proj=(2 * channels, WIDTH))
    shapes |= linear_shapes(conv_shortcut=(channels, inside, 1, 1)) if inside != channels else {}
    return Part(name, shapes, {"x": (2, inside, 6, 4), "y": (2, WIDTH)}, _res_block(channels))


def _down(tensors: Mapping[str, Any], seen: Mapping[str, Any]) -> Any:
    """UViT's step to half the resolution: patches through a Linear."""
    x = seen["x"].transpose(0, 2, 3, 1)
    rows, columns = x.shape[1] // 2, x.shape[2] // 2
    matrix, bias = tensors["conv.weight"], tensors["conv.bias"]
    kernel = matrix.transpose(2, 3, 1, 0).reshape(-1, matrix.shape[0])
    out = layers.patchify(x, uvit.HALVES) @ kernel + bias
    return out.reshape(len(x), rows, columns, -1).transpose(0, 3, 1, 2)


def _up(tensors: Mapping[str, Any], seen: Mapping[str, Any]) -> Any:
    """UViT's step to twice the resolution: a Linear to patches."""
    x = seen["x"].transpose(0, 2, 3, 1)
    kernel = tensors["conv.weight"].transpose(0, 2, 3, 1)  # theirs is (inputs, outputs, row, column)
    count = kernel.shape[-1]
    tokens = x.reshape(len(x), -1, x.shape[-1]) @ kernel.reshape(len(kernel), -1) + jnp.tile(tensors["conv.bias"], 4)
    return layers.unpatchify(tokens, (2 * x.shape[1], 2 * x.shape[2], count), uvit.HALVES).transpose(0, 3, 1, 2)


SEQUENCES = {"x": (2, TOKENS, WIDTH), "context": (2, TEXT, WIDTH)}
PARTS = {
    part.name: part
    for part in (
        Part("cross-attention", _attention_shapes(""), SEQUENCES, _cross_attention),
        Part(
            "crossdit-block",
            _attention_shapes("attn1__")
            | _attention_shapes("attn2__")
            | linear_shapes(ff__net__0__proj=(4 * WIDTH, WIDTH), ff__net__2=(WIDTH, 4 * WIDTH))
            | linear_shapes(modulation=(6 * WIDTH, WIDTH)),
            SEQUENCES | {"y": (2, WIDTH)},
            _cross_block,
        ),
        _res_block_part("uvit-res-block", 16, 16),
        _res_block_part("uvit-res-block-with-shortcut", 24, 12),
        Part("uvit-down", linear_shapes(conv=(24, 12, 2, 2)), {"x": (2, 12, 6, 4)}, _down),
        Part("uvit-up", {"conv.weight": (24, 12, 2, 2), "conv.bias": (12,)}, {"x": (2, 24, 3, 2)}, _up),
    )
}
