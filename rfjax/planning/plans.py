"""The plan of a run: its memory, communication, FLOPs and time."""

from dataclasses import dataclass, field

from rfjax.planning.advice import Suggestion
from rfjax.planning.tracing import DeviceMemory


@dataclass(frozen=True)
class LinkTraffic:
    """One kind of collective along some mesh axes, on one device in one step.

    Attributes:
        kind: such as "all-gather".
        axes: such as "data+fsdp".
        count: number of executions.
        requested: least bytes to receive, as the traced program requests them.
        compiled: least bytes to receive in XLA's program for CPUs, which sends some bfloat16 as float32.
    """

    kind: str
    axes: str
    count: int
    requested: float
    compiled: float


@dataclass(frozen=True)
class Cost:
    """The FLOPs of one step over all devices, and its time. FLOPs are of matrix products and convolutions.

    Attributes:
        model_flops: three times the forward pass.
        alignment_flops: of the encoders of features, forward, and of the projectors, three times forward.
        encoding_flops: of the autoencoder's encoder, on pictures.
        program_flops: of the traced program.
        recomputed_flops: of the traced program's recomputation in the backward pass.
        step_seconds: time of the model's FLOPs at config.plan.utilisation of the chips' peak.
        communication_seconds: least time of the communication.
    """

    model_flops: float
    alignment_flops: float
    encoding_flops: float
    program_flops: float
    recomputed_flops: float
    step_seconds: float
    communication_seconds: float


@dataclass(frozen=True)
class RunPlan:
    """The plan of one run.

    Attributes:
        name: of the run.
        mesh: axis -> devices.
        chip: a key of CHIPS.
        parameters: number of parameters of the model.
        memory: bytes on one device.
        limit: bytes of the chip's memory that a run may use.
        fits: whether the peak of memory is below the limit.
        traffic: the communication, the largest first.
        cost: FLOPs and time of one step.
        changes: suggestions that make the run fit, or that use the memory left.
        notes: remarks on the numbers.
        seconds: stage of planning -> seconds that it took.
    """

    name: str
    mesh: dict[str, int]
    chip: str
    parameters: int
    memory: DeviceMemory
    limit: float
    fits: bool
    traffic: tuple[LinkTraffic, ...]
    cost: Cost
    changes: tuple[Suggestion, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
