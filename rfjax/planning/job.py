"""The job `plan`: computes the memory, communication and time of a study's runs on devices that need not exist here.

It traces the training step for the mesh and compiles it for virtual CPU devices. It allocates no arrays and opens no
data set.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from rfjax import config as configs
from rfjax import flow, models
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.errors import Exit, UserError, nearest
from rfjax.jsonl import write_json
from rfjax.planning import advice, hlo, plan_text, tracing
from rfjax.planning.chips import CHIPS
from rfjax.planning.plans import Cost, LinkTraffic, RunPlan
from rfjax.planning.tracing import CompiledStep, TracedStep, compile_step, trace, z_type
from rfjax.training import mesh as meshes
from rfjax.training.spec import make_run_spec

MARGIN = 0.08  # of a chip's memory, for the runtime, fragmentation and the compiler's deviations
VERIFY_SECONDS = 60.0  # a suggestion is compiled if compiling the plan took less
NOTED_SHARE = 0.01  # share of the communication that a compiler may add without a note
TPU_LANES = 128  # TPUs pad the last dimension of arrays to multiples of this

Devices = Sequence[jax.Device]


class Progress:
    """Prints each stage of planning, and measures its seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._say, self._began, self._name = say, time.monotonic(), ""

    def __call__(self, name: str, doing: str = "") -> None:
        """Ends the stage before, and begins the stage `name`, or none if it is ""."""
        now = time.monotonic()
        if self._name:
            self.seconds[self._name] = now - self._began
        self._began, self._name = now, name
        if doing:
            self._say(doing)


def run(config: Config, started: float) -> int:
    """Plans a study's runs, or the run config.only; prints the plans, writes WORKDIR/plan.json, returns the exit code.

    Args:
        started: `time.time()` at the start of the process.

    Raises:
        UserError: if the mesh does not fit the devices or the batch, or there are too few virtual devices.
    """
    runs = dict(configs.runs(config))
    wanted = {name: one for name, one in runs.items() if config.only in ("", name)}
    if not wanted:
        raise UserError(f"the study has no run '{config.only}'{nearest(config.only, runs)}")
    devices = virtual_devices(config.plan.devices)
    for one in wanted.values():
        check(one, devices)
    path = Path(config.workdir) / "plan.json"
    plans: dict[Any, RunPlan] = {}
    written = config.to_dict() | {"workdir": mirror.named(config.workdir)}
    record = {"config": written, "jax": jax.__version__, "plans": []}
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for name, one in wanted.items():
        spec = make_run_spec(one)
        key = spec, one.training.batch, z_type(one, spec)  # seeds and formulations don't change a plan
        if key in plans:
            console.print(f"{name}: the same as {plans[key].name}")
        else:
            progress = Progress(lambda doing, name=name: console.print(f"{name}: {doing}"))
            plans[key] = plan_run(name, one, devices, progress)
            console.print(plan_text.format_plan(plans[key], one))
        record["plans"].append(asdict(replace(plans[key], name=name)))
    try:
        write_json(path, record)
    except OSError as error:
        raise UserError(f"the plan can't be written to {path}: {error.strerror}") from error
    console.print(f"plan written to {mirror.named(str(path))} after {time.time() - started:.0f} s")
    return Exit.DONE


def virtual_devices(count: int) -> Devices:
    """The first `count` CPU devices.

    Raises:
        UserError: if there are fewer.
    """
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise UserError(
            f"config.plan.devices = {count}, but JAX was started with {len(devices)}: set "
            f"XLA_FLAGS=--xla_force_host_platform_device_count={count} before JAX starts"
        )
    return devices[:count]


def check(config: Config, devices: Devices) -> None:
    """Refuses a mesh, a batch or a formulation that can't work, before anything is traced."""
    mesh = meshes.make_mesh(config.mesh, devices)
    meshes.check_batch("training.batch", config.training.batch, mesh, config.training.accumulate)
    flow.formulation(config.flow.formulation, config.flow.shift)


def plan_run(name: str, config: Config, devices: Devices, progress: Progress) -> RunPlan:
    """Plans one run."""
    original = config
    if config.model.attention == "cudnn":
        config = advice.changed(config, {"model.attention": "xla"})  # which compiles on CPUs
    progress("trace", "tracing the training step")
    step = trace(config, devices)
    progress("compile", f"compiling the training step for {step.mesh.size} virtual devices")
    compiled = compile_step(config, step, devices)
    progress("count")
    communication = hlo.read_communication(compiled.text) if compiled else hlo.Communication(())
    memory = step.memory
    if compiled:
        before = memory.parameters + memory.ema + memory.optimizer + memory.batch + memory.encoding
        memory = replace(memory, compiled_peak=max(compiled.peak, before) + memory.encoders)
    traffic = _traffic(step, communication.by_axes(compiled.mesh.shape) if compiled else {})
    limit = CHIPS[config.plan.chip].memory * (1 - MARGIN)
    made = RunPlan(
        name=name,
        mesh=dict(step.mesh.shape),
        chip=config.plan.chip,
        parameters=step.parameters,
        memory=memory,
        limit=limit,
        fits=memory.peak <= limit,
        traffic=traffic,
        cost=_cost(config, step, traffic),
    )
    notes = _notes(made, original, compiled, communication)
    verdict = "fits: looking for less recomputation" if made.fits else "does not fit: looking for changes"
    progress("advice", f"the run {verdict}")
    changes = _advice(config, step, made, devices)
    if not made.fits and progress.seconds["compile"] < VERIFY_SECONDS:
        progress("check", "compiling the suggestion")
        changes = _verified(config, changes, devices, limit)
    progress("")
    return replace(made, changes=changes, notes=notes, seconds=dict(progress.seconds))


