"""Formulations by the paper's names: a path, a prediction and a density of t in training (SD3 section 3)."""

import re
from dataclasses import dataclass

from rfjax.errors import UserError, nearest
from rfjax.flow.densities import DENSITIES, Density
from rfjax.flow.paths import PATHS, Path
from rfjax.flow.predictions import PREDICTIONS, Prediction

# Name up to the brackets -> (path, prediction, density); the numbers in the brackets go to the density.
FORMULATIONS: dict[str, tuple[str, str, str]] = {
    "rf": ("rf", "v", "uniform"),
    "rf/lognorm": ("rf", "v", "lognorm"),
}
PARAMETERS: dict[str, tuple[str, ...]] = {"rf": (), "rf/lognorm": ("m", "s")}


@dataclass(frozen=True)
class Formulation:
    """A way to train a flow: what z_t is, what the network predicts, and which t it sees how often."""

    name: str
    path: Path
    prediction: Prediction
    density: Density


def formulation(name: str) -> Formulation:
    """Looks a formulation up by its name in the paper, such as "rf/lognorm(0.00,1.00)"; spaces and decimals are free.

    Raises:
        UserError: for an unknown name or the wrong number of parameters, with the nearest right one.
    """
    match = re.fullmatch(r"\s*([\w/]+?)\s*(?:\(([^()]*)\))?\s*", name)
    kind = match[1].lower() if match else name
    if not match or kind not in FORMULATIONS:
        raise UserError(f"there is no formulation '{name}'{nearest(kind, FORMULATIONS)}")
    try:
        numbers = [float(word) for word in match[2].split(",")] if (match[2] or "").strip() else []
    except ValueError:
        raise UserError(f"the parameters of '{name}' must be numbers") from None
    if len(numbers) != len(PARAMETERS[kind]):
        written = f"{kind}({', '.join(PARAMETERS[kind])})" if PARAMETERS[kind] else kind
        raise UserError(f"'{name}' has {len(numbers)} parameters, but the formulation is written {written}")
    path, prediction, density = FORMULATIONS[kind]
    canonical = kind + (f"({','.join(f'{n:.2f}' for n in numbers)})" if numbers else "")
    return Formulation(canonical, PATHS[path], PREDICTIONS[prediction], DENSITIES[density](*numbers))
