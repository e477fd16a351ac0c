"""Names of formulations: a kind and its parameters, "rf/lognorm(0.00,1.00)". Imports no JAX."""

import re

import numpy as np

from rfjax.errors import UserError


def split(name: str) -> tuple[str, tuple[float, ...] | None]:
    """Splits a formulation's name into its kind and its parameters.

    Returns:
        The kind in lower case, and the numbers in the brackets or None without brackets.

    Raises:
        UserError: if the name has another form.
    """
    match = re.fullmatch(r"\s*([\w/]+?)\s*(?:\(([^()]*)\))?\s*", name)
    if not match:
        raise UserError(f"there is no formulation '{name}': write it like 'rf/lognorm(0.00,1.00)'")
    inside = (match[2] or "").strip()
    try:
        numbers = tuple(float(word) + 0.0 for word in inside.split(",")) if inside else None
    except ValueError:
        raise UserError(f"the parameters of '{name}' must be numbers") from None
    if numbers and not np.isfinite(numbers).all():
        raise UserError(f"the parameters of '{name}' must be finite")
    return match[1].lower(), numbers


def join(kind: str, numbers: tuple[float, ...] | None = None) -> str:
    """A formulation's name in the paper's spelling: numbers have two decimals, or more if necessary."""
    written = (f"{n:.2f}" if round(n, 2) == n else repr(n) for n in numbers or ())
    return f"{kind}({','.join(written)})" if numbers else kind


def family(name: str) -> str:
    """The name without its numbers; edm/rf and edm/cos belong to edm."""
    kind, _ = split(name)
    return "edm" if kind.startswith("edm") else kind


OWN = "own"  # the schedule of times that belongs to the formulation
OWN_SCHEDULES = {"edm": "karras"}  # by kind; the others have evenly spaced times


def schedule_of(schedule: str, formulation: str) -> str:
    """The name of a schedule of sampling times, with "own" replaced by the formulation's schedule.

    The t of edm(P_m,P_s) is a quantile of sigma in training, and even steps of it are far too long at the ends: on
    N(0, 1) Heun's method is off by 19 % after 128 of them, and by 0.07 % on Karras et al.'s own schedule. `edm/rf` and
    `edm/cos` have the log-SNR of rf and of the cosine path at each t, and stay on even steps, as those do.
    """
    return OWN_SCHEDULES.get(split(formulation)[0], "uniform") if schedule == OWN else schedule


def prediction(name: str) -> str:
    """What the network of a formulation predicts: velocity, eps, v or F."""
    words = split(name)[0].split("/")
    return "F" if words[0] == "edm" else next((word for word in words if word in ("eps", "v")), "velocity")


def _table_1() -> tuple[str, ...]:
    """The 61 formulations that SD3 compares (section 5.1.1); rf stands for mode(0), as in the paper's tables."""
    grid = lambda low, high, count: [round(float(x), 2) + 0.0 for x in np.linspace(low, high, count)]  # noqa: E731
    modes = [*grid(-1, 1.75, 7), 1.0]
    return (
        *("eps/linear", "v/linear", "eps/cos", "v/cos", "rf", "rf/cosmap", "edm/rf", "edm/cos"),
        *(join("rf/mode", (s,)) for s in modes),
        *(join("rf/lognorm", (m, s)) for m in grid(-1, 1, 5) for s in grid(0.2, 2.2, 6)),
        *(join("edm", (m, s)) for m in grid(-1.2, 1.2, 5) for s in grid(0.6, 1.8, 3)),
    )


TABLE_1 = _table_1()
