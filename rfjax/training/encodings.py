"""Stored encodings, and the encoders that a config names: training refuses encodings of other weights."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rfjax import data
from rfjax.config import Config
from rfjax.encoders import make_codec, make_text_encoder, prompt_encoder
from rfjax.tensors.fingerprint import DIGITS, fingerprint_of


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
