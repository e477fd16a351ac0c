"""Every law by name: the form that the solver fits."""

from rfjax.analysis import broken
from rfjax.analysis.engine import Shape, sum_of_powers

SHAPES: dict[str, Shape] = {
    "power": sum_of_powers("A", "alpha"),
    "power_offset": sum_of_powers("E", "A", "alpha"),
    "broken_power": broken.SHAPE,
    "surface": sum_of_powers("E", "A", "B", "alpha", "beta"),
    "surface_floor": sum_of_powers("A", "B", "alpha", "beta"),
}
