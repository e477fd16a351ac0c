"""Which tensors of a published text network fill the stacked weights of our blocks."""

from collections.abc import Mapping
from dataclasses import dataclass

from rfjax.tensors.layout import Layout, Piece, linear, same


@dataclass(frozen=True)
class Names:
    """The names of a block's tensors, which end in .weight and .bias.

    Attributes:
        block: beginning of the names; {} is the block's number.
        qkv: queries, keys and values.
        out: behind the attention.
        mlp: our name -> theirs, of the MLP's Linears.
        norms: our name -> theirs.
        bias: whether Linears and norms have one.
    """

    block: str
    qkv: tuple[str, ...]
    out: str
    mlp: Mapping[str, str]
    norms: Mapping[str, str]
    bias: bool = True


def block_layout(
    names: Names, prefix: str, depth: int, width: int, *, heads: tuple[int, int], hidden: int
) -> dict[str, tuple[Piece, ...]]:
    """The weights of all blocks, "blocks/...".

    Args:
        names: of the tensors.
        prefix: before all names.
        depth: number of blocks.
        width: D.
        heads: their number and width.
        hidden: units of the MLP.
    """
    found: dict[str, list[Piece]] = {}
    inner = heads[0] * heads[1]
    for i in range(depth):
        start = prefix + names.block.format(i)
        for j, name in enumerate(names.qkv):
            kernel = linear(f"{start}{name}.weight", width, inner, (i, slice(None), j))
            found.setdefault("qkv/linear/kernel", []).append(kernel)
            if names.bias:
                found.setdefault("qkv/linear/bias", []).append(same(f"{start}{name}.bias", (inner,), (i, j)))
        linears = {"out": (names.out, inner, width)}
        linears |= {f"mlp/{ours}": (theirs, width, hidden) for ours, theirs in names.mlp.items() if ours != "fc2"}
        linears["mlp/fc2"] = (names.mlp["fc2"], hidden, width)
        for ours, (theirs, inputs, outputs) in linears.items():
            found.setdefault(f"{ours}/kernel", []).append(linear(f"{start}{theirs}.weight", inputs, outputs, (i,)))
            if names.bias:
                found.setdefault(f"{ours}/bias", []).append(same(f"{start}{theirs}.bias", (outputs,), (i,)))
        for ours, theirs in names.norms.items():
            found.setdefault(f"{ours}/scale", []).append(same(f"{start}{theirs}.weight", (width,), (i,)))
            if names.bias:
                found.setdefault(f"{ours}/bias", []).append(same(f"{start}{theirs}.bias", (width,), (i,)))
    return {f"blocks/{path}": tuple(pieces) for path, pieces in found.items()}


def norm_layout(path: str, name: str, width: int) -> Layout:
    """A LayerNorm."""
    return {f"{path}/scale": (same(f"{name}.weight", (width,)),), f"{path}/bias": (same(f"{name}.bias", (width,)),)}
