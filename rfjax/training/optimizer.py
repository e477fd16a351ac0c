"""The optimizer: AdamW with clipping, the ladder's learning rate, its schedule, and the average of the weights."""

import functools
from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from rfjax.config import Optimizer

Decay = Int[Array, "2"]  # of "wsd", on the devices: the step at which it starts, and its length


def make_schedule(config: Optimizer, depth: int, steps: int, decay: Decay | None = None) -> optax.Schedule:
    """Linear warm-up to the peak (the first step is not zero), then constant, cosine or linear to zero at `steps`.

    "wsd": constant until the decay starts, then the peak times 1 - sqrt(p) or 1 - p after a share p of the decay
    (arXiv 2405.18392).

    Args:
        config: of the optimizer.
        depth: of the ladder's rule.
        steps: of the run.
        decay: of "wsd": the step at which it starts, and its length; None: as `steps` say.
    """
    start, length = (config.decay_start(steps), steps - config.decay_start(steps)) if decay is None else decay
    peak, warmup = config.learning_rate * depth**config.depth_exponent, max(config.warmup, 1)
    rest = max(steps - warmup, 1)
    after = {
        "none": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
        "wsd": _decay(config, peak, start - warmup, length),
    }[config.decay]
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup])


def _decay(config: Optimizer, peak: float, start: Any, length: Any) -> optax.Schedule:
    """The schedule "wsd" after its warm-up: the decay starts `start` steps later."""

    def rate(count: Any) -> Any:
        p = jnp.clip((count - start) / length, 0.0, 1.0)
        return peak * (1 - (jnp.sqrt(p) if config.decay_form == "sqrt" else p))

    return rate


@functools.cache
def make_optimizer(config: Optimizer, depth: int, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with weight decay on matrices only."""
    return scheduled_optimizer(config, make_schedule(config, depth, steps))


def scheduled_optimizer(config: Optimizer, schedule: optax.Schedule) -> optax.GradientTransformation:
    """`make_optimizer` with any schedule of the learning rate."""
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
