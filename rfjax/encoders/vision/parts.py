"""Which tensor of a published encoder fills which region of our weights."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from rfjax.encoders.vision.families import FAMILIES, Description
from rfjax.tensors.stored import Rows

POSITIONS = "positions"


class Part(NamedTuple):
    """One tensor of theirs, or some of its rows, and the region of our weight that it fills.

    Attributes:
        path: of our weight, "blocks/qkv/linear/kernel".
        index: the region of our weight.
        name: their tensor, without the family's prefix.
        shape: of their tensor, without axes of length 1 in front.
        view: the shape that theirs is brought to.
        order: then the order of its axes.
        rows: which of its rows; None for all.
    """

    path: str
    index: tuple[Any, ...]
    name: str
    shape: tuple[int, ...]
    view: tuple[int, ...]
    order: tuple[int, ...]
    rows: Rows | None = None


def parts(what: Description) -> list[Part]:
    """All tensors that an encoder consists of."""
    arch, names = what.arch, FAMILIES[what.family].names
    width, patch = arch.width, arch.patch
    kernel = (width, 3, patch, patch)
    found = [Part("patch/kernel", (), f"{names.patch}.weight", kernel, kernel, (2, 3, 1, 0))]
    if "patch" not in what.without:
        found.append(_same("patch/bias", (), f"{names.patch}.bias", (width,)))
    if arch.cls:
        found.append(_same("prefix", (0,), names.cls, (width,)))
    if arch.registers:
        found.append(_same("prefix", (slice(arch.cls, None),), names.registers, (arch.registers, width)))
    if what.side:
        found.append(_same(POSITIONS, (), names.positions, (what.side**2 + arch.cls, width)))
    for used, path, name in ((arch.pre_norm, "pre_norm", names.pre_norm), (arch.final_norm, "norm", names.norm)):
        found += _norm(path, (), name, width) if used else []
    for number in range(arch.depth):
        found += _block(what, number)
    return found


def _block(what: Description, number: int) -> Iterator[Part]:
    arch, names = what.arch, FAMILIES[what.family].names
    start, at, d, hidden = names.block.format(number), (number,), arch.width, arch.hidden
    head = (arch.heads, d // arch.heads)
    for i, (role, name) in enumerate(zip("qkv", names.qkv, strict=True)):
        tensor, rows, total = _rows(start + name, d)
        index = (number, slice(None), i)
        yield Part("blocks/qkv/linear/kernel", index, f"{tensor}.weight", (total, d), (*head, d), (2, 0, 1), rows)
        if role not in what.without:
            yield Part("blocks/qkv/linear/bias", (number, i), f"{tensor}.bias", (total,), head, (0, 1), rows)
    linears = [("out", names.out, d, d, "out")]
    gate, into, out = names.gated if arch.gated else ("", *names.mlp)
    linears += [("mlp/gate", gate, d, hidden, "mlp")] if gate else []
    linears += [("mlp/fc1", into, d, hidden, "mlp"), ("mlp/fc2", out, hidden, d, "mlp")]
    for path, name, inputs, outputs, role in linears:
        tensor, rows, total = _rows(start + name, outputs)
        shapes = (total, inputs), (outputs, inputs)
        yield Part(f"blocks/{path}/kernel", at, f"{tensor}.weight", *shapes, (1, 0), rows)
        if role not in what.without:
            yield Part(f"blocks/{path}/bias", at, f"{tensor}.bias", (total,), (outputs,), (0,), rows)
    yield from _norm("blocks/norm1", at, start + names.norm1, d)
    yield from _norm("blocks/norm2", at, start + names.norm2, d)
    if arch.layer_scale:
        for path, name in zip(("scale1", "scale2"), names.scales, strict=True):
            yield _same(f"blocks/{path}", at, start + name, (d,))


def _same(path: str, index: tuple[Any, ...], name: str, shape: tuple[int, ...]) -> Part:
    return Part(path, index, name, shape, shape, tuple(range(len(shape))))


def _norm(path: str, index: tuple[Any, ...], name: str, width: int) -> list[Part]:
    return [
        _same(f"{path}/scale", index, f"{name}.weight", (width,)),
        _same(f"{path}/bias", index, f"{name}.bias", (width,)),
    ]


def _rows(name: str, count: int) -> tuple[str, Rows | None, int]:
    """X[1/3] -> X, the rows of its second part, and how many rows it has, where a part has `count`."""
    tensor, _, fraction = name.partition("[")
    if not fraction:
        return tensor, None, count
    i, n = map(int, fraction.rstrip("]").split("/"))
    return tensor, (i * count, (i + 1) * count), n * count
