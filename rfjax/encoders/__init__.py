"""What stands between a data set's arrays and the network: codecs, text encoders, frozen feature networks.

An encoder works in two halves. `prepare` runs in the threads that load data, on numpy arrays of one process's rows: it
decodes, tokenises, looks up. `encode` runs on the mesh, in one jitted program between loading and the training step,
with weights that are placed once and never trained.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array

from rfjax import config as configs
from rfjax import lookup
from rfjax.encoders.codec import Codec as Codec
from rfjax.encoders.text import TextEncoder as TextEncoder
from rfjax.errors import UserError

TEXT = {
    "words": "rfjax.encoders.text:make_words",
    "stored": "rfjax.encoders.text:make_stored",
    "labels": "rfjax.encoders.text:make_labels",
    "sd3": "rfjax.encoders.language.sd3:make",
    "sentence": "rfjax.encoders.language.sentence:make",
}
CODECS = {
    "pixels": "rfjax.encoders.codec:make_pixels",
    "latents": "rfjax.encoders.codec:make_latents",
    "moments": "rfjax.encoders.codec:make_moments",
}
AUTOENCODER = "rfjax.encoders.autoencoder:make"


@runtime_checkable
class Encoder(Protocol):
    """A frozen encoder: hashable, a part of the compiled programs' keys.

    Attributes:
        name: of its output in the batch: "z" of the codec, "cond" of the text encoder; others choose their own.
        reads: names of the data set's arrays that it uses, where the data set has them.
    """

    name: str

    @property
    def reads(self) -> tuple[str, ...]: ...

    def weights(self) -> Any:
        """The frozen weights, read from their files: a pytree, () where there are none."""
        ...

    def prepare(self, arrays: Mapping[str, np.ndarray], captions: Sequence[str]) -> dict[str, np.ndarray]:
        """What goes to the devices, of b examples: named arrays with b rows.

        Raises:
            UserError: if the data set lacks what the encoder needs.
        """
        ...

    def encode(self, weights: Any, batch: Mapping[str, Array], keys: Array) -> Any:
        """The output: an array or a pytree with B rows.

        Args:
            weights: as from `weights`.
            batch: what all encoders have prepared.
            keys: a random key for each example, (B,).
        """
        ...


def make_text_encoder(config: configs.Text) -> TextEncoder:
    """The text encoder that the config names."""
    return lookup.find(config.encoder, TEXT, "text.encoder")(config)


def prompt_encoder(config: configs.Text) -> str:
    """The name of the encoder of new texts; for stored encodings, of the kind that makes such ones."""
    return config.encoder if config.encoder != "stored" else "sd3" if config.layout == "sd3" else "sentence"


def make_codec(config: configs.Config) -> Codec:
    """The codec that the config names; "": the source's own, else of pictures for 1 or 3 channels, or of latents.

    With `config.autoencoder.path` it is the one of the autoencoder for such data.

    Raises:
        UserError: if there is none of this name, or the autoencoder is not for these data.
    """
    name = configs.codec_name(config.data)
    own = lookup.find(name, CODECS, "data.codec")
    if not config.autoencoder.path:
        return own(config)
    if name not in CODECS:
        raise UserError(
            f"config.autoencoder.path and config.data.codec = '{name}' both say how samples are decoded: leave one "
            "of them empty"
        )
    return lookup.find(AUTOENCODER, {}, "data.codec")(config, name)


def make_encoders(config: configs.Config) -> tuple[Encoder, ...]:
    """The codec, the text encoder, and what `config.encoders` adds, in this order."""
    others = tuple(lookup.find(name, {}, "encoders")(config) for name in config.encoders)
    return (make_codec(config), make_text_encoder(config.text), *others)
