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
from jaxtyping import Array, Float, Int, UInt8, UInt32
from PIL import Image, ImageDraw, ImageFont

from rfjax import files, flow
from rfjax.compiling import MIN_FLOPS_FOR_FULL_OPT_SAMPLING, options, worth_full_opt
from rfjax.data import pixels
from rfjax.errors import printable

PIXELS = (1, 3)  # channels of pictures that a screen can show; others are latents
TILE = 128  # pixels of a picture in a grid
LINE = 14  # pixels of a line of text
CAPTION_LINES = 3


@dataclass(frozen=True)
class Settings:
    """How to sample.

    Attributes:
        sampler: a name of `flow.SAMPLERS`.
        schedule: a name of `flow.SCHEDULES`, or "own". steps: of the schedule. shift: of its times.
        guidance: its scale and its interval. diffusion: of the sampler `euler_maruyama`.
        room: the largest number of steps that the compiled sampler should serve. seed: of the noise.
    """

    sampler: str
    steps: int
    guidance: flow.Guidance
    schedule: str = flow.OWN
    shift: float = 1.0
    diffusion: str = "linear"
    room: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Trained:
    """A network that can be sampled: the module, its weights, what its predictions are, the shape of its images.

    flops: of one evaluation for one example, to tell how hard to compile; 0: not known, so quickly.
    """

    model: Any
    params: Any
    formulation: flow.Formulation
    image: tuple[int, int, int]
    flops: int = 0


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
    schedule = flow.schedule(settings.schedule, settings.steps, trained.formulation, settings.shift, settings.room)
    scale = settings.guidance.scale
    static = dataclasses.replace(settings.guidance, scale=1.0 if scale == 1 else 0.0)
    evaluations = len(index) * settings.steps * (2 - settings.guidance.none)  # or some more
    full = worth_full_opt(evaluations * trained.flops, MIN_FLOPS_FOR_FULL_OPT_SAMPLING)
    run = jit_sampler(trained.model, settings.sampler, settings.diffusion, static, trained.image, full=full)
    # As numpy, which every process of a cluster has alike.
    how = jax.tree.map(np.asarray, (trained.formulation.arrays, schedule, np.float32(scale), np.uint32(settings.seed)))
    return run(trained.params, how, place(index), tuple(map(place, text)))


@functools.cache
def jit_sampler(
    model: Any,
    sampler: str,
    diffusion: str,
    guidance: flow.Guidance,
    image: tuple[int, int, int],
    *,
    full: bool = False,
) -> Callable[..., flow.Sampled]:
    """A sampler, jitted: (params, (formulation, schedule, scale, seed), index, text) -> Sampled.

    The formulation, the scale of guidance (unless it is 1), the number of steps and the seed are arguments: one program
    serves them all. `full`: compiled with full effort.
    """
    method = flow.sampler(sampler, diffusion)

    def run(
        params: Any,
        how: tuple[flow.FormulationArrays, flow.Schedule, Float[Array, ""], UInt32[Array, ""]],
        index: Int[Array, " B"],
        text: tuple[Float[Array, "B L E"], Float[Array, "B P"]],
    ) -> flow.Sampled:
        formulation, schedule, scale, seed = how
        chosen = guidance if guidance.none else dataclasses.replace(guidance, scale=scale)
        network = functools.partial(model.apply, {"params": params})
        field = flow.Denoiser(flow.guided(network, *text, chosen), formulation)
        start = formulation.coefficients(schedule.times[0]).b * noise(index, image, 0, seed)
        return method(field, start, schedule, lambda step: noise(index, image, step + 1, seed))

    return jax.jit(run, compiler_options=options(full))


def noise(index: Int[Array, " B"], image: tuple[int, int, int], use: Any = 0, seed: Any = 0) -> Float[Array, "B H W C"]:
    """Standard normal noise, a key for each picture and each use of it: 0 to start from, then the steps of an SDE."""
    key = jax.random.fold_in(jax.random.key(seed), use)
    return jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), image))(index)


