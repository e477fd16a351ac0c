"""Samples: drawing them, and setting them out as a captioned grid."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from rfjax import flow
from rfjax.compiling import quick_options

TILE = 128  # pixels of a picture in a grid
LINE = 14  # pixels of a line of text
CAPTION_LINES = 3


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        sampler: a name of `flow.SAMPLERS`. grid: of `flow.GRIDS`. steps: of the grid. shift: of its times.
        guidance: its scale and its interval. diffusion: of the sampler `euler_maruyama`.
        room: the largest number of steps that the compiled sampler should serve.
    """

    sampler: str
    steps: int
    guidance: flow.Guidance
    grid: str = "uniform"
    shift: float = 1.0
    diffusion: str = "linear"
    room: int = 0


@dataclass(frozen=True)
class Trained:
    """A network that can be sampled: the module, its weights, what its predictions are, the shape of its images."""

    model: Any
    params: Any
    formulation: flow.Formulation
    image: tuple[int, int, int]


def draw(
    trained: Trained,
    index: Int[np.ndarray, " B"],
    text: tuple[Float[np.ndarray, "B L E"], Float[np.ndarray, "B P"]],
    settings: Settings,
    place: Callable[[Any], jax.Array] = jnp.asarray,
) -> flow.Sampled:
    """Samples one batch; the noise belongs to the index, so models and settings can be compared picture by picture.

    Args:
        index: of each picture, which decides its noise. text: (context, pooled).
        place: puts a batch on the devices.
    """
    grid = flow.grid(settings.grid, settings.steps, trained.formulation, settings.shift, settings.room)
    scale = settings.guidance.scale
    static = dataclasses.replace(settings.guidance, scale=1.0 if scale == 1 else 0.0)
    run = jit_sampler(trained.model, settings.sampler, settings.diffusion, static, trained.image)
    # As numpy, which every process of a cluster has alike.
    how = jax.tree.map(np.asarray, (trained.formulation.numbers, grid, np.float32(scale)))
    return run(trained.params, how, place(index), tuple(map(place, text)))


@functools.cache
def jit_sampler(
    model: Any, sampler: str, diffusion: str, guidance: flow.Guidance, image: tuple[int, int, int]
) -> Callable[..., flow.Sampled]:
    """A sampler, jitted: (params, (formulation, grid, scale), index, text) -> Sampled.

    The formulation, the scale of guidance (unless it is 1) and the number of steps are arguments: one program serves
    them all.
    """
    method = flow.sampler(sampler, diffusion)

    def run(
        params: Any,
        how: tuple[flow.Numbers, flow.Grid, Float[Array, ""]],
        index: Int[Array, " B"],
        text: tuple[Float[Array, "B L E"], Float[Array, "B P"]],
    ) -> flow.Sampled:
        formulation, grid, scale = how
        chosen = guidance if guidance.none else dataclasses.replace(guidance, scale=scale)
        network = functools.partial(model.apply, {"params": params})
        field = flow.Field(flow.guided(network, *text, chosen), formulation)
        start = formulation.coefficients(grid.times[0]).b * noise(index, image)
        return method(field, start, grid, lambda step: noise(index, image, step + 1))

    return jax.jit(run, compiler_options=quick_options())


def noise(index: Int[Array, " B"], image: tuple[int, int, int], use: Any = 0) -> Float[Array, "B H W C"]:
    """Standard normal noise, a key for each picture and each use of it: 0 to start from, then the steps of an SDE."""
    key = jax.random.fold_in(jax.random.key(0), use)
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), image))(index)


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
