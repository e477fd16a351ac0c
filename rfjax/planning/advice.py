"""What to change in a config that does not fit a chip's memory, cheapest first; what one that fits has room for."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rfjax.config import Config
from rfjax.errors import UserError

# From the least computed again in the backward pass to the most; memory falls in the same order (tests/planning).
REMAT = ("none", "dots", "linears", "full")
TENSOR = (2, 4)  # devices that share heads: beyond one node's fast links it costs more than it saves
MOST_DEVICES = 64  # times as many, in a suggestion
ROOM = 0.8  # of the limit, to compute less again: a traced peak is an estimate
PARTS = 8  # most parts of a batch, one after the other, that are tried

Measure = Callable[[Config], int]  # config -> bytes on one device, of its traced program
Mesh = Mapping[str, int]  # axis -> devices


@dataclass(frozen=True)
class Change:
    """A suggestion.

    Attributes:
        what: in words. settings: the keys of the config that it changes, and to what.
        most: bytes on one device then, as `tracing.Memory.most`. fits: whether that is under the limit.
        traced: whether `most` was counted in the traced program; otherwise it is an estimate.
        compiled: bytes as XLA made it for CPUs, 0 if that was not tried.
    """

    what: str
    settings: dict[str, Any] = field(default_factory=dict)
    most: int = 0
    fits: bool = False
    traced: bool = True
    compiled: int = 0

    @property
    def flags(self) -> str:
        return " ".join(f"--config.{key}={value}" for key, value in self.settings.items())


def changed(config: Config, settings: Mapping[str, Any]) -> Config:
    """The config with other values for some keys, written "section.key"."""
    for path, value in settings.items():
        section, _, name = path.partition(".")
        config = replace(config, **{section: replace(getattr(config, section), **{name: value})})
    return config


def mend(config: Config, mesh: Mesh, limit: float, now: int, measure: Measure) -> tuple[Change, ...]:
    """Changes for a config that needs `now` bytes, more than `limit`: of each kind alone; if none is enough, together;
    and if all of them are not, with more devices.
    """
    kinds = (_fsdp(config, mesh), _remat(config), _parts(config, mesh), _tensor(config, mesh))
    alone = [[c for c in _try(config, kind, limit, measure) if c.most < now] for kind in kinds]
    found = [change for kind in alone for change in kind]
    if not any(change.fits for change in found):
        found += _together(config, [kind for kind in alone if kind], limit, measure)
    if not any(change.fits for change in found):
        best = min(found, key=lambda change: change.most, default=Change("the same", most=now))
        found.append(_devices(mesh, best, limit))
    return tuple(found)


def _together(config: Config, kinds: list[list[Change]], limit: float, measure: Measure) -> Iterator[Change]:
    """The strongest change of a kind with the weakest of the next that is enough, or with its strongest, and so on."""
    before: Change | None = None
    for kind in kinds:
        options = [_both(before, change) if before else change for change in kind]
        if before and (tried := _try(config, options, limit, measure)):
            yield tried[-1]
            if tried[-1].fits:
                return
        before = options[-1]


def room(config: Config, limit: float, measure: Measure) -> tuple[Change, ...]:
    """For a config that fits: the least recomputation that fits too, with something to spare; or nothing."""
    lighter = REMAT[: REMAT.index(config.model.remat)]
    tried = _try(config, (_recompute(name) for name in lighter), ROOM * limit, measure)
    return tuple(change for change in tried if change.fits)[:1]


def _try(config: Config, changes: Any, limit: float, measure: Measure) -> list[Change]:
    """Measures changes in order, up to the first that fits."""
    tried = []
    for change in changes:
        try:
            most = measure(changed(config, change.settings))
        except UserError:  # a mesh that can't divide this batch, for one
            continue
        tried.append(replace(change, most=most, fits=most <= limit))
        if tried[-1].fits:
            break
    return tried


def _both(one: Change, other: Change) -> Change:
    return Change(f"{one.what}, and {other.what}", one.settings | other.settings)


def _fsdp(config: Config, mesh: Mesh) -> Iterator[Change]:
    """More shards of the state: no more work, and weights are gathered from further away. The largest one alone."""
    devices = math.prod(mesh.values()) // mesh.get("tensor", 1)
    width = config.model.width or config.model.width_per_depth * config.model.depth
    fitting = [n for n in range(mesh["fsdp"] + 1, devices + 1) if devices % n == 0 and width % n == 0]
    if fitting:
        settings = {"mesh.data": devices // fitting[-1], "mesh.fsdp": fitting[-1]}
        yield Change(f"spread the state over {fitting[-1]} devices", settings)


def _remat(config: Config) -> Iterator[Change]:
    """More recomputation: up to a third more work."""
    yield from map(_recompute, REMAT[REMAT.index(config.model.remat) + 1 :])


def _recompute(name: str) -> Change:
    words = {
        "none": "compute nothing again",
        "dots": "keep matrix products only",
        "linears": "keep the outputs of Linears only",
        "full": "compute whole blocks again",
    }
    return Change(f"{words[name]} (remat = {name})", {"model.remat": name})


def _parts(config: Config, mesh: Mesh) -> Iterator[Change]:
    """Smaller parts of a batch: weights are gathered once for each, and products are smaller."""
    local = config.training.batch // (mesh.get("data", 1) * mesh.get("fsdp", 1))
    parts = 2 * config.training.accumulate
    while parts <= PARTS * config.training.accumulate and local % parts == 0:
        yield Change(f"a batch in {parts} parts", {"training.accumulate": parts})
        parts *= 2


def _tensor(config: Config, mesh: Mesh) -> Iterator[Change]:
    """Heads and hidden units shared: communication in every block, in the way of the work."""
    heads, now = config.model.heads or config.model.depth, mesh.get("tensor", 1)
    for n in TENSOR:
        ratio = n // now
        if n > now and n % now == 0 and heads % n == 0 and mesh["data"] % ratio == 0:
            yield Change(f"share the heads among {n} devices", {"mesh.data": mesh["data"] // ratio, "mesh.tensor": n})
        elif n > now and n % now == 0 and heads % n == 0 and mesh["fsdp"] % ratio == 0:
            settings = {"mesh.data": mesh["data"], "mesh.fsdp": mesh["fsdp"] // ratio, "mesh.tensor": n}
            yield Change(f"share the heads among {n} devices", settings)


def _devices(mesh: Mesh, best: Change, limit: float) -> Change:
    """More devices, by the rule that activations fall as their number rises, the state too while `fsdp` rises."""
    times = 2
    while best.most / times > limit and times < MOST_DEVICES:
        times *= 2
    count = math.prod(mesh.values()) * times
    settings = best.settings | {"plan.devices": count, "mesh.data": -1}
    most = best.most // times
    return Change(f"{best.what}, on {count} devices", settings, most, most <= limit, traced=False)
