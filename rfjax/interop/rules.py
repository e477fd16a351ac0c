"""Layouts by the layer: `Rules` collects the pieces of Linears and embeddings, `StreamNames` those of a block.

What other projects call a Linear is a name without ".weight" and ".bias". `place` is a layer's index in parameters that
are stacked over depth, and empty elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rfjax.interop.layout import Index, Layout, Piece, conv, linear, same
from rfjax.models.blocks import Spec


class Rules:
    """A layout in the making."""

    def __init__(self) -> None:
        self._pieces: dict[str, list[Piece]] = {}

    def layout(self) -> Layout:
        """All pieces so far."""
        return {path: tuple(pieces) for path, pieces in self._pieces.items()}

    def add(self, ours: str, piece: Piece) -> None:
        """One piece of a parameter of ours."""
        self._pieces.setdefault(ours, []).append(piece)

    def dense(
        self, ours: str, name: str, inputs: int, outputs: int, place: Index = (), *, copies: Sequence[str] = ()
    ) -> None:
        """A Linear with bias."""
        weights, biases = (tuple(f"{copy}.{kind}" for copy in copies) for kind in ("weight", "bias"))
        self.add(f"{ours}/kernel", linear(f"{name}.weight", inputs, outputs, place, copies=weights))
        self.add(f"{ours}/bias", same(f"{name}.bias", (outputs,), place, copies=biases))

    def heads(self, ours: str, names: Sequence[str], spec: Spec, place: Index) -> None:
        """The Linear to queries, keys and values, (D, 3, H, K) in ours: one matrix of theirs, or three."""
        each = 3 * spec.width // len(names)
        for i, name in enumerate(names):
            part: Index = () if len(names) == 1 else (i,)
            self.add(f"{ours}/kernel", linear(f"{name}.weight", spec.width, each, (*place, slice(None), *part)))
            self.add(f"{ours}/bias", same(f"{name}.bias", (each,), (*place, *part)))

    def swapped(self, ours: str, name: str, inputs: int, outputs: int, place: Index = ()) -> None:
        """A Linear with bias whose two halves of outputs come the other way round in theirs."""
        half = outputs // 2
        for first in (0, half):
            rows, part = (half - first, outputs - first), slice(first, first + half)
            kernel = linear(f"{name}.weight", inputs, half, (*place, slice(None), part), rows=rows, total_rows=outputs)
            self.add(f"{ours}/kernel", kernel)
            self.add(f"{ours}/bias", same(f"{name}.bias", (half,), (*place, part), rows=rows, total_rows=outputs))

    def patches(self, ours: str, name: str, patch: int, channels: int, width: int) -> None:
        """The patch embedding: our Linear on patches flattened as (row, column, channel), their convolution."""
        self.add(f"{ours}/kernel", conv(f"{name}.weight", (patch, patch), channels, width))
        self.add(f"{ours}/bias", same(f"{name}.bias", (width,)))

    def table(self, ours: str, name: str, rows: int, width: int) -> None:
        """Positions: our table (rows, width), theirs with an axis of one before."""
        self.add(ours, Piece(name, (), (1, rows, width), (0, 1, 2)))


@dataclass(frozen=True)
class AttentionNames:
    """An attention's Linears and norms: one name for q, k and v together, or three."""

    qkv: tuple[str, ...]
    out: str
    q_norm: str = ""
    k_norm: str = ""

    def add(
        self, rules: Rules, ours: tuple[str, str], block: str, spec: Spec, place: Index, *, out: bool = True
    ) -> None:
        """Adds it under our names of its QKV and its output projection; `out`: whether it has the latter."""
        qkv, projection = ours
        rules.heads(f"{qkv}/linear", [f"{block}.{name}" for name in self.qkv], spec, place)
        if spec.qk_norm:
            for norm, name in (("q_norm", self.q_norm), ("k_norm", self.k_norm)):
                head = spec.width // spec.heads
                rules.add(f"{qkv}/{norm}/scale", same(f"{block}.{name}.weight", (head,), place))
        if out:
            rules.dense(projection, f"{block}.{self.out}", spec.width, spec.width, place)


@dataclass(frozen=True)
class StreamNames:
    """What another project calls the parts of one of our `blocks.Stream`, below the name of the block."""

    modulation: str
    attention: AttentionNames
    mlp: tuple[str, str]
    dual: AttentionNames | None = None

    def add(self, rules: Rules, ours: str, block: str, spec: Spec, place: Index, *, dual: bool = False) -> None:
        """Adds a whole stream."""
        width, hidden = spec.width, spec.mlp_ratio * spec.width
        rules.dense(f"{ours}/modulation/linear", f"{block}.{self.modulation}", width, (9 if dual else 6) * width, place)
        self.attention.add(rules, (f"{ours}/qkv", f"{ours}/out"), block, spec, place)
        rules.dense(f"{ours}/mlp/fc1", f"{block}.{self.mlp[0]}", width, hidden, place)
        rules.dense(f"{ours}/mlp/fc2", f"{block}.{self.mlp[1]}", hidden, width, place)
        if dual and self.dual:
            self.dual.add(rules, (f"{ours}/dual_qkv", f"{ours}/dual_out"), block, spec, place)

    def add_pre_only(
        self, rules: Rules, ours: str, block: str, spec: Spec, place: Index, *, swapped: bool = False
    ) -> None:
        """Adds a stream of modulation, q, k and v alone. `swapped`: theirs has the scale before the shift."""
        modulation = rules.swapped if swapped else rules.dense
        modulation(f"{ours}/modulation/linear", f"{block}.{self.modulation}", spec.width, 2 * spec.width, place)
        self.attention.add(rules, (f"{ours}/qkv", f"{ours}/out"), block, spec, place, out=False)
