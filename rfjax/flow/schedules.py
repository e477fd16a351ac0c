"""Schedules of times for samplers, from noise (t = 1, or the formulation's start) down to data (t = 0)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from rfjax import names
from rfjax.errors import UserError, nearest
from rfjax.flow.densities import shift_time
from rfjax.flow.formulations import Coefficients, Formulation, FormulationArrays
from rfjax.flow.paths import SIGMA_MAX, SIGMA_MIN, STEPS

REPA_LAST = 0.04  # REPA's and SiT's last step goes from here to 0
KARRAS_RHO = 7.0
Times = Float64[np.ndarray, " T1"]


class Schedule(NamedTuple):
    """Decreasing times and how many steps they make.

    Times beyond `steps` are not used. They make room, so that one compiled sampler serves several numbers of steps.

    Attributes:
        table: a formulation's coefficients at each of the times, (T1,) each, as from `tabulated`; None: not computed.
    """

    times: Float[Array, " T1"]
    steps: Int[Array, ""] | int
    table: Coefficients | None = None

    def at(self, i: Int[Array, ""] | int, flow: Formulation | FormulationArrays) -> Coefficients:
        """The formulation's coefficients at time i: from the table, if there is one."""
        if self.table is None:
            return flow.coefficients(self.times[i])
        return jax.tree.map(lambda values: values[i], self.table)


def tabulated(schedule: Schedule, flow: FormulationArrays) -> Schedule:
    """The schedule with the formulation's coefficients at its times.

    Arrays choose among all kinds of formulations. Compiled into a sampler, these take as long as its network; here they
    are a program of their own, the same for all networks.
    """
    return schedule._replace(table=_table(schedule.times, flow))


@jax.jit
def _table(times: Float[Array, " T1"], flow: FormulationArrays) -> Coefficients:
    return jax.lax.map(flow.coefficients, times)  # one time after the other, so with the bits of a single one


def _shifted(times: Times, shift: float) -> Times:
    """Eq. 23 between 0 and the schedule's own first time, which stays where it is."""
    return shift_time(times / times[0], shift) * times[0]


def _uniform(steps: int, start: float, shift: float, flow: Formulation) -> Times:
    return _shifted(np.linspace(start, 0.0, steps + 1), shift)


def _discrete(steps: int, start: float, shift: float, flow: Formulation) -> Times:
    """LDM's steps, spaced evenly from the last one down ("trailing"), each a multiple of 1/1000."""
    times = np.ceil(_uniform(steps, start, shift, flow) * STEPS - 1e-9) / STEPS
    if not (np.diff(times) < 0).all():
        raise UserError(f"the discrete schedule has {STEPS} times: {steps} steps would use some of them twice")
    return np.minimum(times, start)


def _karras(steps: int, start: float, shift: float, flow: Formulation) -> Times:
    """EDM's: sigma = b / a from 80 to 0.002, evenly spaced in sigma^(1/7), then 0 (Karras et al. 2022, Eq. 5).

    A path that ends at less noise than 80 starts at its own end.
    """
    first = flow.coefficients(jnp.float32(start))
    ends = np.array([min(SIGMA_MAX, float(first.b / first.a)), SIGMA_MIN]) ** (1 / KARRAS_RHO)
    sigma = np.linspace(ends[0], ends[1], steps) ** KARRAS_RHO
    times = np.array(flow.time_of_sigma(jnp.asarray(sigma, jnp.float32)))
    for i in range(1, steps):  # near t = 1 several sigmas may share a float32: one step of it down each
        times[i : i + 1] = min(times[i], np.nextafter(times[i - 1], np.float32(0)))
    return np.append(_shifted(times.astype(np.float64), shift), 0.0)


def _repa(steps: int, start: float, shift: float, flow: Formulation) -> Times:
    """REPA's and SiT's for the SDE: evenly from 1 to 0.04, then one step to 0.

    That last step stays as long however many there are, and so does its error.
    """
    return np.append(_shifted(np.linspace(start, REPA_LAST, steps), shift), 0.0)


def _dit(steps: int, start: float, shift: float, flow: Formulation) -> Times:
    """DiT's for DDPM: evenly from the last of 1000 steps to the first, both included, then 0."""
    times = _shifted((np.round(np.linspace(STEPS - 1, 0, steps)) + 1) / STEPS * start, shift)
    if not (np.diff(times) < 0).all():
        raise UserError(f"the schedule of DiT has {STEPS} times: {steps} steps would use some of them twice")
    return np.append(times, 0.0)


def _sd3_reference(steps: int, start: float, shift: float, flow: Formulation) -> Times:
    """SD3's reference code and diffusers: the last time before 0 is 1/1000, shifted twice.

    N steps are then N - 1 real ones and a tiny one: at shift 3 the last of 50 goes from 0.0089 instead of 0.0577.
    """
    return np.append(_shifted(np.linspace(start, shift_time(1 / 1000, shift), steps), shift), 0.0)


SCHEDULES: dict[str, Callable[[int, float, float, Formulation], Times]] = {
    "uniform": _uniform,
    "discrete": _discrete,
    "karras": _karras,
    "repa": _repa,
    "dit": _dit,
    "sd3-ref": _sd3_reference,
}


def schedule(name: str, steps: int, flow: Formulation, shift: float = 1.0, room: int | None = None) -> Schedule:
    """The schedule of a name: steps + 1 times, the last one 0.

    Args:
        name: of SCHEDULES, or "own": what suits the formulation (`names.schedule_of`).
        shift: alpha of SD3's Eq. 23 towards noise, applied to the times (3 for 1024 x 1024 pixels in the paper).
        room: make the array long enough for this many steps.

    Raises:
        UserError: for an unknown name, fewer than one step, or a shift that is not positive.
    """
    name = names.schedule_of(name, flow.name)
    if name not in SCHEDULES:
        raise UserError(f"there is no schedule of times '{name}'{nearest(name, SCHEDULES)}")
    if steps < 1:
        raise UserError(f"a sampler needs at least one step, not {steps}")
    if not shift > 0:
        raise UserError(f"the shift of a schedule must be positive, not {shift:g}")
    with jax.ensure_compile_time_eval():  # a schedule is numbers, also where a jitted function makes it
        return of_times(SCHEDULES[name](steps, float(flow.start), shift, flow), room)


def of_times(times: Times, room: int | None = None) -> Schedule:
    """A schedule from its times.

    Raises:
        UserError: unless they fall from at most 1 to at least 0.
    """
    times = np.asarray(times, np.float64)
    if len(times) < 2 or times[0] > 1 or times[-1] < 0 or not (np.diff(times) < 0).all():
        raise UserError("a schedule of times must fall, from at most 1 (noise) to at least 0 (data)")
    spare = max((room or 0) + 1 - len(times), 0)
    return Schedule(jnp.asarray(np.append(times, np.zeros(spare)), jnp.float32), len(times) - 1)
