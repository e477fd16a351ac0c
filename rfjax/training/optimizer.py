"""The optimizer: AdamW with clipping, the ladder's learning rate, its schedule, and the average of the weights."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from rfjax.config import Optimizer
from rfjax.models.parameterisation import Factors, Scaling
from rfjax.trees import leaf_name

Decay = Int[Array, "2"]  # of "wsd", on the devices: the step at which it starts, and its length


class Numbers(NamedTuple):
    """Numbers of a run that its compiled update is given, so that runs that differ in them alone share the program.

    Attributes:
        decay: of the schedule "wsd"; None: as the number of steps says.
        peak: the rate after the warm-up, and how much less it is at the first step; None: as the config says.
        factors: of the parameterisation; None: as its ratios of width and depth say.
    """

    decay: Decay | None = None
    peak: Float[Array, "2"] | None = None
    factors: Factors | None = None


def peak_rate(config: Optimizer, depth: int) -> float:
    """The learning rate after the warm-up."""
    return config.learning_rate * depth**config.depth_exponent


AS_CONFIGURED = Numbers()


def make_schedule(config: Optimizer, depth: int, steps: int, numbers: Numbers = AS_CONFIGURED) -> optax.Schedule:
    """Linear warm-up to the peak (the first step is not zero), then constant, cosine or linear to zero at `steps`.

    "wsd": constant until the decay starts, then the peak times 1 - sqrt(p) or 1 - p after a share p of the decay
    (arXiv 2405.18392).

    Args:
        config: of the optimizer.
        depth: of the ladder's rule.
        steps: of the run.
        numbers: what a compiled update is given in place of what `config` and `steps` say.
    """
    start, length = config.decay_start(steps), steps - config.decay_start(steps)
    if numbers.decay is not None:
        start, length = numbers.decay
    warmup, peak = max(config.warmup, 1), peak_rate(config, depth) if numbers.peak is None else numbers.peak[0]
    rest = max(steps - warmup, 1)
    after = {
        "none": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "wsd": _decay(config, peak, start - warmup, length),
    }[config.decay]
    rise = optax.linear_schedule(peak / warmup, peak, warmup) if numbers.peak is None else _rise(numbers.peak, warmup)
    return optax.join_schedules([rise, after], [warmup])


def _rise(peak: Float[Array, "2"], warmup: int) -> optax.Schedule:
    """`optax.linear_schedule` from peak / warmup to the peak, to the same bits, where it is given on the devices."""

    def rate(count: Any) -> Any:
        return peak[1] * (1 - jnp.clip(count, 0, warmup) / warmup) + peak[0]

    return rate


def _decay(config: Optimizer, peak: Any, start: Any, length: Any) -> optax.Schedule:
    """The schedule "wsd" after its warm-up: the decay starts `start` steps later."""

    def rate(count: Any) -> Any:
        p = jnp.clip((count - start) / length, 0.0, 1.0)
        return peak * (1 - (jnp.sqrt(p) if config.decay_form == "sqrt" else p))

    return rate


@functools.cache
def make_optimizer(
    config: Optimizer, depth: int, steps: int, scaling: Scaling | None = None
) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with weight decay on matrices only, all scaled by the parameterisation."""
    return scheduled_optimizer(config, make_schedule(config, depth, steps), scaling)


def scheduled_optimizer(
    config: Optimizer, schedule: optax.Schedule, scaling: Scaling | None = None, factors: Factors | None = None
) -> optax.GradientTransformation:
    """`make_optimizer` with any schedule of the learning rate.

    Args:
        config: of the optimizer.
        schedule: of the learning rate.
        scaling: the parameterisation at this size; None: "standard".
        factors: its factors; None: those that it says.
    """
    if scaling is not None:
        return _scaled_optimizer(config, schedule, scaling, factors or scaling.factors())
    adamw = optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=_matrices if config.weight_decay else None,
    )
    whole = optax.chain(optax.clip_by_global_norm(config.clip), adamw) if config.clip else adamw
    return optax.flatten(whole) if config.flatten else whole


def _scaled_optimizer(
    config: Optimizer, schedule: optax.Schedule, scaling: Scaling, factors: Factors
) -> optax.GradientTransformation:
    """AdamW of the network with forward multipliers, on weights that hold them; see `rfjax.models.parameterisation`.

    Each factor applies leaf by leaf, around the flat vector where there is one.
    """
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    parts = [times(scaling, factors.gradient)]
    parts += [optax.clip_by_global_norm(config.clip)] if config.clip else []
    parts += [times(scaling, factors.inner), optax.flatten(adam) if config.flatten else adam]
    if config.weight_decay:
        parts.append(_decayed(config.weight_decay, scaling, factors.decay))
    return optax.chain(*parts, optax.scale_by_learning_rate(schedule), times(scaling, factors.rate))


def times(scaling: Scaling, factors: Any) -> optax.GradientTransformation:
    """Multiplies each leaf by its kind's factor."""
    by_path = lambda path, leaf: leaf * factors[scaling.number(leaf_name(path))]  # noqa: E731
    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(by_path, updates))


def _decayed(rate: float, scaling: Scaling, factors: Any) -> optax.GradientTransformation:
    """Adds the weight decay of matrices, each with its kind's factor."""

    def add(path: Any, update: Array, weight: Array, matrix: bool) -> Array:
        return update + rate * factors[scaling.number(leaf_name(path))] * weight if matrix else update

    def whole(updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(add, updates, params, _matrices(params))

    return optax.stateless(whole)


def _matrices(params: Any) -> Any:
    # By name: under the scan over depth a bias has two axes as well.
    return {name: _matrices(value) if isinstance(value, dict) else name == "kernel" for name, value in params.items()}


def ema_update(average: Any, params: Any, step: Int[Array, ""], settings: Optimizer) -> Any:
    """Every `ema_every` steps, average <- decay average + (1 - decay) params, decay warmed up as (1 + n) / (10 + n).

    The warm-up forgets the initial weights, which would spoil a short run. DiT, SiT and REPA have none (`ema_warmup`).
    """
    every = settings.ema_every
    n = (step // every).astype(jnp.float32)
    rate = 1 - settings.ema_decay  # in double precision: float32 has 1 - 0.9999 to four digits
    if settings.ema_warmup:
        rate = 1 - jnp.minimum(settings.ema_decay, n / (9 + n))  # n counts from 1: (1 + (n - 1)) / (10 + (n - 1))
    take = jnp.where(step % every == 0, rate, 0.0)
    return optax.incremental_update(params, average, take)
