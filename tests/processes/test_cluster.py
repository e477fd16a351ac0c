"""Which environments are a cluster, and what JAX is told about it."""

import functools
import importlib.util
import os
import socket
import subprocess
import sys

import jax
import pytest
from jax._src import xla_bridge

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.training import cluster

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"}
POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
RFJAX = {"RFJAX_COORDINATOR": "127.0.0.1:9", "RFJAX_PROCESSES": "2", "RFJAX_PROCESS": "1"}


def collectives():
    """What makes JAX's collectives of CPUs; None in a version that makes them in another way."""
    return getattr(getattr(xla_bridge, "_jax", None), "make_gloo_tcp_collectives", None)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What `jax.distributed.initialize` was told, call for call."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **said: calls.append(said))
    if made := collectives():
        monkeypatch.setattr(xla_bridge._jax, "make_gloo_tcp_collectives", made)  # set back at the end
    return calls


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, False),
        (SLURM, True),
        (SLURM | {"SLURM_NTASKS": "1", "SLURM_STEP_NUM_TASKS": "1"}, False),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, False),  # a shell of salloc: the job has 8 tasks, this step one
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, False),  # the batch script, outside of srun
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "0"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_PROCESS_ADDRESSES": "a:1"}, False),  # JAX reads the second first
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_COORDINATOR_ADDRESS": "c", "MEGASCALE_NUM_SLICES": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_COORDINATOR_ADDRESS": "c", "MEGASCALE_NUM_SLICES": "1"}, False),
        ({"MEGASCALE_COORDINATOR_ADDRESS": "c"}, True),
        (POD | {"TPU_WORKER_HOSTNAMES": "a"}, False),  # a TPU host alone: its variables say all there is to say
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),  # a pod of no indexed job
        ({"OMPI_COMM_WORLD_SIZE": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"} | SLURM, False),
    ],
)
def test_several_processes_are_recognised(environ, found, told):
    assert cluster.several(environ) is found
    assert cluster.join(configs.Cluster(), environ) is found
    assert told == [{}] * found
    assert cluster.join(configs.Cluster(join="never"), environ) is False
    assert told == [{}] * found


@pytest.mark.parametrize("installed", [True, False])
def test_a_kubernetes_job_needs_a_package(installed, monkeypatch, told):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed or None)
    if installed:
        assert cluster.join(configs.Cluster(), POD)
        assert told == [{}]
    else:
        with pytest.raises(UserError, match=r"pip install kubernetes, or set config.cluster.join to never"):
            cluster.join(configs.Cluster(), POD)


def test_always_is_left_to_jax(told):
    assert cluster.join(configs.Cluster(join="always"), {}) is True
    assert told == [{}]


@pytest.mark.parametrize(
    ("settings", "environ", "expected"),
    [
        (configs.Cluster(), RFJAX, ("127.0.0.1:9", 2, 1)),
        (configs.Cluster(coordinator="host:1234", processes=3, process=0), RFJAX, ("host:1234", 3, 0)),
        (configs.Cluster(coordinator="[::1]:1234", processes=1, process=0), SLURM, ("[::1]:1234", 1, 0)),
        (configs.Cluster(join="always"), RFJAX | SLURM, ("127.0.0.1:9", 2, 1)),
    ],
)
def test_what_is_said_is_passed_on(settings, environ, expected, told):
    assert cluster.join(settings, environ) is True
    coordinator, processes, process = expected
    assert told == [
        {"coordinator_address": coordinator, "num_processes": processes, "process_id": process,
         "cluster_detection_method": "deactivate", "coordinator_bind_address": coordinator},
    ]  # fmt: skip


NAMES = {"node7": "10.0.0.7", "debian": "127.0.1.1"}


@pytest.mark.parametrize(
    ("address", "environ", "bound"),
    [
        ("127.0.0.1:1234", {}, "127.0.0.1:1234"),
        ("localhost:1234", {}, "localhost:1234"),
        ("[::1]:1234", {}, "[::1]:1234"),
        ("10.0.0.1:1234", {}, "10.0.0.1:1234"),
        ("node7:1234", {}, "node7:1234"),
        ("debian:1234", {}, None),  # here the name means the loopback address; to the others, another one
        ("unknown:1234", {}, "unknown:1234"),  # JAX says that it can't be found
        ("10.0.0.1:1234", {"JAX_COORDINATOR_BIND_ADDRESS": "192.168.0.1:1"}, None),  # JAX reads it itself
    ],
)
def test_process_0_listens_where_it_is_told_and_nowhere_else(address, environ, bound, told, monkeypatch):
    def find(name, port):
        if name not in NAMES:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (NAMES[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", find)
    cluster.join(configs.Cluster(coordinator=address, processes=2, process=0), environ)
    assert told[0].get("coordinator_bind_address") == bound
    made = collectives()
    local = made.keywords["hostname"] if isinstance(made, functools.partial) else None
    assert made is None or local == {
        "127.0.0.1:1234": "127.0.0.1",
        "localhost:1234": "127.0.0.1",
        "[::1]:1234": "::1",
    }.get(address)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"http_proxy": "http://p:1"}, "127.0.0.1"),
        ({"HTTPS_PROXY": "http://p:1", "no_proxy": "a,b"}, "a,b,127.0.0.1"),
        ({"grpc_proxy": "http://p:1", "no_proxy": "a", "no_grpc_proxy": "c"}, "c,127.0.0.1"),
    ],
)
def test_no_proxy_is_asked_for_the_coordinator(environ, expected, told):
    environ = RFJAX | environ
    cluster.join(configs.Cluster(), environ)
    assert environ.get("no_grpc_proxy") == expected


