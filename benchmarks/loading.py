"""Seconds and memory to load a checkpoint of 2 billion parameters, against reading its bytes with safetensors alone.

    python -m benchmarks.loading [FOLDER]       by default a new temporary folder, deleted at the end

Writes random float16 numbers with the shapes of SD3's 24 blocks in files of 2 GB, then loads them into arrays stacked
over the blocks, on a CPU. Prints medians of ROUNDS, interleaved, each load in a process of its own, from the system's
page cache: seconds, the processor's seconds, and the peak of the resident memory with the arrays' share of it;
then, for one matrix of every block that is in memory already, ways to transpose and stack.
"""

import functools
import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from rfjax.interop import engine
from rfjax.interop.layout import Layout, linear, same
from rfjax.interop.stored import bands
from rfjax.interop.tensors import open_tensors, write_safetensors

ROUNDS, SHARD, BLOCKS, WIDTH = 5, 2_000_000_000, 24, 1536
Target = dict[str, jax.ShapeDtypeStruct]
Make = Callable[[], tuple[Layout, Target]]


def synthetic() -> tuple[Layout, Target]:
    """Our leaves and their tensors: blocks as large as SD3's, q, k and v stored one by one and held together by us."""
    matrices = {
        "adaln": (WIDTH, 6 * WIDTH),
        "out": (WIDTH, WIDTH),
        "mlp/0": (WIDTH, 4 * WIDTH),
        "mlp/1": (4 * WIDTH, WIDTH),
    }
    layout, shapes = {}, {}
    for stream in ("image", "text"):
        for name, (inputs, outputs) in matrices.items():
            shapes[f"blocks/{stream}/{name}/kernel"] = (BLOCKS, inputs, outputs)
            shapes[f"blocks/{stream}/{name}/bias"] = (BLOCKS, outputs)
            theirs = [f"blocks.{i}.{stream}.{name}" for i in range(BLOCKS)]
            layout[f"blocks/{stream}/{name}/kernel"] = tuple(
                linear(f"{their}.weight", inputs, outputs, (i,)) for i, their in enumerate(theirs)
            )
            layout[f"blocks/{stream}/{name}/bias"] = tuple(
                same(f"{their}.bias", (outputs,), (i,)) for i, their in enumerate(theirs)
            )
        shapes[f"blocks/{stream}/qkv/kernel"] = (BLOCKS, WIDTH, 3 * WIDTH)
        layout[f"blocks/{stream}/qkv/kernel"] = tuple(
            linear(
                f"blocks.{i}.{stream}.{part}.weight", WIDTH, WIDTH, (i, slice(None), slice(n * WIDTH, (n + 1) * WIDTH))
            )
            for i in range(BLOCKS)
            for n, part in enumerate("qkv")
        )
    place = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
    return layout, {path: jax.ShapeDtypeStruct(shape, np.float16, sharding=place) for path, shape in shapes.items()}


def write(folder: Path, make: Make) -> None:
    """A checkpoint of random numbers."""
    layout, target = make()
    manifest = engine.specs(target, layout)
    rng = np.random.default_rng(0)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for name, spec in manifest.items():
            yield name, rng.integers(0, 0x7C00, spec.shape, np.uint16).view(np.float16)  # finite and positive

    write_safetensors(folder, tensors(), manifest, max_shard_bytes=SHARD)


def one_by_one(folder: Path, _: Make) -> list[np.ndarray]:
    arrays = []
    for file in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(file, "np") as opened:
            arrays += [opened.get_tensor(name) for name in opened.keys()]  # noqa: SIM118 - it is no dict
    return arrays


def whole_files(folder: Path, _: Make) -> list[np.ndarray]:
    return [x for file in sorted(folder.glob("*.safetensors")) for x in safetensors.numpy.load_file(file).values()]


def ours(folder: Path, make: Make, dtype: Any = None) -> list[jax.Array]:
    layout, target = make()
    with open_tensors(folder) as tensors:
        return list(engine.load(tensors, layout, target, dtype).values())


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


def measure(way: str, folder: Path, make: Make) -> tuple[float, float, int, int]:
    """Seconds, the processor's seconds, peak bytes and the arrays' bytes of one load in a fresh process."""
    jax.config.update("jax_platforms", "cpu")
    jax.devices()
    settle(folder)
    before, clock, start = resident("VmRSS"), time.process_time(), time.perf_counter()
    arrays = WAYS[way](folder, make)
    spent = time.perf_counter() - start, time.process_time() - clock
    return *spent, resident("VmHWM") - before, sum(array.nbytes for array in arrays)


