"""Builds layouts layer by layer: `LayoutBuilder` adds Linears and embeddings, `StreamNames` adds a whole block.

`ours` is a path in our parameters, `name` the other project's name of a Linear without ".weight" and ".bias". `index`
is a layer's index in parameters that are stacked over depth, and empty for other parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rfjax.models.blocks import Spec
from rfjax.tensors.layout import Index, Layout, Piece, conv, linear, same


class LayoutBuilder:
    """Collects the pieces of a layout."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Piece]] = {}

    def layout(self) -> Layout:
        """The layout of all pieces so far."""
        return {path: tuple(pieces) for path, pieces in self._pieces.items()}

    def add(self, ours: str, piece: Piece) -> None:
        """Adds one piece of a parameter."""
        self._pieces.setdefault(ours, []).append(piece)

    def dense(
        self, ours: str, name: str, inputs: int, outputs: int, index: Index = (), *, copies: Sequence[str] = ()
    ) -> None:
        """Adds a Linear with bias."""
        weights, biases = (tuple(f"{copy}.{kind}" for copy in copies) for kind in ("weight", "bias"))
        self.add(f"{ours}/kernel", linear(f"{name}.weight", inputs, outputs, index, copies=weights))
        self.add(f"{ours}/bias", same(f"{name}.bias", (outputs,), index, copies=biases))

    def heads(self, ours: str, names: Sequence[str], spec: Spec, index: Index) -> None:
        """Adds the Linear to queries, keys and values, whose kernel is (D, 3, H, K); theirs is one matrix or three."""
        each = 3 * spec.width // len(names)
        for i, name in enumerate(names):
            part: Index = () if len(names) == 1 else (i,)
            self.add(f"{ours}/kernel", linear(f"{name}.weight", spec.width, each, (*index, slice(None), *part)))
            self.add(f"{ours}/bias", same(f"{name}.bias", (each,), (*index, *part)))

    def swapped(self, ours: str, name: str, inputs: int, outputs: int, index: Index = ()) -> None:
        """Adds a Linear with bias whose two halves of outputs have the opposite order in theirs."""
        half = outputs // 2
        for first in (0, half):
            rows, part = (half - first, outputs - first), slice(first, first + half)
            kernel = linear(f"{name}.weight", inputs, half, (*index, slice(None), part), rows=rows, total_rows=outputs)
            self.add(f"{ours}/kernel", kernel)
            self.add(f"{ours}/bias", same(f"{name}.bias", (half,), (*index, part), rows=rows, total_rows=outputs))

    def patches(self, ours: str, name: str, patch: int, channels: int, width: int) -> None:
        """Adds the patch embedding: our Linear on patches flattened as (row, column, channel), their convolution."""
        self.add(f"{ours}/kernel", conv(f"{name}.weight", (patch, patch), channels, width))
        self.add(f"{ours}/bias", same(f"{name}.bias", (width,)))

    def table(self, ours: str, name: str, rows: int, width: int) -> None:
        """Adds the table of positions: ours is (rows, width), theirs (1, rows, width)."""
        self.add(ours, Piece(name, (), (1, rows, width), (0, 1, 2)))


@dataclass(frozen=True)
class AttentionNames:
    """Another project's names of an attention's Linears and norms; `qkv` is one name or three."""

    qkv: tuple[str, ...]
    out: str
    q_norm: str = ""
    k_norm: str = ""

    def add(
        self, builder: LayoutBuilder, ours: tuple[str, str], block: str, spec: Spec, index: Index, *, out: bool = True
    ) -> None:
        """Adds an attention; `out`: whether it has an output projection."""
        qkv, projection = ours
        builder.heads(f"{qkv}/linear", [f"{block}.{name}" for name in self.qkv], spec, index)
        if spec.qk_norm:
            for norm, name in (("q_norm", self.q_norm), ("k_norm", self.k_norm)):
                head = spec.width // spec.heads
                builder.add(f"{qkv}/{norm}/scale", same(f"{block}.{name}.weight", (head,), index))
        if out:
            builder.dense(projection, f"{block}.{self.out}", spec.width, spec.width, index)


@dataclass(frozen=True)
class StreamNames:
    """Another project's names of the parts of a `blocks.Stream`, below the name of the block."""

    modulation: str
    attention: AttentionNames
    mlp: tuple[str, str]
    dual: AttentionNames | None = None

    def add(
        self, builder: LayoutBuilder, ours: str, block: str, spec: Spec, index: Index, *, dual: bool = False
    ) -> None:
        """Adds a stream with modulation, attention and MLP."""
        width, hidden = spec.width, spec.mlp_ratio * spec.width
        builder.dense(
            f"{ours}/modulation/linear", f"{block}.{self.modulation}", width, (9 if dual else 6) * width, index
        )
        self.attention.add(builder, (f"{ours}/qkv", f"{ours}/out"), block, spec, index)
        builder.dense(f"{ours}/mlp/fc1", f"{block}.{self.mlp[0]}", width, hidden, index)
        builder.dense(f"{ours}/mlp/fc2", f"{block}.{self.mlp[1]}", hidden, width, index)
        if dual and self.dual:
            self.dual.add(builder, (f"{ours}/dual_qkv", f"{ours}/dual_out"), block, spec, index)

    def add_pre_only(
        self, builder: LayoutBuilder, ours: str, block: str, spec: Spec, index: Index, *, swapped: bool = False
    ) -> None:
        """Adds a stream that has only modulation, q, k and v. `swapped`: theirs has the scale before the shift."""
        modulation = builder.swapped if swapped else builder.dense
        modulation(f"{ours}/modulation/linear", f"{block}.{self.modulation}", spec.width, 2 * spec.width, index)
        self.attention.add(builder, (f"{ours}/qkv", f"{ours}/out"), block, spec, index, out=False)