LISTENS = """
import os
from pathlib import Path
from rfjax import config
from rfjax.training import cluster

assert cluster.join(config.Cluster())
import jax
from jax.experimental import multihost_utils

multihost_utils.sync_global_devices("all are here")
ours = set()
for number in os.listdir("/proc/self/fd"):
    try:
        ours.add(os.readlink(f"/proc/self/fd/{number}"))
    except OSError:  # the one that listed them
        pass
for kind in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
        words = line.split()
        if words[3] == "0A" and f"socket:[{words[9]}]" in ours:
            print("listens on", words[1].split(":")[0])
jax.distributed.shutdown()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_local_coordinator_is_not_seen_from_outside_and_needs_no_proxy():
    """Read from the kernel's own table of what listens; a proxy that is not there would be waited for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environ = os.environ | {"RFJAX_COORDINATOR": address, "RFJAX_PROCESSES": "2", "http_proxy": "http://127.0.0.1:9"}
    jobs = [
        subprocess.Popen([sys.executable, "-c", LISTENS], env=environ | {"RFJAX_PROCESS": str(i)}, stdout=-1, text=True)
        for i in range(2)
    ]
    lines = "".join(job.communicate(timeout=60)[0] for job in jobs).splitlines()
    found = {line.removeprefix("listens on ") for line in lines if line.startswith("listens on ")}
    loopback = {"0100007F", "0000000000000000FFFF00000100007F"}  # also as IPv6 writes it
    assert found and found <= loopback


@pytest.mark.parametrize(
    ("keys", "environ", "words"),
    [
        ({"coordinator": "host"}, {}, "config.cluster.coordinator = 'host' is not written host:port"),
        ({"coordinator": "host:99999"}, {}, "config.cluster.coordinator = 'host:99999': a port is a number from 1 to"),
        ({}, {"RFJAX_COORDINATOR": "host:0"}, "RFJAX_COORDINATOR = 'host:0': a port is a number from 1 to 65535"),
        ({"coordinator": "http://host:1"}, {}, "is not written host:port"),
        ({"coordinator": "host:1"}, {}, "config.cluster.processes must say how many processes there are"),
        ({"coordinator": "host:1", "processes": 2}, {}, "config.cluster.process = -1 is none of the 2"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, {}, "process = 2 is none of the 2 processes, 0 to 1"),
        ({}, {"RFJAX_COORDINATOR": "host:1"}, "RFJAX_PROCESSES must say how many processes there are"),
        ({}, RFJAX | {"RFJAX_PROCESSES": "two"}, "the environment's RFJAX_PROCESSES = 'two' is not a number"),
        ({}, RFJAX | {"RFJAX_PROCESS": "2"}, "RFJAX_PROCESS = 2 is none of the 2 processes"),
        ({}, SLURM | {"SLURM_STEP_NUM_TASKS": "many"}, "the environment's SLURM_STEP_NUM_TASKS = 'many'"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_key(keys, environ, words, told):
    with pytest.raises(UserError) as error:
        cluster.join(configs.Cluster(**keys), environ)
    assert words in str(error.value)
    assert told == []


@pytest.mark.parametrize("kind", [ValueError, RuntimeError])
def test_what_jax_does_not_find_is_a_sentence(kind, monkeypatch):
    def initialize(**said):
        raise kind("coordinator_address\nshould be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=r"\(coordinator_address should be defined\.\): set config.cluster.coordinator"):
        cluster.join(configs.Cluster(join="always"), {})


@pytest.mark.parametrize(("platforms", "collectives"), [("cpu", "gloo"), ("cuda,cpu", "mpi"), ("", "mpi")])
def test_collectives_are_chosen_for_cpus_only(platforms, collectives, told):
    before = jax.config.jax_cpu_collectives_implementation
    jax.config.update("jax_cpu_collectives_implementation", "mpi")
    try:
        cluster.join(configs.Cluster(), RFJAX | {"JAX_PLATFORMS": platforms})
        assert jax.config.jax_cpu_collectives_implementation == collectives
    finally:
        jax.config.update("jax_cpu_collectives_implementation", before)


def test_jax_is_really_asked():
    """JAX's own words, where it finds no cluster, reach the user in a sentence."""
    code = (
        "from rfjax import config; from rfjax.training import cluster; cluster.join(config.Cluster(join='always'), {})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "rfjax.errors.UserError: this process could not join the others of its job" in done.stderr