def _traffic(step: TracedStep, compiled: dict[tuple[str, str], hlo.Traffic]) -> tuple[LinkTraffic, ...]:
    """The communication of the traced and the compiled program, the largest first."""
    requested, none = step.program.traffic, hlo.Traffic()
    lines = []
    for kind, axes in {**requested, **compiled}:
        traced, done = requested.get((kind, axes), none), compiled.get((kind, axes), none)
        lines.append(LinkTraffic(kind, axes, traced.count or done.count, traced.bytes, done.bytes))
    return tuple(sorted(lines, key=lambda line: -max(line.requested, line.compiled)))


def _cost(config: Config, step: TracedStep, traffic: tuple[LinkTraffic, ...]) -> Cost:
    chip, parts = CHIPS[config.plan.chip], make_run_spec(config)
    flops = models.measure(parts.model, parts.inputs).train_flops * config.training.batch
    aligning = sum(parts.alignment_flops.values()) * config.training.batch
    encoding = tracing.encoding(parts, 1)[0] * config.training.batch
    speed = step.mesh.size * chip.peak(config.model.precision) * config.plan.utilisation
    return Cost(
        model_flops=flops,
        alignment_flops=aligning,
        encoding_flops=encoding,
        program_flops=step.program.flops * step.mesh.size,
        recomputed_flops=step.program.recomputed * step.mesh.size,
        step_seconds=(flops + aligning + encoding) / speed,
        communication_seconds=sum(line.requested or line.compiled for line in traffic) / chip.link,
    )


def _notes(
    made: RunPlan, config: Config, compiled: CompiledStep | None, communication: hlo.Communication
) -> tuple[str, ...]:
    """Remarks that a reader of the numbers needs."""
    cost, notes = made.cost, ["the plan covers the training step, not validation or sampling"]
    if not compiled:
        notes.append("not compiled: one copy of the state has more devices than JAX's CPU client")
    elif dict(compiled.mesh.shape) != made.mesh:
        notes.append(
            f"compiled for {compiled.mesh.size} devices and their share of the batch: each device does the same"
        )
    if communication.unknown:
        notes.append(f"loops of unknown length in the compiled program count once: {', '.join(communication.unknown)}")
    added = [line for line in made.traffic if not line.requested]
    if sum(line.compiled for line in added) > NOTED_SHARE * sum(line.compiled for line in made.traffic):
        names = ", ".join(f"{line.kind} over {line.axes}" for line in added)
        notes.append(f"XLA adds communication that the step does not request: {names}")
        if config.optimizer.flatten:
            notes.append("config.optimizer.flatten breaks up shards: set it to False on more than one device")
    if cost.communication_seconds > cost.step_seconds:
        notes.append(
            f"communication takes longer than computation, so that training reaches at most "
            f"{config.plan.utilisation * cost.step_seconds / cost.communication_seconds:.0%} of the peak, not "
            f"{config.plan.utilisation:.0%}"
        )
    if config.model.attention == "cudnn":
        notes.append("the plan is for XLA's attention, which stores the attention matrix; cuDNN's needs less memory")
    model = make_run_spec(config).model
    width = model.width // model.heads
    if made.chip.startswith("tpu") and width % TPU_LANES:
        notes.append(f"a TPU may pad heads of {width} channels to {-(-width // TPU_LANES) * TPU_LANES} in memory")
    return tuple(notes)


def _advice(config: Config, step: TracedStep, made: RunPlan, devices: Devices) -> tuple[advice.Suggestion, ...]:
    if not step.program.in_shard_map:
        return ()
    measure = lambda other: trace(other, devices).memory.traced_peak  # noqa: E731
    if made.fits:
        return advice.suggest_less_recomputation(config, made.limit, measure)
    return advice.suggest(config, made.mesh, made.limit, made.memory.traced_peak, measure)


def _verified(
    config: Config, changes: tuple[advice.Suggestion, ...], devices: Devices, limit: float
) -> tuple[advice.Suggestion, ...]:
    """Compiles the first suggestion that fits, and adds its compiled peak."""
    best = next((change for change in changes if change.fits and change.traced), None)
    if best is None:
        return changes
    other = advice.changed(config, best.settings)
    compiled = compile_step(other, trace(other, devices), devices)
    return tuple(
        replace(change, compiled=compiled.peak) if change is best and compiled else change for change in changes
    )
