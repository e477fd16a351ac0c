"""Joining the processes of one job."""

import functools
import importlib.util
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Mapping, MutableMapping

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
    said = _from_config(settings) or _from_environment(environ)
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
    A name of the machine that means the loopback address there, as in Debian's /etc/hosts, means another one elsewhere:
    JAX chooses then.
    """
    host = coordinator.rpartition(":")[0].strip("[]")
    loopback = _is_loopback(host)
    if any("_proxy" in name.lower() for name in environ):  # gRPC would ask the proxy for the coordinator, and wait
        kept = environ.get("no_grpc_proxy", environ.get("no_proxy", ""))
        environ["no_grpc_proxy"] = ",".join(filter(None, (kept, host)))
        jax.config.update("jax_check_proxy_envs", False)  # a warning of what can no longer happen
    if loopback:
        _collect_on(host if host != "localhost" else "127.0.0.1")
    named = not loopback and not _is_address(host)
    if "JAX_COORDINATOR_BIND_ADDRESS" in environ or (named and _means_loopback(host)):
        return {}
    return {"coordinator_bind_address": coordinator}


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _means_loopback(name: str) -> bool:
    """Whether this machine takes a name for its loopback address; a name that it does not know is no such."""
    try:
        return any(_is_loopback(str(found[4][0])) for found in socket.getaddrinfo(name, None))
    except OSError:
        return False


def _collect_on(host: str) -> None:
    """Lets the collectives of CPUs listen on an address; JAX leaves it to gloo, which takes that of the machine's name.

    JAX has no setting for it. A version that makes them in another way keeps gloo's choice.
    """
    from jax._src import xla_bridge

    library = getattr(xla_bridge, "_jax", None)
    make = getattr(library, "make_gloo_tcp_collectives", None)
    if make is not None and not isinstance(make, functools.partial):
        library.make_gloo_tcp_collectives = functools.partial(make, hostname=host)


def _from_config(settings: configs.Cluster) -> dict[str, object]:
    """What config.cluster says for `jax.distributed.initialize`; nothing where it names no coordinator."""
    if not settings.coordinator:
        return {}
    names = ("config.cluster.coordinator", "config.cluster.processes", "config.cluster.process")
    return _checked(names, settings.coordinator, settings.processes, settings.process)


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """The same from RFJAX_COORDINATOR, RFJAX_PROCESSES and RFJAX_PROCESS."""
    names = ("RFJAX_COORDINATOR", "RFJAX_PROCESSES", "RFJAX_PROCESS")
    if names[0] not in environ:
        return {}
    return _checked(names, environ[names[0]], _number(environ, names[1], 0), _number(environ, names[2], -1))


def _checked(names: tuple[str, str, str], coordinator: str, processes: int, process: int) -> dict[str, object]:
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

    Raises:
        UserError: in a pod of an indexed Kubernetes job without the package that JAX finds its siblings with.
    """
    for place in PLACES:
        found = place(environ)
        if found is not None:
            return found
    return False


def _open_mpi(environ: Mapping[str, str]) -> bool | None:
    return _number(environ, "OMPI_COMM_WORLD_SIZE", 1) > 1 if "OMPI_COMM_WORLD_SIZE" in environ else None


def _slurm(environ: Mapping[str, str]) -> bool | None:
    """The processes of srun; the batch script itself, and a shell of salloc, have no step or one of a single task."""
    if not {"SLURM_JOB_ID", "SLURM_STEP_ID"} <= environ.keys():
        return None
    return _number(environ, "SLURM_STEP_NUM_TASKS", _number(environ, "SLURM_NTASKS", 1)) > 1


def _tpu(environ: Mapping[str, str]) -> bool | None:
    """The hosts of a slice, and slices: GKE sets both."""
    hosts = environ.get("TPU_PROCESS_ADDRESSES", environ.get("TPU_WORKER_HOSTNAMES"))
    slices = "MEGASCALE_COORDINATOR_ADDRESS" in environ and environ.get("MEGASCALE_NUM_SLICES") != "1"
    return slices or "," in hosts if hosts is not None else slices or None


def _kubernetes(environ: Mapping[str, str]) -> bool | None:
    """A pod of an indexed job, such as a JobSet's; how many there are, only Kubernetes' server knows."""
    if not {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environ.keys():
        return None
    if importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            "this is a pod of an indexed Kubernetes job, and JAX needs the package kubernetes to find the others: "
            "pip install kubernetes, or set config.cluster.join to never if this pod is alone"
        )
    return True


# In the order in which JAX looks (jax/_src/clusters); None: this process is in no such place.
PLACES: tuple[Callable[[Mapping[str, str]], bool | None], ...] = (_open_mpi, _slurm, _tpu, _kubernetes)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    try:
        return int(environ.get(name, default))
    except ValueError as error:
        raise UserError(f"the environment's {name} = '{environ[name]}' is not a number") from error
