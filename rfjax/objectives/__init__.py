"""What training minimises: each objective says what is random for an example, and which loss terms it has.

An objective is a frozen dataclass: it is a part of the compiled step's key, so its fields are its options.
"""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float

from rfjax import config as configs
from rfjax import lookup
from rfjax.flow import FormulationArrays
from rfjax.models import Inputs
from rfjax.models.backbone import Head

OBJECTIVES = {"flow_matching": "rfjax.objectives.flow_matching:make", "ddpm": "rfjax.objectives.ddpm:make"}
LOSS = "loss"  # the term that is minimised
DENOISING = "denoising"  # the network's error, where the loss has other parts, which may be negative, beside it


@runtime_checkable
class Network(Protocol):
    """A network with its weights."""

    def __call__(self, z: Any, t: Any, cond: Any) -> Float[Array, "B *S"]:
        """The prediction at (z, t, cond)."""
        ...

    def with_heads(self, z: Any, t: Any, cond: Any) -> tuple[Float[Array, "B *S"], dict[str, Any]]:
        """The prediction, and the output of each head by its name."""
        ...


@runtime_checkable
class Networks(Protocol):
    """What an objective may ask.

    Attributes:
        policy: the network that is trained.
        reference: the same without its adapter, whose weights are not trained.
    """

    policy: Network
    reference: Network


@runtime_checkable
class Objective(Protocol):
    """The contract.

    Attributes:
        terms: names of the loss terms; the first is "loss", which is minimised, and all of them are logged.
        heads: the heads that the objective needs in the network.
    """

    @property
    def terms(self) -> tuple[str, ...]: ...

    @property
    def heads(self) -> tuple[Head, ...]: ...

    def sample_noise(self, formulation: FormulationArrays, key: Array, inputs: Inputs) -> Any:
        """All that is random for one example in one step, as a pytree of arrays without a batch axis.

        Args:
            formulation: path, prediction and density of t.
            key: of (seed, step, the example's slot in the global batch).
            inputs: the shapes of an example.
        """
        ...

    def __call__(self, networks: Networks, batch: Any, noise: Any) -> dict[str, Float[Array, " B"]]:
        """The loss terms of each example.

        Args:
            networks: what can be asked.
            batch: what the encoders made: "z", "cond", and others by name, each with B rows.
            noise: of `sample_noise`, with B rows.
        """
        ...


def make_objective(config: configs.Config) -> Objective:
    """The objective that the config names."""
    return lookup.find(config.training.objective, OBJECTIVES, "training.objective")(config)
