"""From a config to all that the compiled programs of a run depend on; nothing is allocated."""

import functools
import re
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import optax

from rfjax import lookup
from rfjax.compiling import worth_full_opt
from rfjax.config import Config, Optimizer, check_z
from rfjax.encoders import Codec, Encoder, TextEncoder, make_encoders
from rfjax.encoders.features import FeatureEncoder, make_features
from rfjax.errors import UserError
from rfjax.models import Backbone, Inputs, Positions, build
from rfjax.models.backbone import Head
from rfjax.models.matmul import on_cpu
from rfjax.models.parameterisation import PARAMETERISATIONS, Scaling
from rfjax.models.projector import Projector
from rfjax.models.shards import Adapter
from rfjax.objectives import Objective, make_objective
from rfjax.objectives.alignment import align, stopped
from rfjax.training.optimizer import make_optimizer, make_schedule

MOST_UNROLLED = 12  # blocks: more take minutes to compile


@dataclass(frozen=True)
class RunSpec:
    """All that the compiled programs of a run depend on.

    Runs whose specs are equal share their programs, whatever their data and their formulation.

    Attributes:
        encoders: the codec, the text encoder, and others.
        features: encoders of the clean picture, which run in training only.
        objective: what is minimised.
        model: the network, with the heads of the objective.
        inputs: the shapes that it reads.
        adapter: factors that are trained in place of the weights; None: the weights are.
        trainable: a regular expression that the paths of trained weights match; "": all are trained.
        settings: of the optimizer.
        depth: of the ladder's rule.
        steps: of the schedule.
        log_every: steps between lines of metrics.
        accumulate: parts of a batch that a device works on one after the other.
        explosion: how many times the recent median is too large a loss.
        full_opt: compile with full effort, see `compiling.worth_full_opt`.
        aligned_until: the step at which alignment ends; 0: it does not.
        synthetic: some captions may be synthetic: they are counted.
        scaling: the parameterisation at this size; None: "standard", or the base size itself.
    """

    encoders: tuple[Encoder, ...]
    features: tuple[FeatureEncoder, ...]
    objective: Objective
    model: Backbone
    inputs: Inputs
    adapter: Adapter | None
    trainable: str
    settings: Optimizer
    depth: int
    steps: int
    log_every: int
    accumulate: int
    explosion: float
    full_opt: bool
    aligned_until: int = 0
    synthetic: bool = False
    scaling: Scaling | None = None

    @property
    def codec(self) -> Codec:
        """The encoder of the data itself."""
        return self.encoders[0]

    @property
    def text(self) -> TextEncoder:
        """The encoder of the conditioning."""
        return self.encoders[1]

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Of the trained weights."""
        return make_optimizer(self.settings, self.depth, self.steps, self.scaling)

    @property
    def schedule(self) -> optax.Schedule:
        """Of the learning rate."""
        return make_schedule(self.settings, self.depth, self.steps)

    def at(self, step: int) -> "RunSpec":
        """The spec of the update that follows `step` updates: the same, but for alignment that has ended."""
        return self._unaligned if 0 < self.aligned_until <= step else self

    @functools.cached_property
    def shared(self) -> "RunSpec":
        """The spec of all runs that differ from this one by their peak rate and their parameterisation's ratios alone.

        "standard" and other parameterisations have programs of their own.
        """
        scaling = self.scaling and self.scaling.shape
        return replace(self, settings=replace(self.settings, learning_rate=1.0, depth_exponent=0.0), scaling=scaling)

    @functools.cached_property
    def _unaligned(self) -> "RunSpec":
        return replace(self, features=(), objective=stopped(self.objective), aligned_until=0)

    @property
    def alignment_flops(self) -> dict[str, int]:
        """FLOPs that alignment adds to each training example: "projector", forward and backward, and "encoder"."""
        if not self.features:
            return {"projector": 0, "encoder": 0}
        tokens, names = self.model.tokens(self.inputs.shape), {one.head for one in self.objective.targets}
        heads = [head.module for head in self.model.readouts if head.name in names]
        macs = sum(module.macs(tokens, self.model.width) for module in heads)
        return {"projector": 3 * 2 * macs, "encoder": sum(one.flops for one in self.features)}

    def trains(self, path: str) -> bool:
        """Whether a base weight, by its path, is trained."""
        return self.adapter is None and re.search(self.trainable, path) is not None


def make_run_spec(config: Config) -> RunSpec:
    """Builds everything but the data, which may need a disk, and the formulation."""
    encoders, objective, training = make_encoders(config), make_objective(config), config.training
    try:
        re.compile(training.trainable)
    except re.error as error:
        raise UserError(f"config.training.trainable is no regular expression: {error}") from error
    codec, text = encoders[:2]
    check_z(config, codec.shape)
    inputs = Inputs(codec.shape, text.output)
    features = make_features(config)
    if features:
        objective = align(objective, features, config, make_model(config, inputs, text), inputs)
    model = make_model(config, inputs, text, objective.heads)
    long = worth_full_opt(training.steps * training.batch * 3 * model.forward_flops(inputs))
    if config.model.unroll < 0 and long and on_cpu() and model.depth <= MOST_UNROLLED:
        model = model.clone(unroll=model.depth)
    return RunSpec(
        encoders=encoders,
        features=features,
        objective=objective,
        model=model,
        inputs=inputs,
        adapter=lookup.find(config.model.adapter, {}, "model.adapter")(config) if config.model.adapter else None,
        trainable=training.trainable,
        settings=config.optimizer,
        depth=config.model.depth,
        steps=training.steps,
        log_every=training.log_every,
        accumulate=training.accumulate,
        explosion=config.recovery.explosion,
        full_opt=long,
        aligned_until=config.alignment.until if features else 0,
        synthetic=config.data.synthetic_share > 0,
        scaling=make_scaling(config, model),
    )


def make_scaling(config: Config, model: Backbone) -> Scaling | None:
    """The parameterisation at a network's size; None where it changes nothing.

    The base is a network of depth `base_depth`, or 1, and of width `base_width`, or the depth rule's at that depth: the
    learning rate is then that of depth 1, as it is for config.optimizer.depth_exponent.
    """
    chosen = config.model
    table = lookup.find(chosen.parameterisation, PARAMETERISATIONS, "model.parameterisation")
    depth = chosen.base_depth or 1
    width = chosen.base_width or chosen.width_per_depth * depth
    heads = tuple(head.name for head in model.readouts)
    scaling = Scaling(table, model.width / width, model.depth / depth, heads)
    return scaling if table.rules and (scaling.width, scaling.depth) != (1, 1) else None


def make_model(config: Config, inputs: Inputs, text: TextEncoder, heads: tuple[Head, ...] = ()) -> Backbone:
    """The backbone that the config names, for an encoder's text, with the heads of a checkpoint and of an objective."""
    model, side = config.model, max(inputs.shape[-3:-1])
    own: dict[str, Any] = {"time": model.time} if model.time else {}
    if model.backbone in ("dit", "sit"):
        own |= {"learn_sigma": model.learn_sigma, "classes": text.classes}
    if model.backbone.startswith("mmdit"):
        own["dual_blocks"] = model.dual_blocks
    if model.backbone == "mmdit3":
        own["texts"] = text.kinds
    if model.width:
        own["width"] = model.width
    if model.heads or model.head_width:
        own["heads"] = model.chosen_heads
    patches = lambda side: -(-side // model.patch)  # noqa: E731
    frames = (model.frame_patch,) if len(inputs.shape) == 4 else ()
    projectors = tuple(
        Head(f"projector_{i}", min(model.projector_block, model.depth), Projector(width, model.projector_width))
        for i, width in enumerate(model.projectors)
    )
    own_names = {head.name for head in heads}
    projectors = tuple(head for head in projectors if head.name not in own_names)
    return build(
        model.backbone,
        model.depth,
        model.width_per_depth,
        patch=(*frames, model.patch, model.patch),
        mlp_ratio=model.mlp_ratio,
        qk_norm=model.qk_norm,
        remat=model.remat,
        unroll=model.depth if model.unroll == 0 else max(model.unroll, 1),
        dtype=jnp.dtype(model.precision),
        attention=model.attention or None,
        positions=Positions(
            size=patches(side) if model.largest_image or model.base_image else 0,
            largest=patches(model.largest_image),
            base=patches(model.base_image),
            stored=model.stored_positions,
        ),
        frequency_shift=model.frequency_shift,
        modulation=model.modulation,
        readouts=(*projectors, *heads),
        **own,
    )
