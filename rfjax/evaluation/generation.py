"""Generates pictures for prompts with a trained network, batch by batch, and feeds them to metrics."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped, UInt8

from rfjax import data, flow
from rfjax.encoders import Encoder
from rfjax.encoders.codec import to_pixels
from rfjax.evaluation.metrics import Metric
from rfjax.evaluation.sampler import Sampleable, SamplerSettings, decodes_apart, jit_decode, sample_batch
from rfjax.evaluation.validation import gather


@dataclass(frozen=True)
class Prompts:
    """What every setting and every model is asked to generate.

    Attributes:
        texts: the captions, n of them.
        arrays: what the text encoder has prepared of them, n rows each.
        true: the arrays of the data set beside these captions; None for other texts.
    """

    texts: tuple[str, ...]
    arrays: Mapping[str, Shaped[np.ndarray, "n ..."]]
    true: Mapping[str, Shaped[np.ndarray, "n ..."]] | None = None


def first_prompts(source: data.Source, encoders: Sequence[Encoder], count: int) -> Prompts:
    """The first captions of a data set, from its beginning again where it has fewer."""
    codec, text = encoders[:2]
    names = [name for name in (*codec.reads, *text.reads) if name in source.fields]
    found = data.take(source, [i % len(source) for i in range(count)], names)
    true = codec.prepare(found.arrays, found.captions)
    return Prompts(tuple(found.captions), text.prepare(found.arrays, found.captions), true)


def true_pictures(
    network: Sampleable, prompts: Prompts, count: int, place: Callable[[Any], jax.Array] = jnp.asarray
) -> UInt8[np.ndarray, "k *S2"] | None:
    """The data set's own pictures of the first captions, as many as `count`; None if there are none.

    Stored latents are decoded, where there is a decoder.

    Args:
        network: whose codec encodes and decodes.
        prompts: with the data set's arrays, or without them.
        count: of pictures.
        place: puts rows on the devices.
    """
    codec, rows = network.codec, {name: array[:count] for name, array in (prompts.true or {}).items()}
    if (found := rows.get("image")) is not None:
        return found if found.dtype == np.uint8 else to_pixels(found)
    if not rows or not decodes_apart(codec):
        return None

    def encode(weights: Any, rows: Any, index: Any) -> jax.Array:
        return codec.encode(weights, rows, jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(index))

    index = place(np.arange(len(next(iter(rows.values()))), dtype=np.int32))
    z = jax.jit(encode)(network.frozen, {name: place(array) for name, array in rows.items()}, index)
    return gather(jit_decode(codec, index.sharding)(network.frozen, z))


@dataclass(frozen=True)
class Generated:
    """Pictures and what they cost.

    Attributes:
        z: the first samples, as the network makes them; as many as were to be kept.
        images: the same, decoded; None where the codec gives no pictures.
        broken: how many of all the pictures hold numbers that are not finite.
        length: of each sample's path, (n,).
        evaluations: of the network, a batch.
        schedule: the name of the times, as `flow.schedule_of` says.
        scores: what the metrics found, together.
    """

    z: Float[np.ndarray, "k *S"]
    images: Shaped[np.ndarray, "k *S2"] | None
    broken: int
    length: Float[np.ndarray, " n"]
    evaluations: int
    schedule: str
    scores: dict[str, Any]


def generate(
    network: Sampleable,
    prompts: Prompts,
    settings: SamplerSettings,
    batch: int,
    *,
    encode: Callable[[dict[str, Any]], Any],
    place: Callable[[Any], jax.Array] = jnp.asarray,
    metrics: Sequence[Metric] = (),
    keep: int = 0,
    tell: Callable[[int], None] = lambda done: None,
) -> Generated:
    """Generates a picture for every prompt; a last batch that is not full is filled up with the first prompt.

    Args:
        network: what is sampled.
        prompts: n of them.
        settings: how to sample.
        batch: pictures at once.
        encode: prepared arrays on the devices -> the conditioning.
        place: puts rows on the devices.
        metrics: take each batch as it is made. If a picture is not finite, none of them counts.
        keep: how many of the first pictures to hand back.
        tell: is told how many pictures are done, after each batch.
    """
    count = len(prompts.texts)
    states = [metric.init() for metric in metrics]
    kept_z, kept_images, lengths, broken, evaluations = [], [], [], 0, 0
    for start in range(0, count, batch):
        index = np.arange(start, start + batch)
        rows, valid = np.where(index < count, index, 0), min(batch, count - start)
        cond = encode({name: place(array[rows]) for name, array in prompts.arrays.items()})
        made = sample_batch(network, rows.astype(np.int32), cond, settings, place)
        lengths.append(gather(made.length)[:valid])
        broken += int((~gather(made.finite)[:valid]).sum())
        evaluations = int(made.evaluations)
        if start < keep:
            kept_z.append(gather(made.z)[: min(valid, keep - start)])
            if made.images is not None:
                kept_images.append(gather(made.images)[: min(valid, keep - start)])
        if metrics and made.images is not None and not broken:
            images, texts = made.images[:valid], prompts.texts[start : start + valid]
            states = [one.update(state, images, texts) for one, state in zip(metrics, states, strict=True)]
        tell(start + valid)
    schedule = flow.schedule_of(settings.schedule, network.formulation.name)
    z = np.concatenate(kept_z) if kept_z else np.zeros((0, *network.codec.shape), np.float32)
    images = np.concatenate(kept_images) if kept_images else None
    counts = zip(metrics, states, strict=True) if network.codec.pictures and not broken else ()
    scores = {key: value for metric, state in counts for key, value in metric.result(state).items()}
    return Generated(z, images, broken, np.concatenate(lengths), evaluations, schedule, scores)


def score(
    metrics: Sequence[Metric], images: Shaped[np.ndarray, "n *S"], texts: Sequence[str], batch: int
) -> dict[str, Any]:
    """What metrics find in pictures that are all there, `batch` of them at a time."""
    found: dict[str, Any] = {}
    for metric in metrics:
        state = metric.init()
        for start in range(0, len(images), batch):
            state = metric.update(state, jnp.asarray(images[start : start + batch]), texts[start : start + batch])
        found |= metric.result(state)
    return found


def record(made: Generated, count: int, settings: SamplerSettings, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Plain values for a line of metrics: the setting, the path length, and what the metrics found.

    If pictures are not finite, their number is named, and the metrics' quantities are null.
    """
    found: dict[str, Any] = {
        "sampler": settings.sampler,
        "steps": settings.steps,
        "guidance": float(settings.guidance.scale),
        "grid": made.schedule,
        "count": count,
        "path_length": float(made.length.mean()),
        "evaluations": made.evaluations,
    }
    if made.broken:
        nothing = dict.fromkeys(one.key for metric in metrics for one in metric.quantities)
        return {**found, **nothing, "problem": f"{made.broken} of {count} pictures are not finite"}
    return found | made.scores
