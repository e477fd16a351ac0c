"""What is measured of a run's weights, along the run and at its end: a list that the config names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rfjax import config as configs
from rfjax import lookup
from rfjax.errors import UserError
from rfjax.training.context import RunContext
from rfjax.training.state import State

MEASUREMENTS = {
    "validation": "rfjax.training.measurements.validation:Validation",
    "samples": "rfjax.training.measurements.samples:Samples",
    "attention": "rfjax.training.measurements.attention:Attention",
    "representations": "rfjax.training.measurements.representations:Representations",
}
NEVER, LAST, SELECTED = "never", "last", "selected"

Line = tuple[str, dict[str, Any]]  # kind, values


@dataclass(frozen=True)
class At:
    """When something is measured.

    Attributes:
        step: number of updates done.
        progress: examples, flops and seconds so far, which lines repeat.
        final: at the end of the run.
        batch: the encoded batch of the next update; None at the end.
        noise: what is random in it; None at the end.
    """

    step: int
    progress: dict[str, Any]
    final: bool
    batch: Any = None
    noise: Any = None


@runtime_checkable
class Measurement(Protocol):
    """The contract.

    Attributes:
        at_end: "never", or of the "last" weights, or of those that the run "selected".
        from_start: whether fresh weights are measured too.
    """

    at_end: str
    from_start: bool

    def every(self, config: configs.Config) -> int:
        """The steps between two of them along the run; 0: none along the run."""
        ...

    def run(self, context: RunContext, state: State, at: At) -> Iterator[Line]:
        """Measures, and yields the lines of metrics as they are found."""
        ...

    def result(self, lines: Sequence[Line]) -> dict[str, Any]:
        """What of the last lines goes into `result.json`."""
        ...


@dataclass(frozen=True)
class Scheduled:
    """A measurement and its period.

    Attributes:
        name: in the config.
        measurement: what measures.
        every: steps between two of them; 0: none along the run.
    """

    name: str
    measurement: Measurement
    every: int

    def due(self, step: int) -> bool:
        """Whether it measures before the update that follows `step` updates; fresh weights count for `from_start`."""
        return self.every > 0 and step % self.every == 0 and (step > 0 or self.measurement.from_start)


def make_measurements(config: configs.Config) -> tuple[Scheduled, ...]:
    """The measurements that `config.training.measurements` names: NAME or NAME@PERIOD.

    Raises:
        UserError: for a period that is no number of steps.
    """
    found = []
    for text in config.training.measurements:
        name, at, period = text.partition("@")
        if at and not period.isdecimal():
            raise UserError(f"config.training.measurements: '{text}' is not written NAME or NAME@STEPS")
        made = lookup.find(name, MEASUREMENTS, "training.measurements")()
        found.append(Scheduled(name, made, int(period) if at else made.every(config)))
    return tuple(found)
