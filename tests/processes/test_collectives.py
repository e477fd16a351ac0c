"""Read from the programs that XLA compiles for up to 64 devices: a training step sends what it must, and no more."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import collectives
from rfjax import files

ROOT = Path(__file__).parents[2]
NORM = 512  # bytes: of the gradient's global norm, a number for each leaf; measured: 398 at most
ALONE, FAR, BOTH, TENSOR, ALL, CROSS = collectives.MESHES


@pytest.fixture(scope="module")
def traffic(tmp_path_factory):
    """mesh -> (kind, axes) -> bytes that a device receives; of workers that test side by side, the first counts."""
    shared = "PYTEST_XDIST_WORKER" in os.environ
    folder = tmp_path_factory.getbasetemp()
    path = (folder.parent if shared else folder) / "traffic.json"
    try:
        path.with_suffix(".begun").touch(exist_ok=False)
    except FileExistsError:
        for _ in range(2400):
            if path.exists():
                break
            time.sleep(0.1)
    else:
        files.write(path, counted())
    records = json.loads(path.read_text())
    assert not any(record["unknown"] for record in records)  # every loop's turns are known
    return {
        tuple(record["mesh"]): {(kind, axes): size for kind, axes, _, size in record["traffic"]} for record in records
    }


def counted():
    """What a process with 64 devices compiles and counts."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "benchmarks.collectives", "--json"]
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sharded(found):
    """Bytes over `fsdp` alone, but for those of whole leaves."""
    return found["all-gather", "fsdp"] + found["reduce-scatter", "fsdp"]


@pytest.mark.parametrize("mesh", collectives.MESHES, ids=str)
def test_a_step_sends_what_closed_forms_say(traffic, mesh):
    found, must = traffic[mesh], collectives.theory(mesh)
    assert must.keys() <= found.keys()
    for (kind, axes), size in found.items():
        assert size == pytest.approx(must.get((kind, axes), 0), rel=1e-9, abs=NORM if kind == "all-reduce" else 0)
    # So there is nothing that moves rows of the batch or weights otherwise.
    assert {kind for kind, _ in found} <= {"all-gather", "reduce-scatter", "all-reduce"}
    assert {axes for kind, axes in found if kind != "all-reduce"} <= {"fsdp"}


@pytest.mark.parametrize("mesh", [mesh for mesh in collectives.MESHES if mesh[1] > 1], ids=str)
def test_weights_are_gathered_twice_and_gradients_scattered_once(traffic, mesh):
    share, size = (mesh[1] - 1) / mesh[1], sum(collectives.weights(mesh[2]).values())
    assert traffic[mesh]["all-gather", "fsdp"] == pytest.approx(2 * share * size, rel=0.04)  # the ends once
    assert traffic[mesh]["reduce-scatter", "fsdp"] == pytest.approx(share * size, rel=1e-9)


def test_more_devices_do_not_send_more(traffic):
    # Eight times the devices and the batch: the same but for (n - 1) / n, whichever axis grows.
    assert sharded(traffic[FAR]) / sharded(traffic[ALONE]) == pytest.approx((63 / 64) / (7 / 8), rel=1e-9)
    assert sharded(traffic[BOTH]) == sharded(traffic[ALONE])
    # The copies along `data` add up shards, an eighth of what they would without fsdp.
    size = sum(collectives.weights().values())
    assert traffic[BOTH]["all-reduce", "data"] == pytest.approx(2 * 7 / 8 * size / 8, rel=1e-9)


@pytest.mark.parametrize("mesh", [ALL, CROSS], ids=str)
def test_tensor_adds_its_own_and_takes_from_fsdp(traffic, mesh):
    data, fsdp, tensor = mesh
    without = collectives.theory((data, fsdp, 1))
    assert sharded(traffic[mesh]) < sharded(without)
    assert traffic[mesh]["all-reduce", "data"] < without["all-reduce", "data"]
    # Modulation, a third of the matrices of a stream, is not shared out.
    shared = 1 / 3 + 2 / 3 / tensor
    assert sharded(traffic[mesh]) / sharded(without) == pytest.approx(shared, rel=0.02)


def test_heads_are_added_up_four_times_a_stream_and_block(traffic):
    tokens = (collectives.SIDE // collectives.PATCH) ** 2 + collectives.TEXT
    one = collectives.ROWS * tokens * collectives.WIDTH * collectives.FLOAT
    megatron = 4 * collectives.DEPTH * one * 2 * 3 / 4
    # Both streams' outputs of a block's attention and its MLP, and both gradients; a fifth of it is text, of which the
    # last block only reads.
    least = 1 - 3 / 4 * (1 / 5) / collectives.DEPTH
    for mesh in (TENSOR, ALL):
        assert traffic[mesh]["all-reduce", "tensor"] == pytest.approx(least * megatron, abs=NORM)
