"""A sampler's setting in the form STEPS@GUIDANCE, as configs write it."""

import dataclasses
import math

from rfjax.errors import UserError

MOST_STEPS = 100_000  # of a sampler: a hundred times as many as any paper takes
LARGEST_GUIDANCE = 10_000.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """A number of sampler steps and a scale of classifier-free guidance, written "50@5.0"."""

    steps: int
    guidance: float

    @property
    def name(self) -> str:
        short = round(self.guidance, 1) == self.guidance
        return f"{self.steps}@{self.guidance:.1f}" if short else f"{self.steps}@{self.guidance:g}"


def setting(text: str) -> Setting:
    """Reads a sampler setting from its form STEPS@GUIDANCE.

    Raises:
        UserError: if the text has another form, or a number is out of range.
    """
    steps, at, guidance = text.partition("@")
    try:
        result = Setting(int(steps), float(guidance)) if at else None
    except ValueError:
        result = None
    if result is None or not math.isfinite(result.guidance):
        raise UserError(f"config.sampling.settings: '{text}' must have the form STEPS@GUIDANCE, such as '50@5.0'")
    if not 1 <= result.steps <= MOST_STEPS:
        raise UserError(
            f"config.sampling.settings: '{text}' has {result.steps} steps, and a sampler takes from 1 to {MOST_STEPS:,}"
        )
    if not 0 <= result.guidance <= LARGEST_GUIDANCE:
        raise UserError(f"config.sampling.settings: the guidance of '{text}' must be from 0 to {LARGEST_GUIDANCE:,.0f}")
    return result
