"""The weights of encoders: training refuses encodings of others, and a run goes on with its own only.

`encoders.json` in a run's folder has the fingerprints of the weights that encode its data on the fly.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from rfjax import data
from rfjax.config import Config
from rfjax.encoders import make_codec, make_text_encoder, prompt_encoder
from rfjax.errors import UserError
from rfjax.jsonl import write_json
from rfjax.tensors.fingerprint import DIGITS, fingerprint_of
from rfjax.training.run import Run
from rfjax.untrusted import read_json

NAME = "encoders.json"


def fingerprints(encoder: Any) -> dict[str, str]:
    """Part of an encoder -> the fingerprint of its weights; of an encoder without files, that of its settings.

    Raises:
        UserError: if they can't be read.
    """
    files: Mapping[str, Path] = getattr(encoder, "sources", {})
    if not files:
        return {type(encoder).__name__: hashlib.sha256(repr(encoder).encode()).hexdigest()[:DIGITS]}
    return {part: fingerprint_of(path) for part, path in files.items()}


def check_encodings(config: Config, source: data.Source) -> None:
    """Raises UserError if a data set was encoded by other weights than the config names for pictures or for text."""
    encoding = getattr(source, "encoding", None)
    if encoding is None:
        return
    if config.autoencoder.path:
        encoding.check("autoencoder", fingerprints(make_codec(config)), "autoencoder.path")
    if config.text.path:
        text = replace(config.text, encoder=prompt_encoder(config.text))
        encoding.check("text", fingerprints(make_text_encoder(text)), "text.path")


def admit(run: Run, encoders: Iterable[Any], changed: bool) -> None:
    """Records the weights of a run's encoders, or compares them with the record.

    Args:
        run: whose folder has the record.
        encoders: of the run; those without files are a part of its config.
        changed: whether other data may be gone on with, and so other encoders: the first record stays.

    Raises:
        UserError: if they are others than the run began with.
    """
    found = {one.name: fingerprints(one) for one in encoders if getattr(one, "sources", None)}
    if not found:
        return
    path = run.folder / NAME
    known = read_json(path, fix="remove it, and the weights are recorded anew")
    if known is None:
        if jax.process_index() == 0:
            write_json(path, found)
    elif known != found and not changed:
        other = next(name for name in {**known, **found} if known.get(name) != found.get(name))
        raise UserError(
            f"the weights of the encoder of '{other}' are not those that run {run.name} began with ({path}): bring "
            "them back, or choose another config.workdir"
        )
