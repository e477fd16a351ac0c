"""Sets of pictures with their prompts: archives, the job `generate`, captioned folders, the suites' official folders.

    SET/samples.npz                      arr_0 (uint8), captions or arr_1 (class labels), as the job `archive` writes
    SET/*.npz                            one file with images (uint8) and captions, as the job `generate` writes
    SET/captions.jsonl                   {"file": "0.png", "caption": "a red cup"}; Hugging Face's metadata.jsonl too
    SET/00000/metadata.jsonl, samples/   GenEval's folders, a prompt each
    SET/samples/PROMPT_000000.png        T2I-CompBench's names

Pictures of one prompt are numbered in the order of the set. Nothing in a set is executed, and no file outside is read.
"""

import contextlib
import hashlib
import io
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from rfjax.errors import UserError, one_line
from rfjax.untrusted import Unreadable, parse_json, read_bytes, read_json

ARCHIVE = "samples.npz"
IMAGES, TEXTS = ("arr_0", "images"), ("captions", "arr_1")  # members of .npz files; arr_1 has class labels
LISTS = ("captions.jsonl", "metadata.jsonl")
FILE_KEYS, TEXT_KEYS = ("file", "file_name"), ("caption", "text", "prompt")
ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}  # of Pillow: 8 bits a channel
LARGEST_ARRAYS, LARGEST_PICTURE = 2**32, 2**28  # bytes
TURNED = {5, 6, 7, 8}  # orientations of EXIF that swap the sides
ORIENTATION = 274  # the tag of EXIF
Key = tuple[str, int]  # a prompt, and the number of a picture of it


@dataclass(frozen=True)
class Picture:
    """A picture; content: its file, or its pixels; size: (width, height); digest: of the bytes of the content."""

    content: Path | UInt8[np.ndarray, "H W C"]
    size: tuple[int, int]
    digest: str
    where: str

    def decode(self) -> Image.Image:
        """Its pixels in RGB, turned as EXIF says, without anything else that the file holds.

        Raises:
            UserError: if it can't be read.
        """
        if isinstance(self.content, Path):
            with _decoding(self.where), Image.open(io.BytesIO(_bytes(self.content))) as found:
                return Image.fromarray(np.asarray(ImageOps.exif_transpose(found).convert("RGB")))
        pixels = self.content
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]).convert("RGB")


@dataclass(frozen=True)
class SampleSet:
    """The pictures of one model, by prompt and number."""

    name: str
    path: Path
    pictures: Mapping[Key, Picture]


def open_set(name: str, path: Path) -> SampleSet:
    """Finds the pictures of a set, and reads their sizes.

    Args:
        name: what the votes call it.
        path: a folder, or an .npz file.

    Raises:
        UserError: if there are none, or something in the set can't be read.
    """
    try:
        found = list(_entries(path))
    except OSError as error:
        raise UserError(f"{error.filename or path} can't be read ({error.strerror or error})") from error
    if not found:
        raise UserError(f"{path} holds no pictures with prompts: see docs/preferences.md for what a set may be")
    numbered: dict[Key, Picture] = {}
    seen: Counter[str] = Counter()
    for prompt, picture in found:
        numbered[prompt, seen[prompt]] = picture
        seen[prompt] += 1
    return SampleSet(name, path, numbered)


def _entries(path: Path) -> Iterable[tuple[str, Picture]]:
    if path.is_file():
        return _arrays(path)
    if not path.is_dir():
        raise UserError(f"{path} is not there: name a folder of pictures, or an .npz file")
    if (path / ARCHIVE).exists():
        return _arrays(path / ARCHIVE)
    if lists := [path / name for name in LISTS if (path / name).exists()]:
        return _listed(path, lists[0])
    prompts = sorted(folder for folder in path.iterdir() if folder.is_dir() and re.fullmatch(r"\d+", folder.name))
    if prompts:
        return _prompt_folders(prompts)
    if (path / "samples").is_dir():
        return _named(path / "samples")
    files = sorted(path.glob("*.npz"))
    if len(files) > 1:
        names = ", ".join(one_line(file.name) for file in files[:4])
        raise UserError(f"{path} holds {len(files)} .npz files ({names}): name the one that you mean")
    return _arrays(files[0]) if files else []


