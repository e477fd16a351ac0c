"""Imports, exports and inspects checkpoints of other projects.

    python -m rfjax.interop inspect CHECKPOINT                       prints layout, sizes and types; reads no weights
    python -m rfjax.interop import CHECKPOINT FOLDER                 makes a run's folder from a checkpoint
    python -m rfjax.interop export FOLDER TARGET --layout=sd3        writes a run's weights as a checkpoint

A CHECKPOINT is a diffusers folder, a .safetensors or a .pt file. DiT, SiT and REPA share their tensors but disagree on
the direction of time: choose one with --layout. Exit codes: 0 done, 2 a mistake (the message says how to fix it).
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from rfjax import terminal
from rfjax.buckets import is_address, mirror
from rfjax.errors import UserError
from rfjax.interop import layouts
from rfjax.tensors.safetensors import MAX_SHARD

DTYPES = ("float32", "float16", "bfloat16")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    listed = "\n".join(f"  {name:12}{form.description}" for name, form in layouts.LAYOUTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m rfjax.interop",
        description=f"{__doc__}\nLayouts:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    described = {"inspect": "print what a checkpoint holds", "import": "make a run's folder from a checkpoint"}
    for name, what in described.items():
        command = commands.add_parser(name, help=what)
        command.add_argument("source", type=_read, help="a diffusers folder, a .safetensors or a .pt file")
        if name == "import":
            command.add_argument("folder", type=_written, help="the run's folder to make")
        command.add_argument(
            "--layout", default="", help="layout of the checkpoint; default: recognised from its names"
        )
        command.add_argument("--heads", type=int, default=0, help="number of attention heads, for a .pt file")
        command.add_argument("--variant", default="", help="which of a folder's copies to read, such as fp16")
        command.add_argument("--allow-outside", action="store_true", help="also read files outside the folder")
    command = commands.add_parser("export", help="write a run's weights as another project's checkpoint")
    command.add_argument("folder", type=_read, help="a run's folder, such as work/scaling/runs/d6")
    command.add_argument("target", type=_written, help="the folder or file to write")
    command.add_argument("--layout", required=True, help="layout to write")
    command.add_argument("--weights", default="ema", choices=("ema", "raw"), help="averaged or final weights")
    command.add_argument("--dtype", default="", choices=("", *DTYPES), help="type of the tensors; default: unchanged")
    command.add_argument("--shard-bytes", type=int, default=MAX_SHARD, help="largest file of a folder, in bytes")
    return parser.parse_args(arguments)


def _read(path: str) -> Path:
    return mirror.reading(path, "the checkpoint")


def _written(path: str) -> Path:
    if is_address(path):
        raise UserError(f"'{path}' is in a bucket, and this command writes to a local folder: copy that to the bucket")
    return Path(path)


def main(arguments: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    terminal.print_anything()
    given = parse(arguments)
    try:
        return _run(given)
    except OSError as error:  # a file or folder can't be read, made or written
        raise UserError(f"{error.filename or 'a file'} can't be used: {error.strerror or error}") from error


def _run(given: argparse.Namespace) -> int:
    if given.command == "export":
        layouts.find_format(given.layout)  # before JAX starts, which takes seconds
        if given.shard_bytes < 1:
            raise UserError(f"--shard-bytes={given.shard_bytes} must be a number of bytes, such as {MAX_SHARD:,}")
    from rfjax.training import environment

    environment.check()
    if given.command == "inspect":
        return _inspect(given)
    environment.open_devices()
    import jax

    from rfjax import config as configs
    from rfjax import interop
    from rfjax.training import weights

    began = time.time()
    if given.command == "import":
        where, made = (
            given.folder,
            interop.import_checkpoint(given.source, given.folder, given.layout, _options(given)),
        )
    else:
        made = weights.read_weights(given.folder, configs.Mesh(), given.weights == "ema")
        dtypes = given.dtype or (interop.origin(given.folder) or {}).get("dtypes")
        where = interop.export(made, given.target, given.layout, dtypes, given.shard_bytes)
    count = sum(leaf.size for leaf in jax.tree.leaves(made.params))
    print(f"{where}: {count:,} parameters, {time.time() - began:.1f} s")
    if given.command == "import":
        print(
            f"to generate pictures: python -m rfjax.main --config=configs/generate.py --config.generate.source={where}"
        )
    return 0


def _options(given: argparse.Namespace) -> Any:
    from rfjax import interop

    if given.heads < 0:
        raise UserError(f"--heads={given.heads} must be a number of attention heads, such as 6")
    return interop.ImportOptions(given.heads, given.variant, given.allow_outside)


def _inspect(given: argparse.Namespace) -> int:
    """Prints a summary of a checkpoint, or its tensors if its layout is unknown."""
    from rfjax import interop
    from rfjax.models import measure
    from rfjax.tensors import transfer
    from rfjax.training.spec import make_run_spec

    options = _options(given)
    with options.open(given.source) as tensors:
        stored = Counter(tensors.kind(name) for name in tensors.names)
        try:
            info = interop.inspect(tensors, given.layout, options)
            spec = make_run_spec(info.config)
            transfer.check(tensors, interop.layout_of(info, spec), layouts.find_format(info.layout).ignore)
        except UserError:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in stored.items())
            print(f"{tensors.source}: {len(tensors.names)} tensors: {kinds or 'none'}")
            raise
    model = info.config.model
    size = measure(spec.model, spec.inputs)
    reads = f"text of width {spec.inputs.cond.context.shape[1]}, a pooled vector of {spec.inputs.cond.pooled.shape[0]}"
    if info.config.text.encoder == "labels":
        reads = f"{spec.inputs.cond.pooled.shape[0]} classes"
    sizes = f"depth {model.depth}, width {model.width}, {model.heads} heads, patch {model.patch}"
    rows = {
        "layout": f"{info.layout} ({layouts.find_format(info.layout).description})",
        "network": f"{model.backbone}, {sizes}",
        "image": " x ".join(map(str, spec.inputs.shape)),
        "reads": reads,
        "time": f"{spec.model.time}, formulation {info.config.flow.formulation}",
        "parameters": f"{size.parameters:,}",
        "forward": f"{size.forward_flops / 1e9:,.2f} GFLOPs an example",
        "stored as": ", ".join(f"{kind} ({count} tensors)" for kind, count in stored.items()),
    }
    print("\n".join([str(tensors.source), *(f"  {name:12}{value}" for name, value in rows.items())]))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        print(f"rfjax: {error}", file=sys.stderr)
        sys.exit(2)
