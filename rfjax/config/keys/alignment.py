"""The section `alignment`: which frozen encoders the network's hidden states are aligned with (REPA)."""

import dataclasses

from rfjax.config.rules import MOST_STEPS, key


@dataclasses.dataclass(frozen=True)
class Alignment:
    """Aligns hidden states of the network with the features of frozen encoders (REPA). It is off by default."""

    encoders: tuple[str, ...] = key(
        (),
        "Lists the frozen encoders of the clean picture, each written NAME, NAME@ARGUMENT or MODULE:NAME@ARGUMENT. "
        "`shapes` has exact features of the data set `shapes`, `trained` trains a small encoder in place, `stored` "
        "reads features that the data set holds, `vision@FOLDER` reads a pretrained Vision Transformer. Empty "
        "switches alignment off.",
    )
    weight: float = key(
        0.5,
        "Sets the weight of the alignment loss beside the denoising loss, lambda in REPA. 0 switches alignment off, "
        "and then no encoder runs.",
        low=0,
        high=1000,
    )
    block: int = key(
        0,
        "Sets the number of the block, counted from 1, whose output is aligned. 0 takes a third of the depth, rounded, "
        "as REPA does for B and L (4 of 12, 8 of 24); its XL aligns block 8 of 28.",
        low=0,
        high=1000,
    )
    loss: str = key(
        "cosine",
        "Chooses the alignment loss: `cosine` is the negative cosine similarity of each token, `nt-xent` the "
        "contrastive loss of each token against all tokens of its picture.",
        choices=("cosine", "nt-xent"),
    )
    temperature: float = key(
        0.1, "Divides the similarities in `nt-xent`. The paper does not state its value.", low=1e-3, high=100
    )
    until: int = key(
        0,
        "Stops the alignment after this number of steps (HASTE); the encoders do not run after it. 0 aligns to the "
        "end.",
        low=0,
        high=MOST_STEPS,
    )
    projector: str = key(
        "mlp",
        "Chooses the network from hidden tokens to features: `mlp` is REPA's of three layers, `conv` iREPA's 3 x 3 "
        "convolution.",
        choices=("mlp", "conv"),
    )
    projector_width: int = key(2048, "Sets the hidden width, in channels, of the projector `mlp`.", low=1, high=65_536)
    normalize: str = key(
        "none",
        "Chooses what is done to the features first: `spatial` subtracts mean_removed times their mean over the "
        "tokens of the picture and divides by their standard deviation (iREPA).",
        choices=("none", "spatial"),
    )
    mean_removed: float = key(
        1.0, "Sets the share of the mean over the tokens that `spatial` subtracts from the features.", low=0, high=1
    )
    tokens: str = key(
        "refuse",
        "Chooses what happens if the encoder has another grid of tokens than the network: `refuse` stops before "
        "training, `resample` interpolates the features linearly.",
        choices=("refuse", "resample"),
    )

    @property
    def active(self) -> bool:
        """Whether there is anything to align with."""
        return bool(self.encoders) and self.weight > 0
