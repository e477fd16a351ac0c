"""Suggests changes to a config: to fit a chip's memory, the cheapest first, or to use memory that is left."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rfjax.config import Config
from rfjax.errors import UserError

# From the least recomputation in the backward pass to the most; memory falls in the same order (tests/planning). Whole
# blocks cost up to a third more FLOPs.
REMAT = {
    "none": "recompute nothing",
    "dots": "recompute all but matrix products",
    "linears": "recompute all but the outputs of Linears",
    "full": "recompute whole blocks",
}
TENSOR_SIZES = (2, 4)  # tensor parallelism costs more than it saves beyond one node's fast links
MOST_DEVICES = 64  # times as many devices, at most, in a suggestion
HEADROOM = 0.8  # of the limit, for suggestions of less recomputation, because a traced peak is an estimate
MOST_PARTS = 8  # times as many parts of a batch, at most, in a suggestion

Measure = Callable[[Config], int]  # config -> peak of its traced program, bytes on one device
Mesh = Mapping[str, int]  # axis -> devices


@dataclass(frozen=True)
class Suggestion:
    """A change of the config.

    Attributes:
        description: the change in words.
        settings: key of the config -> its new value.
        peak: bytes on one device after the change, as `tracing.DeviceMemory.traced_peak`.
        fits: whether the peak is below the limit.
        traced: whether the peak was counted in the traced program. If not, it is extrapolated.
        compiled: peak of XLA's program for CPUs, bytes; 0 if it was not compiled.
    """

    description: str
    settings: dict[str, Any] = field(default_factory=dict)
    peak: int = 0
    fits: bool = False
    traced: bool = True
    compiled: int = 0

    @property
    def flags(self) -> str:
        return " ".join(f"--config.{key}={value}" for key, value in self.settings.items())

    def joined_by(self, other: "Suggestion") -> "Suggestion":
        return Suggestion(f"{self.description}, and {other.description}", self.settings | other.settings)


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The config with new values for some keys, which are written "section.key"."""
    for path, value in settings.items():
        section, _, name = path.partition(".")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return config


def suggest(config: Config, mesh: Mesh, limit: float, now: int, measure: Measure) -> tuple[Suggestion, ...]:
    """Suggests changes for a config that does not fit.

    It tries each kind of change alone, then kinds together if no change alone fits, then more devices.

    Args:
        mesh: axis -> devices.
        limit: bytes that a device may use.
        now: bytes that a device needs without a change.
        measure: measures a config.
    """
    _, more = _recomputation(config)
    kinds = (_fsdp(config, mesh), more, _parts(config, mesh), _tensor(config, mesh))
    alone = [[c for c in _try(config, kind, limit, measure) if c.peak < now] for kind in kinds]
    result = [change for kind in alone for change in kind]
    if not any(change.fits for change in result):
        result += _together(config, [kind for kind in alone if kind], limit, measure)
    if not any(change.fits for change in result):
        best = min(result, key=lambda change: change.peak, default=Suggestion("the same", peak=now))
        result.append(_devices(mesh, best, limit))
    return tuple(result)


def _together(config: Config, kinds: list[list[Suggestion]], limit: float, measure: Measure) -> Iterator[Suggestion]:
    """Adds kinds one by one: the strongest change so far, with the weakest change of the next kind that fits."""
    before: Suggestion | None = None
    for kind in kinds:
        options = [before.joined_by(change) if before else change for change in kind]
        if before and (tried := _try(config, options, limit, measure)):
            yield tried[-1]
            if tried[-1].fits:
                return
        before = options[-1]


def suggest_less_recomputation(config: Config, limit: float, measure: Measure) -> tuple[Suggestion, ...]:
    """Suggests the least recomputation that fits within HEADROOM of the limit, if it is less than the config's."""
    lighter, _ = _recomputation(config)
    tried = _try(config, lighter, HEADROOM * limit, measure)
    return tuple(change for change in tried if change.fits)[:1]


def _try(config: Config, changes: Any, limit: float, measure: Measure) -> list[Suggestion]:
    """Measures changes in order, and stops at the first that fits."""
    tried = []
    for change in changes:
        try:
            most = measure(changed(config, change.settings))
        except UserError:  # such as a mesh that can't divide this batch
            continue
        tried.append(replace(change, peak=most, fits=most <= limit))
        if tried[-1].fits:
            break
    return tried


def _recomputation(config: Config) -> tuple[list[Suggestion], list[Suggestion]]:
    """Less recomputation than the config's, the least first, and more of it."""
    changes = [Suggestion(f"{words} (remat = {name})", {"model.remat": name}) for name, words in REMAT.items()]
    now = list(REMAT).index(config.model.remat)
    return changes[:now], changes[now + 1 :]


def _fsdp(config: Config, mesh: Mesh) -> Iterator[Suggestion]:
    """More shards of the state, which cost communication but no FLOPs. Only the largest number is tried."""
    devices = math.prod(mesh.values()) // mesh.get("tensor", 1)
    width = config.model.width or config.model.width_per_depth * config.model.depth
    fitting = [n for n in range(mesh["fsdp"] + 1, devices + 1) if devices % n == 0 and width % n == 0]
    if fitting:
        settings = {"mesh.data": devices // fitting[-1], "mesh.fsdp": fitting[-1]}
        yield Suggestion(f"spread the state over {fitting[-1]} devices", settings)


def _parts(config: Config, mesh: Mesh) -> Iterator[Suggestion]:
    """More, smaller parts of a batch, which cost communication because weights are gathered once for each part."""
    local = config.training.batch // (mesh.get("data", 1) * mesh.get("fsdp", 1))
    parts = 2 * config.training.accumulate
    while parts <= MOST_PARTS * config.training.accumulate and local % parts == 0:
        yield Suggestion(f"a batch in {parts} parts", {"training.accumulate": parts})
        parts *= 2


def _tensor(config: Config, mesh: Mesh) -> Iterator[Suggestion]:
    """Tensor parallelism, which costs communication in each block that computation must wait for."""
    heads, now = config.model.chosen_heads, mesh.get("tensor", 1)
    for n in TENSOR_SIZES:
        axis = next((axis for axis in ("data", "fsdp") if n > now and mesh[axis] % (n // now) == 0), None)
        if axis and n % now == 0 and heads % n == 0:
            settings = {"mesh.data": mesh["data"], f"mesh.{axis}": mesh[axis] // (n // now), "mesh.tensor": n}
            yield Suggestion(f"share the heads among {n} devices", settings)


def _devices(mesh: Mesh, best: Suggestion, limit: float) -> Suggestion:
    """More devices, if memory per device falls in proportion to their number."""
    times = 2
    while best.peak / times > limit and times < MOST_DEVICES:
        times *= 2
    count = math.prod(mesh.values()) * times
    settings = best.settings | {"plan.devices": count, "mesh.data": -1}
    most = best.peak // times
    return Suggestion(f"{best.description}, on {count} devices", settings, most, most <= limit, traced=False)
