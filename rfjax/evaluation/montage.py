"""Pictures for people: a captioned montage, and latents shown by their principal components."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from rfjax import files
from rfjax.encoders.codec import to_pixels
from rfjax.errors import printable

TILE = 128  # pixels of a picture in a montage
LINE = 14  # pixels of a line of text
CAPTION_LINES = 3


def preview(z: Float[np.ndarray, "n H W C"]) -> UInt8[np.ndarray, "n H W 3"]:
    """Latents that no decoder turns into pictures, as colours; values that are not finite count as 0."""
    return to_pixels(principal_components(np.nan_to_num(z, posinf=0.0, neginf=0.0)))


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


def save(
    folder: Path, name: str, pictures: UInt8[np.ndarray, "n H W C"], captions: Sequence[str], columns: int = 4
) -> None:
    """Writes NAME.png, a captioned montage, and NAME_tiles.png, the bare pictures in one row for the report."""
    row = np.concatenate(list(pictures), axis=1)
    tiles = Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row[..., :3])
    for image, file in ((montage(pictures, captions, columns), f"{name}.png"), (tiles, f"{name}_tiles.png")):
        with files.atomic(folder / file) as partial:
            image.save(partial, format="PNG")
