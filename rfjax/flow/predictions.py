"""What a network outputs, and how its output becomes a velocity."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Array, Float

from rfjax.flow.paths import Path

Images = Float[Array, "B *S"]
Times = Float[Array, " B"]


@dataclass(frozen=True)
class Prediction:
    """A parameterisation of the network.

    Attributes:
        target: (path, x0, eps, t) -> what the network learns, in the shape of x0.
        velocity: (path, output, z, t) -> dz/dt, what a sampler needs.
    """

    target: Callable[[Path, Images, Images, Times], Images]
    velocity: Callable[[Path, Images, Images, Times], Images]


PREDICTIONS: dict[str, Prediction] = {
    "v": Prediction(
        target=lambda path, x0, eps, t: path.velocity(x0, eps, t), velocity=lambda path, output, z, t: output
    ),
}
