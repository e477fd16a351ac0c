"""Stable Diffusion 3's text encoder: CLIP L, CLIP G and T5 of a diffusers pipeline, joined as in SD3 section 4.

The pooled vector is CLIP L's, then CLIP G's, both projected. The first 77 text tokens are the penultimate states of
CLIP L and CLIP G side by side, filled up with zeros to T5's width; T5's tokens follow. Nothing is masked: the networks
and the transformer see the padding. An encoder that does not run is zeros.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rfjax import config as configs
from rfjax.conditioning import Group
from rfjax.config.paths import expanded
from rfjax.encoders.language.encoder import LanguageEncoder, Part, States
from rfjax.encoders.language.tokens import Tokenizer
from rfjax.encoders.language.tower import CONFIG, Tower, open_tower
from rfjax.errors import UserError

CLIP_TOKENS = 77
FOLDERS = {  # of the networks and of their tokenizers
    "clip_l": ("text_encoder", "tokenizer"),
    "clip_g": ("text_encoder_2", "tokenizer_2"),
    "t5": ("text_encoder_3", "tokenizer_3"),
}
CLIP_WIDTHS = {"clip_l": 768, "clip_g": 1280}  # of SD3, for a tower that neither runs nor lies in the folder


@dataclass(frozen=True)
class SD3Text(LanguageEncoder):
    """CLIP L, CLIP G and T5.

    Attributes:
        hidden: width of the tokens of CLIP L and of CLIP G.
        pooled: width of their pooled vectors.
    """

    hidden: tuple[int, int] = (768, 1280)
    pooled: tuple[int, int] = (768, 1280)

    @property
    def groups(self) -> tuple[Group, ...]:
        """What each network has of the tokens and of the pooled vector."""
        clip, t5, nothing = (0, CLIP_TOKENS), (CLIP_TOKENS, None), (0, 0)
        (left, right), (own, other) = self.hidden, self.pooled
        return (
            Group(clip, (0, left), (0, own)),
            Group(clip, (left, left + right), (own, own + other)),
            Group(t5, (0, None), nothing),
        )

    @property
    def kinds(self) -> tuple[int, ...]:
        """CLIP's tokens and T5's."""
        return (CLIP_TOKENS, self.length - CLIP_TOKENS)

    def weights(self) -> dict[str, Any]:
        """The weights; warns if CLIP L's projection is not the identity that SD3 was trained with."""
        found = super().weights()
        if "clip_l" in found:
            projection = found["clip_l"]["projection"]
            values = projection if isinstance(projection, np.ndarray) else projection.read()
            if values.shape[0] != values.shape[1] or not np.array_equal(values, np.eye(len(values))):
                logging.getLogger(__name__).warning(
                    "%s has a text_projection that is not the identity, as Stable Diffusion 3's is: it seems to be "
                    "another CLIP L",
                    self.sources["clip_l"],
                )
        return found

    def states(self, weights: Any, tokens: Mapping[str, Array]) -> States:
        """Runs the networks."""
        rows = len(tokens[self.parts[0].ids])
        made = {part.name: part.tower(weights[part.name], tokens[part.ids]) for part in self.parts}
        blank = lambda *shape: jnp.zeros((rows, *shape), jnp.float32)  # noqa: E731
        clips, vectors = [], []
        for name, width, projected in zip(CLIP_WIDTHS, self.hidden, self.pooled, strict=True):
            clips.append(made[name].penultimate if name in made else blank(CLIP_TOKENS, width))
            vectors.append(made[name].pooled if name in made else blank(projected))
        clips.append(blank(CLIP_TOKENS, self.width - sum(self.hidden)))
        t5 = made["t5"] if "t5" in made else blank(self.length - CLIP_TOKENS, self.width)
        context = jnp.concatenate([jnp.concatenate(clips, axis=-1), t5], axis=1)
        return context, jnp.concatenate(vectors, axis=-1)


def make(config: configs.Text) -> SD3Text:
    """The encoder of the pipeline's folder that the config names.

    Raises:
        UserError: if a folder or a tokenizer is missing, or its widths are not those of the config.
    """
    folder = expanded(config.path, "config.text.path")
    if not folder.is_dir():
        raise UserError(f"config.text.path = '{config.path}' is no folder: name a local diffusers pipeline")
    parts = []
    for name, (network, tokenizer) in FOLDERS.items():
        if name in config.parts:
            length = config.length - CLIP_TOKENS if name == "t5" else CLIP_TOKENS
            tokens = Tokenizer(str(folder / tokenizer), name, length)
            tower = open_tower(folder / network, "t5" if name == "t5" else "clip", config.precision)
            _check_positions(tower)
            tokens.check()
            parts.append(Part(name, tower, tokens))
    towers = {part.name: part.tower for part in parts}
    sizes = [_clip_sizes(folder, name, towers) for name in CLIP_WIDTHS]
    hidden, pooled = tuple(size[0] for size in sizes), tuple(size[1] for size in sizes)
    width = _width(config, folder, towers)
    if sum(hidden) > width:
        raise UserError(f"{folder} has CLIP towers of the widths {hidden[0]} and {hidden[1]}, more than T5's {width}")
    for key, value in (("width", width), ("pooled_width", sum(pooled))):
        given = getattr(config, key)
        if given not in (0, value):
            raise UserError(
                f"config.text.{key} = {given}, and the text encoders in {folder} make {value}: set it to {value}, or "
                "to 0 to take what they have"
            )
    return SD3Text(config.length, width, sum(pooled), tuple(parts), config.null, hidden=hidden, pooled=pooled)


def _check_positions(tower: Tower) -> None:
    if tower.kind == "clip" and tower.arch.positions < CLIP_TOKENS:
        raise UserError(
            f"{tower.path} has {tower.arch.positions} positions, and Stable Diffusion 3 reads {CLIP_TOKENS}"
        )


def _clip_sizes(folder: Path, name: str, towers: Mapping[str, Tower]) -> tuple[int, int]:
    """Widths of a tower's tokens and pooled vector, by its config.json, or as in SD3."""
    network = folder / FOLDERS[name][0]
    if name not in towers and not (network / CONFIG).is_file():
        return CLIP_WIDTHS[name], CLIP_WIDTHS[name]
    arch = (towers.get(name) or open_tower(network, "clip")).arch
    return arch.width, arch.projected


def _width(config: configs.Text, folder: Path, towers: Mapping[str, Tower]) -> int:
    """Width of a text token: T5's, or without it the config's."""
    if "t5" in towers:
        return towers["t5"].arch.width
    if not config.width and (folder / FOLDERS["t5"][0] / CONFIG).is_file():
        return open_tower(folder / FOLDERS["t5"][0], "t5").arch.width
    if not config.width:
        raise UserError(f"config.text.width = 0 needs T5's config.json in {folder}: set it, to 4096 for SD3")
    return config.width
