"""A `Layout` says which tensor of another project's checkpoint fills which region of our parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rfjax.tensors.stored import Rows

Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class Piece:
    """One tensor of theirs, or some of its rows, and the region of one of our parameters that it fills.

    Attributes:
        name: their tensor.
        index: the region of our leaf by numpy's basic indexing, such as (3, slice(None), slice(0, 64)).
        view: the shape that our region is reshaped to, without a copy, because transfer.py writes through it.
        order: the permutation of the view's axes that gives their tensor, or its rows.
        rows: the range [start, stop) of their first axis, if several pieces share one tensor.
        total_rows: length of their first axis, if several pieces share one tensor.
        copies: other tensors of theirs that hold the same values.
    """

    name: str
    index: Index
    view: tuple[int, ...]
    order: tuple[int, ...]
    rows: Rows | None = None
    total_rows: int | None = None
    copies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.view))):
            raise ValueError(f"{self.name}: {self.order} does not permute the axes of {self.view}")
        if (self.rows is None) != (self.total_rows is None):
            raise ValueError(f"{self.name}: rows and total_rows come together")
        if self.rows and not 0 <= self.rows[0] <= self.rows[1] == self.rows[0] + self.part[0] <= self.total_rows:
            raise ValueError(f"{self.name}: rows {self.rows} of {self.total_rows} do not hold {self.part[0]} rows")

    @property
    def part(self) -> tuple[int, ...]:
        """The shape of this piece's part of their tensor."""
        return tuple(self.view[axis] for axis in self.order)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of their whole tensor."""
        return self.part if self.total_rows is None else (self.total_rows, *self.part[1:])


Layout = Mapping[str, tuple[Piece, ...]]  # our leaf's path, "blocks/image/qkv/linear/kernel" -> the pieces that fill it


def same(name: str, shape: tuple[int, ...], index: Index = (), **others: Any) -> Piece:
    """A tensor that has the same shape and order in both; `others` are attributes of `Piece`."""
    return Piece(name, index, shape, tuple(range(len(shape))), **others)


def linear(name: str, inputs: int, outputs: int, index: Index = (), **others: Any) -> Piece:
    """A matrix: ours (inputs, outputs), theirs (outputs, inputs); `others` are attributes of `Piece`."""
    return Piece(name, index, (inputs, outputs), (1, 0), **others)


def conv(name: str, size: tuple[int, int], inputs: int, outputs: int) -> Piece:
    """A kernel of `size` (height, width): ours (height, width, inputs, outputs), or those axes but the last flattened;
    theirs (outputs, inputs, height, width)."""
    return Piece(name, (), (*size, inputs, outputs), (3, 2, 0, 1))


def manifest(layout: Layout) -> dict[str, tuple[int, ...]]:
    """All tensors of theirs, copies included, with their full shapes in the layout's order.

    Raises:
        ValueError: if the layout is wrong: its pieces disagree about a shape, or leave out or repeat rows.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    taken: dict[str, list[Rows]] = {}
    for piece in (piece for pieces in layout.values() for piece in pieces):
        for name in (piece.name, *piece.copies):
            if shapes.setdefault(name, piece.shape) != piece.shape:
                raise ValueError(f"{name} has two shapes: {shapes[name]} and {piece.shape}")
            taken.setdefault(name, []).append(piece.rows or (0, math.prod(piece.shape[:1])))
    for name, rows in taken.items():
        ordered = sorted(rows)
        ends = [0, *(stop for _, stop in ordered)]
        if [start for start, _ in ordered] != ends[:-1] or ends[-1] != math.prod(shapes[name][:1]):
            raise ValueError(f"{name}: its pieces hold the rows {ordered} of {math.prod(shapes[name][:1])}")
    return shapes