def to_show(images: Float[np.ndarray, "n H W C"]) -> UInt8[np.ndarray, "n H W _"]:
    """What a network has drawn, as pixels for people: values that are not finite as 0, latents by their components."""
    finite = np.nan_to_num(images, posinf=0.0, neginf=0.0)
    return pixels.to_pixels(finite if images.shape[-1] in PIXELS else principal_components(finite))


def principal_components(images: Float[np.ndarray, "n H W C"]) -> Float[np.ndarray, "n H W 3"]:
    """The first three principal components of all the pictures' pixels, as colours: 2.5 deviations either way are 1.

    The first is red; its sign is that of the channel which weighs most in it. Where there are fewer, the rest are 0.
    """
    flat = images.reshape(-1, images.shape[-1]).astype(np.float64)
    flat = flat - flat.mean(0)
    variance, axes = np.linalg.eigh(flat.T @ flat / len(flat))
    variance, axes = variance[::-1][:3], axes[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), np.arange(len(variance))])
    colours = flat @ axes / (2.5 * np.sqrt(np.maximum(variance, 1e-12)))
    missing = np.zeros((len(flat), 3 - len(variance)))
    return np.concatenate([colours, missing], axis=1).reshape(*images.shape[:3], 3).astype(np.float32)


def tile(image: UInt8[np.ndarray, "H W C"], room: int = TILE) -> Image.Image:
    """One picture, enlarged without smoothing by a whole factor where it is smaller than `room` pixels, else shrunk."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image[..., :3]).convert("RGB")
    longest = max(picture.size)
    factor = room // longest if longest <= room else room / longest
    size = (max(round(factor * picture.width), 1), max(round(factor * picture.height), 1))
    return picture.resize(size, Image.Resampling.NEAREST if longest <= room else Image.Resampling.LANCZOS)


def montage(
    pictures: UInt8[np.ndarray, "n H W C"], captions: Sequence[str], columns: int = 4, note: str = "", room: int = TILE
) -> Image.Image:
    """Pictures in rows, each with its caption below, and a note above them all.

    Args:
        room: pixels for the longer side of a picture.
    """
    tiles = [tile(p, room) for p in pictures]
    (wide, high), pad = tiles[0].size, 8
    cell, rows = (wide + pad, high + pad + CAPTION_LINES * LINE), -(-len(tiles) // columns)
    font, across = ImageFont.load_default(11), min(columns, len(tiles)) * cell[0] + pad
    heading = _wrap(note, font, across - 2 * pad) if note else []
    top = pad + len(heading) * LINE
    sheet = Image.new("RGB", (across, top + rows * cell[1]), "white")
    pen = ImageDraw.Draw(sheet)
    for row, line in enumerate(heading):
        pen.text((pad, pad // 2 + row * LINE), line, fill="dimgray", font=font)
    for i, (picture, caption) in enumerate(zip(tiles, captions, strict=True)):
        x, y = pad + i % columns * cell[0], top + i // columns * cell[1]
        sheet.paste(picture, (x, y))
        for row, line in enumerate(_wrap(caption, font, wide)[:CAPTION_LINES]):
            pen.text((x, y + high + 2 + row * LINE), line, fill="black", font=font)
    return sheet


def _wrap(text: str, font: Any, width: int) -> list[str]:
    lines = [""]
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def save(folder: Path, name: str, pictures: UInt8[np.ndarray, "n H W C"], captions: Sequence[str]) -> None:
    """Writes NAME.png, a captioned grid for people, and NAME_tiles.png, the bare pictures in one row for the report."""
    row = np.concatenate(list(pictures), axis=1)
    tiles = Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row[..., :3])
    for image, file in ((montage(pictures, captions), f"{name}.png"), (tiles, f"{name}_tiles.png")):
        with files.atomic(folder / file) as partial:
            image.save(partial, format="PNG")
