"""A sampler's setting in a config, STEPS@GUIDANCE or PRESET@GUIDANCE, and the presets, samplers as published."""

import dataclasses
import math
from typing import Any

from rfjax.errors import UserError, nearest

MOST_STEPS = 100_000  # of a sampler: a hundred times as many as any paper takes
LARGEST_GUIDANCE = 10_000.0


@dataclasses.dataclass(frozen=True)
class Preset:
    """A sampler as the code of a paper runs it.

    Attributes:
        steps: of the schedule.
        changes: keys of config.sampling that it sets. Guided channels count only where the config names none.
    """

    steps: int
    changes: dict[str, Any]


_SDE = {"sampler": "euler_maruyama", "schedule": "repa", "shift": 1.0}  # 1 to 0.04 evenly, then 0 without noise
_SIT = {"guidance_channels": 3}  # SiT's and DiT's code guides 3 of 4 channels
PRESETS = {
    "repa-sde-250": Preset(250, {**_SDE, "diffusion": "linear"}),  # w_t = 2 t on both paths
    "repa-ode-50": Preset(50, {"sampler": "euler", "schedule": "uniform", "shift": 1.0}),
    "sit-sde-250": Preset(250, {**_SDE, "diffusion": "sigma", **_SIT}),  # w_t = 2 sigma_t
    "dit-ddpm-250": Preset(250, {"sampler": "ddpm", "schedule": "dit", "shift": 1.0, **_SIT}),
    # The paper's ODE figures: the last step has one evaluation, so 125 steps ask the network 249 times.
    "sit-heun-250": Preset(125, {"sampler": "heun", "schedule": "uniform", "shift": 1.0, **_SIT}),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """A number of sampler steps and a scale of classifier-free guidance, written "50@5.0", or a preset in place of the
    number, "repa-sde-250@1.8"."""

    steps: int
    guidance: float
    preset: str = ""

    @property
    def name(self) -> str:
        plain = round(self.guidance, 1) == self.guidance
        return f"{self.preset or self.steps}@" + (f"{self.guidance:.1f}" if plain else f"{self.guidance:g}")


def setting(text: str) -> Setting:
    """Reads a sampler setting from its form STEPS@GUIDANCE or PRESET@GUIDANCE.

    Raises:
        UserError: if the text has another form, names no preset, or a number is out of range.
    """
    first, at, guidance = text.partition("@")
    try:
        preset = PRESETS.get(first)
        result = Setting(preset.steps if preset else int(first), float(guidance), first if preset else "")
    except ValueError:
        result = None
    if not at or result is None or not math.isfinite(result.guidance):
        hint = nearest(first, PRESETS) if at and not first.strip().isdecimal() else ""
        raise UserError(
            f"config.sampling.settings: '{text}' must have the form STEPS@GUIDANCE, such as '50@5.0', or "
            f"PRESET@GUIDANCE, such as 'repa-sde-250@1.8'{hint}"
        )
    if not 1 <= result.steps <= MOST_STEPS:
        raise UserError(
            f"config.sampling.settings: '{text}' has {result.steps} steps, and a sampler takes from 1 to {MOST_STEPS:,}"
        )
    if not 0 <= result.guidance <= LARGEST_GUIDANCE:
        raise UserError(f"config.sampling.settings: the guidance of '{text}' must be from 0 to {LARGEST_GUIDANCE:,.0f}")
    return result


def with_preset(sampling: Any, preset: str) -> Any:
    """The section `sampling` with what a preset sets; as it is without one.

    Args:
        sampling: a `config.Sampling`.
        preset: a name of PRESETS, or "".
    """
    if not preset:
        return sampling
    changes = dict(PRESETS[preset].changes)
    if sampling.guidance_channels:
        changes.pop("guidance_channels", None)
    return dataclasses.replace(sampling, **changes)
