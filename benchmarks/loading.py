"""Seconds and memory to load a checkpoint of 2 billion parameters, against reading its bytes with safetensors alone.

    python -m benchmarks.loading [FOLDER]       by default a new temporary folder, deleted at the end; needs safetensors

Writes random float16 numbers as SD3 medium's 2.03 billion parameters, in files of 2 GB, then loads them into arrays
stacked over the blocks, on a CPU. Prints medians of ROUNDS, interleaved, each load in a process of its own: seconds,
the processor's seconds, and the peak of the resident memory with the arrays' share of it.
"""

import functools
import importlib.metadata
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np

from rfjax import interop
from rfjax.interop import sd3
from rfjax.models.counting import abstract_parameters
from rfjax.tensors import transfer
from rfjax.tensors.layout import Layout
from rfjax.tensors.opening import open_tensors
from rfjax.tensors.safetensors import write_safetensors
from rfjax.training.spec import make_run_spec

ROUNDS, SHARD = 3, 2_000_000_000
Target = dict[str, jax.ShapeDtypeStruct]


def sd3_medium() -> tuple[Layout, Target]:
    """SD3 medium as a diffusers folder has it, 24 blocks of width 1536, in float16 on one CPU device."""
    model = {"depth": 24, "width": 1536, "heads": 24, "stored_positions": 192}
    config = sd3.make_config(128, 16, (4096, 2048), model)
    spec = make_run_spec(config)
    place = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    target = {
        path: jax.ShapeDtypeStruct(leaf.shape, np.float16, sharding=place)
        for path, leaf in interop.flat(abstract_parameters(spec.model, spec.inputs)).items()
    }
    return sd3.layout(spec.model, spec.inputs, sd3.DIFFUSERS), target


def write(folder: Path) -> None:
    """A checkpoint of random numbers."""
    layout, target = sd3_medium()
    manifest = transfer.specs(target, layout)
    rng = np.random.default_rng(0)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for name, spec in manifest.items():
            yield name, rng.integers(0, 0x7C00, spec.shape, np.uint16).view(np.float16)  # finite and positive

    write_safetensors(folder, tensors(), manifest, max_shard_bytes=SHARD)


def one_by_one(folder: Path) -> list[np.ndarray]:
    import safetensors  # a peer, which only this needs

    arrays = []
    for file in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(file, "np") as opened:
            arrays += [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118 - it is no dict
    return arrays


def whole_files(folder: Path) -> list[np.ndarray]:
    import safetensors.numpy

    return [x for file in sorted(folder.glob("*.safetensors")) for x in safetensors.numpy.load_file(file).values()]


def ours(folder: Path, dtype: Any = None) -> list[jax.Array]:
    layout, target = sd3_medium()
    with open_tensors(folder) as tensors:
        return list(transfer.load(tensors, layout, target, dtype).values())


WAYS = {
    "safetensors, safe_open and get_tensor": one_by_one,
    "safetensors, load_file": whole_files,
    "rfjax": ours,
    "rfjax, to bfloat16": functools.partial(ours, dtype=ml_dtypes.bfloat16),
}


def resident(kind: str) -> int:
    """This process's resident memory in bytes: VmRSS now, VmHWM at its peak."""
    return 1024 * int(Path("/proc/self/status").read_text().split(f"{kind}:")[1].split()[0])


def settle(folder: Path) -> None:
    """Brings the files into the page cache, and has a virtual machine's host give the memory that a load will take.

    Without this, the first touch of a page costs more than all else, and differs from minute to minute.
    """
    taken = [np.fromfile(file, np.uint8) for file in folder.glob("*.safetensors")]
    taken.append(np.ones(SHARD, np.uint8))
    del taken
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak of this process starts again


def measure(way: str, folder: Path) -> tuple[float, float, int, int]:
    """Seconds, the processor's seconds, peak bytes and the arrays' bytes of one load in a fresh process."""
    jax.config.update("jax_platforms", "cpu")
    jax.devices()
    settle(folder)
    before, clock, start = resident("VmRSS"), time.process_time(), time.perf_counter()
    arrays = WAYS[way](folder)
    spent = time.perf_counter() - start, time.process_time() - clock
    return *spent, resident("VmHWM") - before, sum(array.nbytes for array in arrays)


def loads(folder: Path) -> None:
    """The table of whole loads."""
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    print(f"{sum(sizes) / 1e9:.2f} GB in {len(sizes)} files, the largest {max(sizes) / 1e9:.2f} GB")
    context, found = multiprocessing.get_context("spawn"), {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, runs in found.items():
            with ProcessPoolExecutor(1, context) as process:
                runs.append(process.submit(measure, way, folder).result())
    first = statistics.median(run[0] for run in found[next(iter(WAYS))])
    for way, runs in found.items():
        middle, processor, peak, result = (statistics.median(column) for column in zip(*runs, strict=True))
        print(
            f"{way:>40}  {middle:6.2f} s ({min(runs)[0]:.2f} to {max(runs)[0]:.2f})  x {middle / first:.2f}"
            f"  processor {processor:5.2f} s  peak {peak / 1e9:.2f} GB - arrays {result / 1e9:.2f} GB"
            f" = {(peak - result) / 1e9:.2f} GB"
        )


def main(arguments: list[str]) -> None:
    """Writes the checkpoint where there is none, and prints the table."""
    jax.config.update("jax_platforms", "cpu")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "numpy", "safetensors")]
    print(*versions, f"{transfer.THREADS} threads", sep=", ")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments[0]) if arguments else Path(temporary)
        if not any(folder.glob("*.safetensors")):
            write(folder)
        loads(folder)


if __name__ == "__main__":
    main(sys.argv[1:])
