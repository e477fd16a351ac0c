"""The job `plan`: what the runs of a study need of memory, communication and time on devices that need not be there.

The training step is traced for the mesh, and compiled for as many virtual CPU devices; nothing is allocated, and no
data set is opened.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import flow, models
from rfjax.config import Config
from rfjax.errors import Exit, UserError, nearest
from rfjax.jsonl import write_json
from rfjax.planning import advice, hlo, text
from rfjax.planning.chips import CHIPS
from rfjax.planning.tracing import Compiled, Memory, Step, compile_step, trace, z_type
from rfjax.training import mesh as meshes
from rfjax.training.spec import make_run_spec

MARGIN = 0.08  # of a chip's memory, for the runtime, fragmentation and what a compiler does otherwise than expected
VERIFY_SECONDS = 60.0  # a suggestion is compiled too where compiling the plan took no longer
NOTED_SHARE = 0.01  # of the communication, that a compiler adds to what was asked
TPU_LANES = 128  # arrays on TPUs are padded to multiples of it in their last dimension

Devices = Sequence[jax.Device]


@dataclass(frozen=True)
class Line:
    """Communication of a kind along some axes, on one device in one step: bytes that it must receive at least.

    asked: as the program says. compiled: in XLA's program for CPUs, which sends some bfloat16 as float32.
    """

    kind: str
    axes: str
    count: int
    asked: float
    compiled: float


@dataclass(frozen=True)
class Work:
    """FLOPs are of the matrix products of one step, over all devices.

    Attributes:
        model: three times the forward pass. program: of the traced program. again: of those, what the backward pass
            computes for the second time.
        step_seconds: at config.plan.utilisation of the chip's peak. link_seconds: of communication, at least.
    """

    model: float
    program: float
    again: float
    step_seconds: float
    link_seconds: float


@dataclass(frozen=True)
class Plan:
    """All that is known about one run.

    Attributes:
        limit: bytes of the chip's memory that can be used. fits: whether the peak is under it.
        changes: what would help, or where there is room, what that allows. seconds: that the plan took.
    """

    name: str
    mesh: dict[str, int]
    chip: str
    parameters: int
    memory: Memory
    limit: float
    fits: bool
    traffic: tuple[Line, ...]
    work: Work
    changes: tuple[advice.Change, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)


class Progress:
    """Says what is being done, and for how long it was."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._say, self._began, self._name = say, time.monotonic(), ""

    def __call__(self, name: str, doing: str = "") -> None:
        """Begins something; "" ends the last."""
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = now - self._began
        self._began, self._name = now, name
        if doing:
            self._say(doing)


def run(config: Config, started: float) -> int:
    """Plans each run of a study, or config.only; prints, and writes WORKDIR/plan.json; returns the exit code.

    Args:
        started: `time.time()` at the start of the process.

    Raises:
        UserError: for devices that the mesh can't make up, a batch that they can't divide, or too few virtual devices.
    """
    runs = dict(configs.runs(config))
    wanted = {name: one for name, one in runs.items() if config.only in ("", name)}
    if not wanted:
        raise UserError(f"the study has no run '{config.only}'{nearest(config.only, runs)}")
    devices = virtual_devices(config.plan.devices)
    for one in wanted.values():
        check(one, devices)
    path = Path(config.workdir) / "plan.json"
    plans: dict[Any, Plan] = {}
    record = {"config": config.to_dict(), "jax": jax.__version__, "plans": []}
    console = text.console()
    for name, one in wanted.items():
        key = (
            (spec := make_run_spec(one)),
            one.training.batch,
            z_type(one, spec),
        )  # seeds and formulations make no difference
        if key in plans:
            console.print(f"{name}: as {plans[key].name}")
        else:
            progress = Progress(lambda doing, name=name: console.print(f"{name}: {doing}"))
            plans[key] = plan(name, one, devices, progress)
            console.print(text.block(plans[key], one))
        record["plans"].append(asdict(replace(plans[key], name=name)))
    try:
        write_json(path, record)
    except OSError as error:
        raise UserError(f"the plan can't be written to {path}: {error.strerror}") from error
    console.print(f"written to {path}, after {time.time() - started:.0f} s")
    return Exit.DONE


def virtual_devices(count: int) -> Devices:
    """The first `count` CPU devices.

    Raises:
        UserError: if there are fewer.
    """
    found = jax.devices("cpu")
    if len(found) < count:
        raise UserError(
            f"config.plan.devices = {count}, and JAX was started with {len(found)}: set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count} before it starts"
        )
    return found[:count]


def check(config: Config, devices: Devices) -> None:
    """Raises UserError for what can be known at once: a mesh, a batch, a formulation that can't be."""
    mesh = meshes.make_mesh(config.mesh, devices)
    meshes.check_batch("training.batch", config.training.batch, mesh, config.training.accumulate)
    flow.formulation(config.flow.formulation, config.flow.shift)


