"""Joining the processes of one job."""

import contextlib
import functools
import importlib.util
import ipaddress
import os
import re
import socket
from collections.abc import Mapping, MutableMapping

import jax

from rfjax import config as configs
from rfjax.errors import UserError

LARGEST_PORT = 65535


def join(settings: configs.Cluster, environ: MutableMapping[str, str] = os.environ) -> bool:
    """Joins the other processes of this job, and returns whether it did; to be called before anything else uses JAX.

    The first of these that says something decides:
      1. config.cluster.join = never: this process is alone;
      2. config.cluster.coordinator, processes and process;
      3. RFJAX_COORDINATOR, RFJAX_PROCESSES and RFJAX_PROCESS, which launch/local.sh sets;
      4. config.cluster.join = always: whatever JAX finds by itself;
      5. the environment, where it says that there are several processes (`several`): likewise.

    A TPU VM that was made by gcloud says nothing in its environment, and JAX asks the machine's metadata server. That
    takes seconds on machines that have none, so it is left to join = always, which launch/tpu_pod.sh passes.

    A coordinator that is said (2, 3) listens on its address alone, and is reached without a proxy.

    Raises:
        UserError: if the addresses or the counts make no sense, or if JAX finds no other processes where it must.
    """
    if settings.join == "never":
        return False
    said = _said(settings, environ)
    if not said and settings.join == "auto" and not several(environ):
        return False
    if environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if said:
        said |= _reach(str(said["coordinator_address"]), environ)
    try:
        jax.distributed.initialize(**said)
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if said.get("process_id") == 0 and "coordinator_bind_address" in said:
            reason += (
                f"; process 0 listens on {said['coordinator_bind_address']}, which must be its machine's and free, "
            )
            reason += "or else on JAX_COORDINATOR_BIND_ADDRESS"
        raise UserError(
            f"this process could not join the others of its job ({reason}): set config.cluster.coordinator, processes "
            "and process, or config.cluster.join to never where it is alone"
        ) from error
    return True


def _reach(coordinator: str, environ: MutableMapping[str, str]) -> dict[str, object]:
    """Where process 0 listens: JAX's own choice is every interface of the machine, for whoever can reach it to join.

    A user's JAX_COORDINATOR_BIND_ADDRESS comes first: behind a NAT, process 0 has another address than the one given.
    Where the machine's name means its loopback address, as in Debian's /etc/hosts, JAX chooses.
    """
    host = coordinator.rpartition(":")[0].strip("[]")
    loopback, means_loopback = _loopback(host), False
    if any("_proxy" in name.lower() for name in environ):  # gRPC would ask the proxy for the coordinator, and wait
        kept = environ.get("no_grpc_proxy", environ.get("no_proxy", ""))
        environ["no_grpc_proxy"] = ",".join(filter(None, (kept, host)))
        jax.config.update("jax_check_proxy_envs", False)  # a warning of what can no longer happen
    if loopback:
        _collect_on(host if host != "localhost" else "127.0.0.1")
    if loopback is None:
        with contextlib.suppress(OSError):  # a name that this machine does not know
            means_loopback = any(_loopback(str(found[4][0])) for found in socket.getaddrinfo(host, None))
    if "JAX_COORDINATOR_BIND_ADDRESS" in environ or means_loopback:
        return {}
    return {"coordinator_bind_address": coordinator}


def _loopback(host: str) -> bool | None:
    """Whether a host is this machine's loopback address; None for a name, which may mean anything."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return None


def _collect_on(host: str) -> None:
    """Lets the collectives of CPUs listen on an address; JAX leaves it to gloo, which takes that of the machine's name.

    JAX has no setting for it. A version that makes them in another way keeps gloo's choice.
    """
    from jax._src import xla_bridge

    library = getattr(xla_bridge, "_jax", None)
    make = getattr(library, "make_gloo_tcp_collectives", None)
    if make is not None and not isinstance(make, functools.partial):
        library.make_gloo_tcp_collectives = functools.partial(make, hostname=host)


def _said(settings: configs.Cluster, environ: Mapping[str, str]) -> dict[str, object]:
    """What config.cluster or the environment says for `jax.distributed.initialize`; nothing without a coordinator."""
    if settings.coordinator:
        names = ("config.cluster.coordinator", "config.cluster.processes", "config.cluster.process")
        coordinator, processes, process = settings.coordinator, settings.processes, settings.process
    elif "RFJAX_COORDINATOR" in environ:
        names = ("RFJAX_COORDINATOR", "RFJAX_PROCESSES", "RFJAX_PROCESS")
        coordinator = environ[names[0]]
        processes, process = _number(environ, names[1], 0), _number(environ, names[2], -1)
    else:
        return {}
    if not re.fullmatch(r"[^\s/]+:\d{1,5}", coordinator):
        raise UserError(f"{names[0]} = '{coordinator}' is not written host:port, such as 10.0.0.1:1234")
    if not 1 <= int(coordinator.rpartition(":")[2]) <= LARGEST_PORT:
        raise UserError(f"{names[0]} = '{coordinator}': a port is a number from 1 to {LARGEST_PORT}")
    if processes < 1:
        raise UserError(f"{names[1]} must say how many processes there are, with {names[0]}")
    if not 0 <= process < processes:
        raise UserError(f"{names[2]} = {process} is none of the {processes} processes, 0 to {processes - 1}")
    # Left to look around, JAX would give each process within Slurm one GPU; here the caller has said it all.
    return {
        "coordinator_address": coordinator,
        "num_processes": processes,
        "process_id": process,
        "cluster_detection_method": "deactivate",
    }


def several(environ: Mapping[str, str]) -> bool:
    """Whether the environment says that this is one of several processes that `jax.distributed.initialize` can find.

    It looks for clusters in JAX's own order (jax/_src/clusters).

    Raises:
        UserError: in a pod of an indexed Kubernetes job without the package that JAX finds its siblings with.
    """
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return _number(environ, "OMPI_COMM_WORLD_SIZE", 1) > 1
    # Slurm's processes are those of srun: the batch script itself, and a shell of salloc, have no step or one task.
    if {"SLURM_JOB_ID", "SLURM_STEP_ID"} <= environ.keys():
        return _number(environ, "SLURM_STEP_NUM_TASKS", _number(environ, "SLURM_NTASKS", 1)) > 1
    hosts = environ.get("TPU_PROCESS_ADDRESSES", environ.get("TPU_WORKER_HOSTNAMES"))  # of a slice
    slices = "MEGASCALE_COORDINATOR_ADDRESS" in environ and environ.get("MEGASCALE_NUM_SLICES") != "1"
    if slices or hosts is not None:  # GKE sets both
        return slices or "," in hosts
    # A pod of an indexed job, such as a JobSet's: how many there are, only Kubernetes' server knows.
    indexed = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environ.keys()
    if indexed and importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            "this is a pod of an indexed Kubernetes job, and JAX needs the package kubernetes to find the others: "
            "pip install kubernetes, or set config.cluster.join to never if this pod is alone"
        )
    return indexed


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environ.get(name, default))
    except ValueError as error:
        raise UserError(f"the environment's {name} = '{environ[name]}' is not a number") from error
