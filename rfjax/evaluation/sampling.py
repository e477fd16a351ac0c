"""Draws pictures for captions with a trained network and scores them, one setting of the sampler after the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from rfjax import config as configs
from rfjax import data, flow
from rfjax.data import pixels
from rfjax.evaluation import pictures, scorers
from rfjax.evaluation.validation import gather


@dataclass(frozen=True)
class Captions:
    """The captions that every setting and every model is asked to draw, and the true images beside them.

    Attributes:
        texts: the captions. context, pooled: their encodings. images: of the data set; None for other captions.
    """

    texts: tuple[str, ...]
    context: Float[np.ndarray, "n L E"]
    pooled: Float[np.ndarray, "n P"]
    images: Shaped[np.ndarray, "n H W C"] | None = None


def captions(source: data.Source, encoder: data.TextEncoder, count: int) -> Captions:
    """The first captions of a data set, from its beginning again where it has fewer."""
    batch, texts = data.load(source, encoder, [i % len(source) for i in range(count)])
    return Captions(tuple(texts), batch["context"], batch["pooled"], batch["image"])


@dataclass(frozen=True)
class Drawn:
    """Pictures and what they cost.

    Attributes:
        images: as the network draws them, float32. length: of each sample's path.
        evaluations: of the network, a batch. grid: the name of the times, as `flow.schedule_of` says.
    """

    images: Float[np.ndarray, "n H W C"]
    length: Float[np.ndarray, " n"]
    evaluations: int
    grid: str = ""


def settings(sampling: configs.Sampling) -> dict[str, pictures.Settings]:
    """The sampler settings that a config asks for, by name."""
    wanted = [configs.setting(text) for text in sampling.settings]
    room = max((one.steps for one in wanted), default=0)
    return {one.name: make_settings(sampling, one, room) for one in wanted}


def make_settings(sampling: configs.Sampling, one: configs.Setting, room: int = 0, seed: int = 0) -> pictures.Settings:
    """A number of steps and a scale with all else that a config says about sampling; see `pictures.Settings`."""
    return pictures.Settings(
        sampling.sampler,
        one.steps,
        flow.Guidance(one.guidance, sampling.guidance_low, sampling.guidance_high, sampling.guidance_channels or None),
        sampling.schedule,
        sampling.shift,
        sampling.diffusion,
        room,
        seed,
    )


def draw(
    trained: pictures.Trained,
    asked: Captions,
    chosen: pictures.Settings,
    batch: int,
    place: Callable[[Any], jax.Array] = jnp.asarray,
    *,
    tell: Callable[[int], None] = lambda done: None,
) -> Drawn:
    """Draws every caption; a last batch that is not full is filled up with the first caption.

    Args:
        batch: pictures at once. place: puts a batch on the devices. tell: is told how many are drawn, batch by batch.
    """
    count = len(asked.texts)
    images, lengths, evaluations = [], [], 0
    for start in range(0, count, batch):
        index = np.arange(start, start + batch)
        rows = np.where(index < count, index, 0)
        text = (asked.context[rows], asked.pooled[rows])
        sampled: flow.Sampled = pictures.draw(trained, rows.astype(np.int32), text, chosen, place)
        images.append(gather(sampled.z))
        lengths.append(gather(sampled.length))
        evaluations = int(sampled.evaluations)
        tell(min(start + batch, count))
    grid = flow.schedule_of(chosen.schedule, trained.formulation.name)
    return Drawn(np.concatenate(images)[:count], np.concatenate(lengths)[:count], evaluations, grid)


def record(drawn: Drawn, texts: Sequence[str], chosen: pictures.Settings, scorer: scorers.Scorer | None) -> dict:
    """Plain values for a line of metrics: the setting, the path length and, where the data set has them, the scores.

    Pictures that are not finite are no pictures: their number is named and nothing is scored.
    """
    said: dict[str, Any] = {
        "sampler": chosen.sampler,
        "steps": chosen.steps,
        "guidance": float(chosen.guidance.scale),
        "grid": drawn.grid,
        "count": len(texts),
        "path_length": float(drawn.length.mean()),
        "evaluations": drawn.evaluations,
    }
    broken = int((~np.isfinite(drawn.images).all(axis=(1, 2, 3))).sum())
    if broken:
        return {**said, "score": None, "frechet": None, "problem": f"{broken} of {len(texts)} pictures are not finite"}
    if scorer is None:
        return said
    return said | scorer(pixels.to_pixels(drawn.images), list(texts)).record()