def plan(name: str, config: Config, devices: Devices, progress: Progress) -> Plan:
    """Everything about one run."""
    uncut, config = config, _for_cpu(config)
    progress("trace", "tracing the training step")
    step = trace(config, devices)
    progress("compile", f"compiling it for {step.mesh.size} virtual devices")
    compiled = compile_step(config, step, devices)
    progress("count")
    found = hlo.read(compiled.text) if compiled else hlo.Communication(())
    memory = replace(step.memory, compiled=compiled.peak if compiled else 0)
    traffic = _lines(step, found.by_axes(compiled.mesh.shape) if compiled else {})
    limit = CHIPS[config.plan.chip].memory * (1 - MARGIN)
    made = Plan(
        name=name,
        mesh=dict(step.mesh.shape),
        chip=config.plan.chip,
        parameters=step.parameters,
        memory=memory,
        limit=limit,
        fits=memory.peak <= limit,
        traffic=traffic,
        work=_work(config, step, traffic),
    )
    notes = _notes(made, uncut, compiled, found)
    progress("advice", "looking for what else fits" if made.fits else "it does not fit: looking for what would")
    changes = _advice(config, step, made, devices)
    if not made.fits and progress.seconds["compile"] < VERIFY_SECONDS:
        progress("check", "compiling with the suggestion")
        changes = _verified(config, changes, devices, limit)
    progress("")
    return replace(made, changes=changes, notes=notes, seconds=dict(progress.seconds))


def _for_cpu(config: Config) -> Config:
    """The config with what CPUs can compile."""
    if config.model.attention != "cudnn":
        return config
    return replace(config, model=replace(config.model, attention="xla"))


def _lines(step: Step, compiled: dict[tuple[str, str], hlo.Traffic]) -> tuple[Line, ...]:
    """Communication as asked and as compiled, the largest first."""
    asked, none = step.program.traffic, hlo.Traffic()
    lines = []
    for kind, axes in {**asked, **compiled}:
        said, done = asked.get((kind, axes), none), compiled.get((kind, axes), none)
        lines.append(Line(kind, axes, said.count or done.count, said.bytes, done.bytes))
    return tuple(sorted(lines, key=lambda line: -max(line.asked, line.compiled)))


def _work(config: Config, step: Step, traffic: tuple[Line, ...]) -> Work:
    chip, parts = CHIPS[config.plan.chip], make_run_spec(config)
    flops = models.measure(parts.model, parts.inputs).train_flops * config.training.batch
    return Work(
        model=flops,
        program=step.program.flops * step.mesh.size,
        again=step.program.again * step.mesh.size,
        step_seconds=flops / (step.mesh.size * chip.peak(config.model.precision) * config.plan.utilisation),
        link_seconds=sum(line.asked or line.compiled for line in traffic) / chip.link,
    )


def _notes(made: Plan, config: Config, compiled: Compiled | None, found: hlo.Communication) -> tuple[str, ...]:
    """What a reader of the numbers should know besides."""
    work, notes = made.work, ["planned is the training step alone, not validation or samples"]
    if not compiled:
        notes.append("not compiled: one copy of the state is on more devices than JAX's CPU client has")
    elif dict(compiled.mesh.shape) != made.mesh:
        notes.append(
            f"compiled for {compiled.mesh.size} devices with their share of the batch: one of them does the same there"
        )
    if found.unknown:
        notes.append(f"loops of unknown length in the compiled program count once: {', '.join(found.unknown)}")
    added = [line for line in made.traffic if not line.asked]
    if sum(line.compiled for line in added) > NOTED_SHARE * sum(line.compiled for line in made.traffic):
        names = ", ".join(f"{line.kind} over {line.axes}" for line in added)
        notes.append(f"XLA adds communication that the step does not ask for: {names}")
        if config.optimizer.flatten:
            notes.append("config.optimizer.flatten takes shards apart: set it to False on more than one device")
    if work.link_seconds > work.step_seconds:
        notes.append(
            f"communication takes longer than the work, so {config.plan.utilisation:.0%} of the peak can't be reached: "
            f"{config.plan.utilisation * work.step_seconds / work.link_seconds:.0%} at most"
        )
    if config.model.attention == "cudnn":
        notes.append("planned is XLA's attention, which keeps its matrix of weights; cuDNN's needs less memory")
    width = (config.model.width or config.model.width_per_depth * config.model.depth) // (
        config.model.heads or config.model.depth
    )
    if made.chip.startswith("tpu") and width % TPU_LANES:
        notes.append(f"a TPU may pad heads of {width} channels to {-(-width // TPU_LANES) * TPU_LANES} in memory")
    return tuple(notes)


def _advice(config: Config, step: Step, made: Plan, devices: Devices) -> tuple[advice.Change, ...]:
    if not step.program.manual:
        return ()
    measure = lambda other: trace(other, devices).memory.most  # noqa: E731
    if made.fits:
        return advice.room(config, made.limit, measure)
    return advice.mend(config, made.mesh, made.limit, made.memory.most, measure)


def _verified(
    config: Config, changes: tuple[advice.Change, ...], devices: Devices, limit: float
) -> tuple[advice.Change, ...]:
    """The changes, with the first that fits compiled as well."""
    place = next((i for i, change in enumerate(changes) if change.fits and change.traced), None)
    if place is None:
        return changes
    best = changes[place]
    other = advice.changed(config, best.settings)
    compiled = compile_step(other, trace(other, devices), devices)
    better = replace(best, compiled=compiled.peak if compiled else 0)
    return (*changes[:place], better, *changes[place + 1 :])
