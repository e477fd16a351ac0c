"""What a training step communicates on up to 64 devices, as XLA compiles it, against what it must.

    python -m benchmarks.collectives [DATAxFSDPxTENSOR ...]     by default MESHES: a minute, less the second time
    python -m benchmarks.collectives --json [DATAxFSDPxTENSOR ...]

Compiles the step of a small MM-DiT for virtual CPU devices, with nothing allocated, and prints the bytes that a device
receives in a step beside those of closed forms (docs/results/collectives.md). Expect them to be equal, but for some
hundred bytes of the gradient's norm, and nothing besides: "1.0000" in the last column.
"""

import json
import math
import sys

import jax

from rfjax import config as configs
from rfjax.compiling import quick_options
from rfjax.planning import hlo, tracing
from rfjax.training import mesh as meshes
from rfjax.training import step as steps
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

MESHES = ((1, 8, 1), (1, 64, 1), (8, 8, 1), (16, 1, 4), (4, 4, 4), (2, 16, 2))  # (data, fsdp, tensor)
DEVICES = 64
DEPTH, WIDTH, HEADS, ROWS = 24, 64, 4, 4  # rows: examples on one device
SIDE, PATCH, CHANNELS, TEXT = 8, 2, 16, 4  # with these, every Linear is a multiple of WIDTH in both dimensions
FLOAT = 4  # bytes; in bfloat16, CPUs would send some of it as float32

Mesh = tuple[int, int, int]
Bytes = dict[tuple[str, str], float]  # (kind, axes) -> bytes that a device receives in a step


def config(mesh: Mesh) -> configs.Config:
    """The model on a mesh, with the same number of examples on each device whatever the mesh."""
    c = configs.default()
    c.data.update(name="folder", path="not-opened", image_size=SIDE, channels=CHANNELS)
    c.text.update(length=TEXT, width=WIDTH, pooled_width=WIDTH)
    c.model.update(depth=DEPTH, width=WIDTH, heads=HEADS, patch=PATCH, precision="float32", remat="none")
    c.training.batch = ROWS * mesh[0] * mesh[1]
    c.mesh.update(data=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    return configs.parse(c)


def compiled(shape: Mesh) -> hlo.Communication:
    """The collectives of the step that XLA compiles for a mesh."""
    made = config(shape)
    spec, mesh = make_run_spec(made), meshes.make_mesh(made.mesh, jax.devices()[: math.prod(shape)])
    arguments = abstract_state(spec, mesh), *tracing.arguments(made, spec, mesh)
    return hlo.read_communication(steps.jit_update(spec, mesh).lower(*arguments).compile(quick_options()).as_text())


def weights(tensor: int = 1) -> dict[str, float]:
    """Bytes of the matrices of one of `tensor` devices: of the blocks in the scan, of the last, and of the ends.

    A stream has 6 matrices of modulation, which `tensor` does not share, and 3 to q, k, v, 1 from the heads and 2 x 4
    of the MLP, which it does; the last block's text has 2 and 3. The ends: patches 1, text 1, time 4 + 1, the pooled
    text 1 + 1, the last modulation 2, the last Linear 1.
    """
    stream, text = 6 + 12 / tensor, 2 + 3 / tensor
    square = FLOAT * WIDTH**2
    return {"blocks": (DEPTH - 1) * 2 * stream * square, "last": (stream + text) * square, "ends": 12 * square}


def biases(tensor: int) -> float:
    """Bytes of the biases' gradients that have to be added up; those of the two vectors that make up y are the same."""
    stream, text, ends = 8 + 7 / tensor, 2 + 3 / tensor, 9
    same = 1
    return FLOAT * WIDTH * (((DEPTH - 1) * 2 + 1) * stream + text + ends - same)


def activations(tensor: int) -> float:
    """Bytes of all that is added up over `tensor`.

    For each stream and block the outputs behind the attention and the MLP, and the gradients before both (Megatron); of
    the last block's text only the gradient before the attention.
    """
    image = (SIDE // PATCH) ** 2
    tokens = 4 * DEPTH * image + (4 * (DEPTH - 1) + 1) * TEXT
    return FLOAT * WIDTH * ROWS * tokens if tensor > 1 else 0.0


def theory(shape: Mesh) -> Bytes:
    """What a device must receive: (n - 1) / n of all that is gathered or scattered, twice that of what is added up.

    Weights are gathered for the forward and for the backward pass of a block in the scan, and else once: the last
    block's backward pass begins where its forward pass ends. Gradients are scattered once.
    """
    data, fsdp, tensor = shape
    parts = weights(tensor)
    whole, shards = sum(parts.values()), sum(parts.values()) / fsdp
    sharing = "+".join(name for name, n in (("data", data), ("fsdp", fsdp)) if n > 1)
    found: Bytes = {}

    def add(kind: str, axes: str, n: int, size: float) -> None:
        if n > 1 and size:
            found[kind, axes] = found.get((kind, axes), 0.0) + hlo.received(kind, size, n)

    add("all-gather", "fsdp", fsdp, 2 * parts["blocks"] + parts["last"] + parts["ends"])
    add("reduce-scatter", "fsdp", fsdp, whole)
    add("all-reduce", "data", data, shards)
    add("all-reduce", sharing, data * fsdp, biases(tensor) + FLOAT)  # and the loss
    add("all-reduce", "tensor", tensor, activations(tensor))
    return found


def main(arguments: list[str]) -> None:
    """Prints the table, or with --json a list of {mesh, traffic: [[kind, axes, executions, bytes], ...]}."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", DEVICES)
    asked = [tuple(map(int, word.split("x"))) for word in arguments if not word.startswith("--")]
    records = []
    for shape in asked or MESHES:
        read = compiled(shape)
        found = read.by_axes(dict(zip(("data", "fsdp", "tensor"), shape, strict=True)))
        lines = [[*key, one.count, one.bytes] for key, one in sorted(found.items(), key=lambda item: -item[1].bytes)]
        records.append({"mesh": shape, "traffic": lines, "unknown": read.unknown})
        if "--json" not in arguments:
            print("x".join(map(str, shape)), flush=True)
            must = theory(shape)
            for kind, axes, count, size in lines:
                least = must.get((kind, axes), 0.0)
                ratio = f"{size / least:.4f}" if least else "the gradient's norm"
                print(f"  {kind + ' over ' + axes:28} {count:4} x  {size:12,.0f}  {least:12,.0f}  {ratio}", flush=True)
    if "--json" in arguments:
        print(json.dumps(records))


if __name__ == "__main__":
    main(sys.argv[1:])