def _arrays(path: Path) -> Iterator[tuple[str, Picture]]:
    """The pictures of an .npz file."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > LARGEST_ARRAYS:
            raise UserError(f"{path} holds {size:,} bytes of arrays, more than {LARGEST_ARRAYS:,}: draw fewer pictures")
        with np.load(path, allow_pickle=False) as arrays:
            images = next((arrays[name] for name in IMAGES if name in arrays), None)
            texts = next((arrays[name] for name in TEXTS if name in arrays), None)
    except UserError:
        raise
    except Exception as error:  # of a damaged file, numpy and zipfile raise nearly anything
        raise UserError(f"{path} can't be read as an .npz file ({error}): is it whole?") from error
    if images is None or texts is None:
        raise UserError(f"{path} lacks its pictures ({' or '.join(IMAGES)}) or what they show ({' or '.join(TEXTS)})")
    if images.dtype != np.uint8:
        raise UserError(f"{path} holds {images.dtype} values, which are latents and no pictures: decode them first")
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or texts.shape != images.shape[:1]:
        raise UserError(f"{path}: pictures of shape {images.shape} and texts of shape {texts.shape} don't fit")
    labels = np.issubdtype(texts.dtype, np.integer)
    for number, (image, text) in enumerate(zip(images, texts.tolist(), strict=True)):
        prompt = f"class {text}" if labels else str(text)
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        yield prompt, Picture(image, (image.shape[1], image.shape[0]), digest, f"{path}, picture {number}")


def _listed(folder: Path, file: Path) -> Iterator[tuple[str, Picture]]:
    """The pictures that a captions file names, in its order."""
    for number, line in enumerate((read_bytes(file) or b"").decode(errors="replace").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number},"
        record = parse_json(line, where)
        name = next((record[key] for key in FILE_KEYS if key in record), None)
        text = next((record[key] for key in TEXT_KEYS if key in record), None)
        text = text[0] if isinstance(text, list) and text else text
        if not isinstance(name, str) or not isinstance(text, str) or not name:
            raise UserError(f"{where} needs a picture ({' or '.join(FILE_KEYS)}) and a text ({' or '.join(TEXT_KEYS)})")
        if "\0" in name or not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{where} names '{one_line(name)}', which is outside of the folder")
        yield text, _file(folder / name, where)


def _prompt_folders(folders: Iterable[Path]) -> Iterator[tuple[str, Picture]]:
    """GenEval's layout."""
    for folder in folders:
        prompt = (read_json(folder / "metadata.jsonl") or {}).get("prompt")
        if not isinstance(prompt, str):
            raise UserError(f"{folder / 'metadata.jsonl'} is not there, or has no prompt")
        for file in _pictures(folder / "samples"):
            yield prompt, _file(file, str(folder))


def _named(folder: Path) -> Iterator[tuple[str, Picture]]:
    """T2I-CompBench's layout: the prompt ends at the first `_`, as the suite's own code reads it."""
    for file in sorted(_pictures(folder), key=lambda file: (file.stem.rpartition("_")[2].zfill(12), file.name)):
        prompt, line, number = file.stem.rpartition("_")
        if line and number.isdecimal():
            yield prompt.split("_")[0], _file(file, str(folder))


def _pictures(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if file.suffix.lower() in ENDINGS and not file.name.startswith(".")]


def _file(path: Path, where: str) -> Picture:
    """A picture's size and digest; its pixels are decoded when they are shown."""
    content = _bytes(path, f"{where} names a picture that is not there: {path}")
    with _decoding(str(path)), Image.open(io.BytesIO(content)) as found:
        size = found.size[::-1] if found.getexif().get(ORIENTATION) in TURNED else found.size
        if found.mode not in MODES:
            raise UserError(f"{path} has pixels of the kind {found.mode}: save it with 8 bits a channel")
    return Picture(path, size, hashlib.sha256(content).hexdigest(), str(path))


def _bytes(path: Path, missing: str = "") -> bytes:
    content = read_bytes(path, limit=LARGEST_PICTURE)
    if content is None:
        raise UserError(missing or f"{path} is not there any more: put it back")
    return content


@contextlib.contextmanager
def _decoding(where: str) -> Iterator[None]:
    """Turns what Pillow raises of a bad picture into a sentence."""
    try:
        yield
    except Unreadable:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(f"{where} is no picture that can be read ({one_line(str(error))})") from error
