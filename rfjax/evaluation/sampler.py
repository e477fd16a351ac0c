"""The sampler's program: noise and a condition in, pictures out, for one batch."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from rfjax import config as configs
from rfjax import flow
from rfjax.compiling import MIN_FLOPS_FOR_FULL_OPT_SAMPLING, options, worth_full_opt
from rfjax.encoders import Codec
from rfjax.encoders.parts import in_parts


@dataclass(frozen=True)
class SamplerSettings:
    """How to sample.

    Attributes:
        sampler: a name of `flow.SAMPLERS`.
        steps: of the schedule.
        guidance: its scale and its interval.
        schedule: a name of `flow.SCHEDULES`, or "own".
        shift: of the schedule's times.
        diffusion: of the sampler `euler_maruyama`.
        room: the largest number of steps that the compiled sampler should serve.
        seed: of the noise.
    """

    sampler: str
    steps: int
    guidance: flow.Guidance
    schedule: str = flow.OWN
    shift: float = 1.0
    diffusion: str = "linear"
    room: int = 0
    seed: int = 0


def make_settings(sampling: configs.Sampling, one: configs.Setting, room: int = 0, seed: int = 0) -> SamplerSettings:
    """A number of steps and a scale of guidance with all else that a config, or the setting's preset, says."""
    sampling = configs.with_preset(sampling, one.preset)
    channels = sampling.guidance_channels or None
    return SamplerSettings(
        sampler=sampling.sampler,
        steps=one.steps,
        guidance=flow.Guidance(one.guidance, sampling.guidance_low, sampling.guidance_high, channels),
        schedule=sampling.schedule,
        shift=sampling.shift,
        diffusion=sampling.diffusion,
        room=room,
        seed=seed,
    )


def all_settings(sampling: configs.Sampling) -> dict[str, SamplerSettings]:
    """The sampler settings that a config names."""
    wanted = [configs.setting(text) for text in sampling.settings]
    room = max((one.steps for one in wanted), default=0)
    return {one.name: make_settings(sampling, one, room) for one in wanted}


@dataclass(frozen=True)
class Sampleable:
    """A network that can be sampled.

    Attributes:
        model: the module.
        params: its weights, as `model.apply` takes them.
        formulation: what its predictions are.
        codec: what decodes its samples; its `shape` is that of z.
        frozen: the codec's weights.
        flops: of one evaluation for one example, to tell how hard to compile; 0: unknown, so quickly.
    """

    model: Any
    params: Any
    formulation: flow.Formulation
    codec: Codec
    frozen: Any = ()
    flops: int = 0


class Batch(NamedTuple):
    """One batch of samples.

    Attributes:
        z: as the network makes them.
        images: decoded; None where the codec gives no pictures, or decodes in a program of its own.
        finite: whether all numbers of a sample are finite.
        length: of each sample's path, see `flow.Sampled`.
        evaluations: of the network.
    """

    z: Float[Array, "B *S C"]
    images: UInt8[Array, "B *S2 C2"] | None
    finite: Bool[Array, " B"]
    length: Float[Array, " B"]
    evaluations: Int[Array, ""]


def sample_batch(
    network: Sampleable,
    index: Int[np.ndarray, " B"],
    cond: Any,
    settings: SamplerSettings,
    place: Callable[[Any], jax.Array] = jnp.asarray,
) -> Batch:
    """Samples one batch; the noise belongs to the index, so models and settings can be compared picture by picture.

    Args:
        network: what is sampled.
        index: of each picture, which decides its noise.
        cond: the conditioning, on the devices; None for a network without one.
        settings: how to sample.
        place: puts rows on the devices.
    """
    formulation, scale = network.formulation, settings.guidance.scale
    schedule = flow.schedule(settings.schedule, settings.steps, formulation, settings.shift, settings.room)
    schedule = flow.tabulated(schedule, formulation.arrays)
    static = dataclasses.replace(settings.guidance, scale=1.0 if settings.guidance.none else 0.0)
    evaluations = len(index) * settings.steps * (2 - settings.guidance.none)  # or some more
    full = worth_full_opt(evaluations * network.flops, MIN_FLOPS_FOR_FULL_OPT_SAMPLING)
    run = jit_sampler(network.model, network.codec, settings.sampler, settings.diffusion, static, full=full)
    rows = place(index)
    # As numpy, which every process of a cluster has alike.
    how = jax.tree.map(np.asarray, (formulation.arrays, schedule, np.float32(scale), np.uint32(settings.seed)))
    made = run(network.params, network.frozen, how, rows, cond)
    if not decodes_apart(network.codec):
        return made
    return made._replace(images=jit_decode(network.codec, rows.sharding)(network.frozen, made.z))


def decodes_apart(codec: Codec) -> bool:
    """Whether a codec decodes by a network of its own: its program is then compiled once for all samplers."""
    return codec.pictures and bool(getattr(codec, "decodes_at_once", 0))


@functools.cache
def jit_decode(codec: Codec, rows: Sharding | None = None) -> Callable[[Any, Any], UInt8[Array, "B *S2 C2"]]:
    """(the codec's weights, z) -> pictures, jitted, as many at a time as the codec says.

    Args:
        codec: with an attribute `decodes_at_once`.
        rows: how the rows of z are spread.
    """
    return jax.jit(in_parts(codec.decode, codec.decodes_at_once, rows))


@functools.cache
def jit_sampler(
    model: Any, codec: Codec, sampler: str, diffusion: str, guidance: flow.Guidance, *, full: bool = False
) -> Callable[..., Batch]:
    """A sampler, jitted: (params, frozen, (formulation, schedule, scale, seed), index, cond) -> Batch.

    The formulation, the scale of guidance (unless it is 1), the number of steps and the seed are arguments: one program
    serves them all.

    Args:
        guidance: of any scale but 1 where the argument counts.
        full: compile with full effort.
    """
    method = flow.sampler(sampler, diffusion)
    asked = "with_sigma" if sampler == "ddpm" and getattr(model, "learn_sigma", False) else None

    def run(
        params: Any,
        frozen: Any,
        how: tuple[flow.FormulationArrays, flow.Schedule, Float[Array, ""], UInt32[Array, ""]],
        index: Int[Array, " B"],
        cond: Any,
    ) -> Batch:
        formulation, schedule, scale, seed = how
        chosen = guidance if guidance.none else dataclasses.replace(guidance, scale=scale)
        network = functools.partial(model.apply, {"params": params}, method=asked)
        denoiser = flow.Denoiser(flow.guided(network, cond, chosen), formulation)
        start = schedule.at(0, formulation).b * noise(index, codec.shape, 0, seed)
        z, length, count = method(denoiser, start, schedule, lambda step: noise(index, codec.shape, step + 1, seed))
        finite = jnp.isfinite(z).all(axis=tuple(range(1, z.ndim)))
        here = codec.pictures and not decodes_apart(codec)
        return Batch(z, codec.decode(frozen, z) if here else None, finite, length, count)

    return jax.jit(run, compiler_options=options(full))


def noise(index: Int[Array, " B"], shape: tuple[int, ...], use: Any = 0, seed: Any = 0) -> Float[Array, "B *S"]:
    """Standard normal noise, a key for each picture and each use of it: 0 to start from, then the steps of an SDE."""
    key = jax.random.fold_in(jax.random.key(seed), use)
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), shape))(index)
