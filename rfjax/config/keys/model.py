"""The sections `flow` and `model`: what the network learns, and which network it is."""

import dataclasses

from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Flow:
    """Chooses the formulation: the path, the network's prediction and the density of t."""

    formulation: str = key(
        "rf/lognorm(0.00,1.00)",
        "Names the formulation as SD3's tables do: the path and the prediction, then the density of t with its "
        "parameters.",
    )
    shift: float = key(
        1.0,
        "Shifts the training density of t towards noise by SD3's Eq. 23. 1 leaves it unchanged; larger values suit "
        "higher resolutions.",
        low=1e-3,
        high=1e3,
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """Chooses the backbone, its size, and how it is computed."""

    backbone: str = key(
        "mmdit",
        "Chooses the architecture. `mmdit3` is `mmdit` with separate weights for each of two text encoders.",
        choices=("mmdit", "mmdit3", "dit", "sit", "crossdit", "uvit"),
        paths=True,
    )
    depth: int = key(
        4,
        "Sets the number d of transformer blocks. By the depth rule it also sets the width and the number of "
        "attention heads.",
        low=1,
        high=1000,
    )
    width_per_depth: int = key(
        64,
        "Sets the width per unit of depth: the depth rule makes the width this number times d. SD3 uses 64.",
        low=4,
        high=4096,
    )
    width: int = key(0, "Sets the width directly, in channels. 0 follows the depth rule.", low=0, high=131_072)
    heads: int = key(0, "Sets the number of attention heads. 0 takes as many heads as blocks.", low=0, high=4096)
    head_width: int = key(
        0,
        "Sets the width of an attention head, in channels, in place of the number of heads, which is then the width "
        "over it: a sweep over widths with a parameterisation needs that. 0 follows heads.",
        low=0,
        high=1024,
    )
    patch: int = key(
        2,
        "Sets the side of a patch, the image area of one token, in pixels. Doubling it divides the number of image "
        "tokens by four.",
        low=1,
        high=1024,
    )
    mlp_ratio: int = key(4, "Sets the hidden width of each block's MLP as a multiple of the width.", low=1, high=64)
    qk_norm: bool = key(
        False,
        "Normalises queries and keys by RMSNorm, which keeps attention logits bounded (SD3 5.3.2).",
    )
    remat: str = key(
        "none",
        "Sets what the backward pass recomputes to save memory: `none` keeps all activations, `dots` recomputes all "
        "but matrix products, `linears` all but the outputs of Linear layers, `full` each whole block (a third more "
        "computation).",
        choices=("none", "dots", "linears", "full"),
    )
    unroll: int = key(
        -1,
        "Sets the number of blocks per iteration of the scan over depth. 0 unrolls all blocks, which runs faster on a "
        "CPU and compiles more slowly; -1 does so for up to 12 blocks in a long CPU run and takes 1 otherwise.",
        low=-1,
        high=1000,
    )
    precision: str = key(
        "float32",
        "Sets the number format of matrix products. `bfloat16` is faster on accelerators; parameters, norms, softmax "
        "and losses stay in float32.",
        choices=("float32", "bfloat16"),
    )
    attention: str = key(
        "",
        "Chooses the implementation of attention. Empty lets JAX choose; `cudnn` needs an NVIDIA GPU and bfloat16.",
        choices=("", "xla", "cudnn"),
    )
    dual_blocks: int = key(
        0,
        "Sets how many of the first blocks of `mmdit` have a second attention of the image to itself. SD3.5 medium "
        "has 13.",
        low=0,
        high=1000,
    )
    learn_sigma: bool = key(
        False,
        "Doubles the output channels of `dit` and `sit` and ignores the second half, as checkpoints that also predict "
        "a variance require.",
    )
    modulation: str = key(
        "adaln",
        "Sets how the network learns of time and pooled text. `adaln` modulates the norms and gates the branches; with "
        "`token` they are one more token of text and norms have weights of their own; `none` is the same without the "
        "time, which the network is not told, as in i1.",
        choices=("adaln", "token", "none"),
    )
    largest_image: int = key(
        0,
        "Sets the longest image side, in the network's pixels (latent pixels with an autoencoder), for which positions "
        "exist (SD3 5.3.2). 0 takes that of the training images.",
        low=0,
        high=65_536,
    )
    base_image: int = key(
        0,
        "Sets the image side, in the network's pixels, at which neighbouring patches lie 1 apart (SD3: 256 pixels, "
        "which are 32 latent pixels). 0 takes that of the training images.",
        low=0,
        high=65_536,
    )
    stored_positions: int = key(
        0,
        "Sets the side, in patches, of the table of positions that an imported checkpoint brings. 0 computes "
        "positions by the formula.",
        low=0,
        high=16_384,
    )
    time: str = key(
        "",
        "Sets how the network receives the time t. Empty is `t` for `sit` and `1000t` for the others; `1000t-1` is "
        "the convention of DiT's checkpoints, `1-t` that of SiT's.",
        choices=("", "1000t", "1000t-1", "t", "1-t"),
    )
    frequency_shift: int = key(
        0,
        "Sets the frequency shift of the sinusoidal embedding of time. diffusers' DiT uses 1, the original code 0.",
        low=0,
        high=1,
    )
    projectors: tuple[int, ...] = key(
        (),
        "Lists the output width, in channels, of each REPA projector that an imported checkpoint holds. Empty means "
        "no projectors.",
        low=1,
        high=65_536,
    )
    projector_width: int = key(2048, "Sets the hidden width, in channels, of the REPA projectors.", low=1, high=65_536)
    projector_block: int = key(
        8,
        "Sets the number of the block, counted from 1, whose image tokens the REPA projectors read. A network with "
        "fewer blocks takes its last.",
        low=1,
        high=1000,
    )
    frame_patch: int = key(1, "Sets the number of frames of a video that one token covers.", low=1, high=1024)
    adapter: str = key(
        "",
        "Names an adapter as MODULE:NAME. Its factors are trained and the network's own weights are frozen. Empty "
        "trains the weights.",
        choices=("",),
        paths=True,
    )
    parameterisation: str = key(
        "standard",
        "Chooses how initial weights and learning rates go with width and depth: `mup` for width, `completep` for "
        "width and depth, so that the best learning rate of a small network serves a large one. `standard` scales "
        "nothing. See docs/parameterisation.md.",
        choices=("standard", "mup", "completep"),
        paths=True,
    )
    base_width: int = key(
        0,
        "Sets the width, in channels, at which a parameterisation scales nothing. 0 takes width_per_depth times "
        "the base depth.",
        low=4,
        high=131_072,
        also=0,
    )
    base_depth: int = key(
        0,
        "Sets the depth at which a parameterisation scales nothing. 0 takes 1, so that the learning rate is that of "
        "depth 1.",
        low=1,
        high=1000,
        also=0,
    )

    @property
    def chosen_width(self) -> int:
        """The width, by the depth rule where it is not set."""
        return self.width or self.width_per_depth * self.depth

    @property
    def chosen_heads(self) -> int:
        """The number of attention heads; 0: the width has no room for one."""
        return self.heads or (self.chosen_width // self.head_width if self.head_width else self.depth)
