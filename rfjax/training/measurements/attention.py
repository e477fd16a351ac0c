"""Each block's largest attention logit and its entropy, on a batch of training (SD3 Fig. 5)."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from rfjax import config as configs
from rfjax.compiling import quick_options
from rfjax.encoders.codec import to_network
from rfjax.models.backbone import HEADS
from rfjax.models.blocks import ATTENTION, STACKS
from rfjax.training.context import RunContext
from rfjax.training.measurements import NEVER, At, Line
from rfjax.training.spec import RunSpec
from rfjax.training.state import State, weights_of

LAST_BLOCKS = 5  # SD3's Fig. 5 averages over these


class Attention:
    """Lines of kind "attention"."""

    at_end: ClassVar[str] = NEVER
    from_start: ClassVar[bool] = True

    def every(self, config: configs.Config) -> int:
        """The config's `training.attention_every`."""
        return config.training.attention_every

    def run(self, context: RunContext, state: State, at: At) -> Iterator[Line]:
        """Measures the last weights."""
        with context.clock("attention"):
            weights = weights_of(context.spec, state, ema=False)
            found = jax.device_get(_jit_attention(context.spec.at(at.step))(weights, at.batch, at.noise))
        values: dict[str, Any] = {}
        for name in ("largest_logit", "entropy"):
            blocks = [float(value) for stack in found for value in np.atleast_1d(stack[name])]
            values |= {name: blocks, f"{name}_last_{LAST_BLOCKS}": float(np.mean(blocks[-LAST_BLOCKS:]))}
        yield "attention", values

    def result(self, lines: Sequence[Line]) -> dict[str, Any]:
        """Nothing."""
        return {}


class _Network:
    """A network that writes its blocks' attention down when the objective asks it."""

    def __init__(self, model: Any, params: Any) -> None:
        self.model, self.params, self.found = model, params, {}

    @property
    def policy(self) -> "_Network":
        return self

    reference = policy

    def __call__(self, z: Any, t: Any, cond: Any) -> Any:
        return self.with_heads(z, t, cond)[0]

    def with_heads(self, z: Any, t: Any, cond: Any) -> tuple[Any, Any]:
        prediction, kept = self.model.apply({"params": self.params}, z, t, cond, mutable=[ATTENTION, HEADS])
        self.found = kept.get(ATTENTION, {})
        return prediction, kept.get(HEADS, {})


@functools.cache
def _jit_attention(spec: RunSpec) -> Callable[..., list[dict[str, jax.Array]]]:
    def measure(params: Any, batch: Any, noise: Any) -> list[dict[str, jax.Array]]:
        network = _Network(spec.model, params)
        batch = batch | {"z": to_network(batch["z"])}
        spec.objective(network, batch, noise)  # as training asks: what it returns is not used, so not computed
        return [network.found[name] for name in sorted(network.found, key=STACKS.index)]

    return jax.jit(measure, compiler_options=quick_options())
