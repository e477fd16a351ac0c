"""The sections `mesh`, `cluster` and `plan`: the devices, processes and jobs that run a study."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Mesh:
    """Arranges the devices in three axes. The value -1, allowed for one axis, takes all remaining devices."""

    data: int = key(
        -1,
        "Sets the number of groups of devices that divide the batch and keep a full copy of the weights each. -1 "
        "takes all remaining devices.",
        low=1,
        high=2**20,
        also=-1,
    )
    fsdp: int = key(
        1,
        "Sets the number of devices that divide both the batch and the weights (fully sharded data parallelism). A "
        "larger value needs less memory per device and more communication.",
        low=1,
        high=2**20,
        also=-1,
    )
    tensor: int = key(
        1,
        "Sets the number of devices that divide the attention heads and the MLPs' hidden units, and see the same "
        "examples (tensor parallelism).",
        low=1,
        high=2**20,
        also=-1,
    )


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Connects the processes of one job, and lets several jobs share one study."""

    join: str = key(
        "auto",
        "Sets whether this process joins other processes as one job. `auto` joins if the environment shows several "
        "processes (TPU VMs, GKE, Slurm, launch/local.sh).",
        choices=("auto", "always", "never"),
    )
    coordinator: str = key(
        "", "Sets the address host:port of process 0. It is needed only if the environment does not provide it."
    )
    processes: int = key(
        0, "Sets the number of processes of the job. It is needed only together with `coordinator`.", low=0, high=2**20
    )
    process: int = key(
        -1,
        "Sets the index of this process, counted from 0. It is needed only together with `coordinator`.",
        low=-1,
        high=2**20,
    )
    stale_minutes: float = key(
        5.0,
        "Sets after how many minutes without a sign of life another job's lock on a run expires. A smaller value "
        "takes over a dead job's run sooner, and needs a shared file system that shows changes faster.",
        low=0.01,
        high=1e6,
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """The job `plan`: computes memory, communication and time of a study's runs on devices that need not exist here."""

    devices: int = key(8, "Sets the number of devices to plan for.", low=1, high=16_384)
    chip: str = key(
        "h100",
        "Chooses the type of device to plan for.",
        choices=("a100-40", "a100-80", "h100", "h200", "b200", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"),
    )
    latents: str = key(
        "float32",
        "Sets the number format of the data set's latents, and so the size of a batch. Stored latents may be float16.",
        choices=("float32", "float16"),
    )
    utilisation: float = key(
        0.4,
        "Sets the fraction of the chip's peak FLOP/s that training reaches (model FLOPs utilisation, MFU). The "
        "planned times are inversely proportional to it.",
        low=0.001,
        high=1,
    )
