"""From a config to the objects that it names."""

import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import optax

from rfjax import data
from rfjax.compiling import worth_full_opt
from rfjax.config import Config, Optimizer
from rfjax.models import Backbone, Inputs, Positions, build
from rfjax.models.matmul import on_cpu

MOST_UNROLLED = 12  # blocks: more take minutes to compile


@dataclass(frozen=True)
class RunSpec:
    """All that the compiled programs of a run depend on; nothing allocated.

    Runs whose parts are equal share their programs, whatever their data and their formulation.

    Attributes:
        full_opt: compile with full effort, see `compiling.worth_full_opt`.
    """

    encoder: data.TextEncoder
    model: Backbone
    inputs: Inputs
    settings: Optimizer
    depth: int
    steps: int
    log_every: int
    accumulate: int
    explosion: float
    full_opt: bool

    @property
    def optimizer(self) -> optax.GradientTransformation:
        return make_optimizer(self.settings, self.depth, self.steps)

    @property
    def schedule(self) -> optax.Schedule:
        return make_schedule(self.settings, self.depth, self.steps)


def make_run_spec(config: Config) -> RunSpec:
    """Builds everything but the data, which may need a disk, and the formulation."""
    encoder, size = data.make_encoder(config.text), config.data.image_size
    inputs = Inputs((size, size, config.data.channels), (encoder.length, encoder.width), encoder.pooled_width)
    model, training = make_model(config, encoder), config.training
    long = worth_full_opt(training.steps * training.batch * 3 * model.forward_flops(*inputs.shapes))
    if config.model.unroll < 0 and long and on_cpu() and model.depth <= MOST_UNROLLED:
        model = model.clone(unroll=model.depth)
    return RunSpec(
        encoder=encoder,
        model=model,
        inputs=inputs,
        settings=config.optimizer,
        depth=config.model.depth,
        steps=training.steps,
        log_every=training.log_every,
        accumulate=training.accumulate,
        explosion=config.recovery.explosion,
        full_opt=long,
    )


def make_model(config: Config, encoder: data.TextEncoder) -> Backbone:
    """The backbone that the config names, for an encoder's text."""
    model = config.model
    own: dict[str, Any] = {"time": model.time} if model.time else {}
    if model.backbone in ("dit", "sit"):
        own |= {"learn_sigma": model.learn_sigma, "classes": 0 if encoder.length else encoder.pooled_width}
    if model.backbone.startswith("mmdit"):
        own["dual_blocks"] = model.dual_blocks
    if model.backbone == "mmdit3":
        own["texts"] = encoder.kinds
    if model.width:
        own["width"] = model.width
    if model.heads:
        own["heads"] = model.heads
    patches = lambda side: -(-side // model.patch)  # noqa: E731
    return build(
        model.backbone,
        model.depth,
        model.width_per_depth,
        patch=model.patch,
        mlp_ratio=model.mlp_ratio,
        qk_norm=model.qk_norm,
        remat=model.remat,
        unroll=model.depth if model.unroll == 0 else max(model.unroll, 1),
        dtype=jnp.dtype(model.precision),
        attention=model.attention or None,
        positions=Positions(
            size=patches(config.data.image_size) if model.largest_image or model.base_image else 0,
            largest=patches(model.largest_image),
            base=patches(model.base_image),
            stored=model.stored_positions,
        ),
        frequency_shift=model.frequency_shift,
        **own,
    )


def peak_learning_rate(config: Optimizer, depth: int) -> float:
    """The ladder's rule: learning_rate x depth^depth_exponent."""
    return config.learning_rate * depth**config.depth_exponent


def make_schedule(config: Optimizer, depth: int, steps: int) -> optax.Schedule:
    """Linear warm-up to the peak (the first step is not zero), then constant, cosine or linear to zero at `steps`."""
    peak, warmup = peak_learning_rate(config, depth), max(config.warmup, 1)
    rest = max(steps - warmup, 1)
    after = {
        "none": optax.constant_schedule(peak),
        "cosine": optax.cosine_decay_schedule(peak, rest),
        "linear": optax.linear_schedule(peak, 0.0, rest),
    }[config.decay]
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, warmup), after], [warmup])


@functools.cache
def make_optimizer(config: Optimizer, depth: int, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with weight decay on matrices only."""
    adamw = optax.adamw(
        make_schedule(config, depth, steps),
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
