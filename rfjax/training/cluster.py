"""Joining the processes of one job."""

import os

import jax

from rfjax.errors import UserError


def join() -> None:
    """Finds the other processes: by itself on TPU pods, Slurm and GKE, elsewhere from the environment.

    launch/local.sh sets RFJAX_COORDINATOR (host:port), RFJAX_PROCESSES and RFJAX_PROCESS for each process.

    Raises:
        UserError: if there is nothing to join.
    """
    if "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        if "RFJAX_COORDINATOR" in os.environ:
            jax.distributed.initialize(
                os.environ["RFJAX_COORDINATOR"],
                num_processes=int(os.environ["RFJAX_PROCESSES"]),
                process_id=int(os.environ["RFJAX_PROCESS"]),
            )
        else:
            jax.distributed.initialize()
    except (ValueError, KeyError) as error:
        raise UserError(f"config.distributed finds no cluster to join ({error}): see launch/") from error
