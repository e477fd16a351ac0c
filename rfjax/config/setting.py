"""The setting of a sampler as a config writes it: STEPS@GUIDANCE."""

import dataclasses
import math

from rfjax.errors import UserError

MOST_STEPS = 100_000  # of a solver: a hundred times as many as any paper takes
LARGEST_GUIDANCE = 10_000.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """A number of steps and a scale of guidance, written "50@5.0"."""

    steps: int
    guidance: float

    @property
    def name(self) -> str:
        return (
            f"{self.steps}@{self.guidance:.1f}"
            if round(self.guidance, 1) == self.guidance
            else (f"{self.steps}@{self.guidance:g}")
        )


def setting(text: str) -> Setting:
    """Reads a sampler setting.

    Raises:
        UserError: for anything but STEPS@GUIDANCE, or for numbers that no sampler takes.
    """
    steps, at, guidance = text.partition("@")
    try:
        found = Setting(int(steps), float(guidance)) if at else None
    except ValueError:
        found = None
    if found is None or not math.isfinite(found.guidance):
        raise UserError(f"config.sampling.settings: '{text}' is not written STEPS@GUIDANCE, such as '50@5.0'")
    if not 1 <= found.steps <= MOST_STEPS:
        raise UserError(
            f"config.sampling.settings: '{text}' has {found.steps} steps, and a sampler takes from 1 to {MOST_STEPS:,}"
        )
    if not 0 <= found.guidance <= LARGEST_GUIDANCE:
        raise UserError(
            f"config.sampling.settings: the guidance of '{text}' must be from 0 to {LARGEST_GUIDANCE:,.0f}; 1: none"
        )
    return found