def loads(folder: Path, make: Make) -> None:
    """The table of whole loads."""
    sizes = [file.stat().st_size for file in folder.glob("*.safetensors")]
    print(f"{sum(sizes) / 1e9:.2f} GB in {len(sizes)} files, the largest {max(sizes) / 1e9:.2f} GB")
    context, found = multiprocessing.get_context("spawn"), {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, runs in found.items():
            with ProcessPoolExecutor(1, context) as process:
                runs.append(process.submit(measure, way, folder, make).result())
    first = statistics.median(run[0] for run in found[next(iter(WAYS))])
    for way, runs in found.items():
        middle, processor, peak, result = (statistics.median(column) for column in zip(*runs, strict=True))
        print(
            f"{way:>40}  {middle:6.2f} s ({min(runs)[0]:.2f} to {max(runs)[0]:.2f})  x {middle / first:.2f}"
            f"  processor {processor:5.2f} s  peak {peak / 1e9:.2f} GB - arrays {result / 1e9:.2f} GB"
            f" = {(peak - result) / 1e9:.2f} GB"
        )


def seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    start = time.perf_counter()
    jax.block_until_ready(work())
    return time.perf_counter() - start


def table(works: dict[str, Callable[[], Any]], size: int) -> None:
    """Prints a line for each way, relative to the first."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        seconds(work)
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(seconds(work))
    first = statistics.median(next(iter(times.values())))
    for name, found in times.items():
        middle = statistics.median(found)
        print(
            f"{name:>52}  {middle:6.3f} s ({min(found):.3f} to {max(found):.3f})  {size / middle / 1e9:5.2f} GB/s"
            f"  x {middle / first:.2f}"
        )


def transposes() -> None:
    """The table of ways to make (BLOCKS, in, out) of BLOCKS matrices (out, in) that are in memory."""
    rng = np.random.default_rng(0)
    theirs = [rng.integers(0, 0x7C00, (4 * WIDTH, WIDTH), np.uint16).view(np.float16) for _ in range(BLOCKS)]
    pool = ThreadPoolExecutor(engine.THREADS)
    stack = jax.jit(lambda *parts: jnp.stack([part.T for part in parts]))

    def numpy(mapper: Callable, rows: int, apart: bool = False) -> np.ndarray:
        out = np.empty((BLOCKS, WIDTH, 4 * WIDTH), np.float16)

        def fill(block: int) -> None:
            for start in range(0, 4 * WIDTH, rows):
                band = theirs[block][start : start + rows]
                out[block][:, start : start + rows] = (engine.staged(band, band.dtype) if apart else band).T

        list(mapper(fill, range(BLOCKS)))
        return out

    first, second = bands(theirs[0].shape, 2)[0]
    count, threads = second - first, f"{engine.THREADS} threads"
    table(
        {
            f"numpy, bands of {count} rows set apart, {threads}": lambda: numpy(pool.map, count, True),
            f"numpy, bands of {count} rows set apart": lambda: numpy(map, count, True),
            f"numpy, bands of {count} rows, {threads}": lambda: numpy(pool.map, count),
            f"numpy, bands of {count} rows": lambda: numpy(map, count),
            f"numpy, whole matrices, {threads}": lambda: numpy(pool.map, 4 * WIDTH),
            f"device_put of transposed views, {threads}, stack": lambda: jnp.stack(
                list(pool.map(lambda part: jax.device_put(part.T), theirs))
            ),
            "device_put of transposed views, stack": lambda: jnp.stack([jax.device_put(x.T) for x in theirs]),
            "XLA: jit of stack and transpose": lambda: stack(*theirs),
        },
        sum(part.nbytes for part in theirs),
    )


def main(arguments: list[str], make: Make = synthetic) -> None:
    """make: our layout and target, a function of a module (each process calls it)."""
    jax.config.update("jax_platforms", "cpu")
    versions = [f"{package.__name__} {package.__version__}" for package in (jax, np, safetensors)]
    print(*versions, f"{engine.THREADS} threads", sep=", ")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments[0]) if arguments else Path(temporary)
        if not any(folder.glob("*.safetensors")):
            write(folder, make)
        loads(folder, make)
    transposes()


if __name__ == "__main__":
    main(sys.argv[1:])
