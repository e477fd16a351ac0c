"""Samples: drawing them, and setting them out as a captioned grid."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from rfjax import flow

TILE = 128  # pixels of a picture in a grid
LINE = 14  # pixels of a line of text
CAPTION_LINES = 3


@dataclass(frozen=True)
class Settings:
    """How to sample: a name in `flow.SAMPLERS`, its number of steps, the scale of classifier-free guidance."""

    sampler: str
    steps: int
    guidance: float


def draw(
    network: Callable[..., Array],
    formulation: flow.Formulation,
    noise: Float[Array, "B H W C"],
    text: tuple[Any, Any],
    settings: Settings,
) -> Float[Array, "B H W C"]:
    """Samples from noise: the same noise gives pictures that can be compared between models.

    Args:
        network: (z, t, context, pooled) -> prediction, jitted. text: (context, pooled).
    """
    guided = flow.guided(network, *text, settings.guidance)
    path, prediction = formulation.path, formulation.prediction
    velocity = lambda z, t: prediction.velocity(path, guided(z, t), z, t)  # noqa: E731
    return flow.SAMPLERS[settings.sampler](velocity, noise, flow.uniform_times(settings.steps))


@functools.cache
def noise(count: int, image: tuple[int, int, int], seed: int = 0) -> Float[Array, "B H W C"]:
    """Starting noise, a key for each picture."""
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(np.arange(count))
    return jax.vmap(lambda key: jax.random.normal(key, image))(keys)


def tile(image: UInt8[np.ndarray, "H W C"]) -> Image.Image:
    """One picture, enlarged without smoothing by a whole factor where it is small."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3]).convert("RGB")
    side = max(TILE // max(picture.size), 1) * picture.width if picture.width < TILE else TILE
    return picture.resize((side, side), Image.Resampling.NEAREST if picture.width <= TILE else Image.Resampling.LANCZOS)


def grid(pictures: UInt8[np.ndarray, "n H W C"], captions: Sequence[str], columns: int = 4) -> Image.Image:
    """Pictures in rows, each with its caption below."""
    tiles = [tile(p) for p in pictures]
    side, pad = max(t.width for t in tiles), 8
    cell, rows = (side + pad, side + pad + CAPTION_LINES * LINE), -(-len(tiles) // columns)
    sheet = Image.new("RGB", (min(columns, len(tiles)) * cell[0] + pad, rows * cell[1] + pad), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (picture, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = pad + i % columns * cell[0], pad + i // columns * cell[1]
        sheet.paste(picture, (x, y))
        for row, line in enumerate(_wrap(caption, pen, font, side)):
            pen.text((x, y + side + 2 + row * LINE), line, fill="black", font=font)
    return sheet


def _wrap(text: str, pen: ImageDraw.ImageDraw, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines[:CAPTION_LINES]


def save(folder: Path, name: str, pictures: UInt8[np.ndarray, "n H W C"], captions: Sequence[str]) -> None:
    """Writes NAME.png, a captioned grid for people, and NAME_tiles.png, the bare pictures in one row for the report."""
    folder.mkdir(parents=True, exist_ok=True)
    grid(pictures, captions).save(folder / f"{name}.png")
    row = np.concatenate(list(pictures), axis=1)
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row[..., :3]).save(folder / f"{name}_tiles.png")
