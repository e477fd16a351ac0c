"""Reads the communication of a compiled program from its HLO text: all collectives of a partitioned module.

XLA prints the program of one device (`compiled.as_text()`). The counts are for one execution of the entry computation;
the body of a loop counts once for each iteration.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rfjax.errors import UserError
from rfjax.planning.hlo_groups import Groups, axes_of, read_groups, read_lists

# Bits of an element by HLO's name of the type; f8e4m3fn and other f8 types have 8.
BITS = {
    **{"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "f16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128},
    **{f"{sign}{bits}": bits for sign in "su" for bits in (1, 2, 4, 8, 16, 32, 64)},
}

# The least that a device receives in a group of n, as a multiple of all that is gathered, scattered or reduced
# (Thakur et al. 2005; Rabenseifner 2004 for all-reduce: a reduce-scatter, then an all-gather).
SHARES = {
    **dict.fromkeys(("all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all"), lambda n: (n - 1) / n),
    **dict.fromkeys(("collective-broadcast", "collective-permute"), lambda n: min(n - 1, 1)),
    "all-reduce": lambda n: 2 * (n - 1) / n,
}


@dataclass(frozen=True)
class Collective:
    """One collective instruction of a program.

    Attributes:
        kind: a key of SHARES, such as "all-gather".
        size: bytes of the operands or of the results of one execution on one device, whichever are more.
        groups: the devices that exchange data; for a permutation, pairs (from, to).
        times: number of executions.
        loops: names of the loops around it whose number of iterations the text lacks; they count once.
    """

    kind: str
    size: int
    groups: Groups
    times: int = 1
    loops: tuple[str, ...] = ()

    @property
    def group_size(self) -> int:
        """Devices in a group; a permutation has 2, or 1 if all devices send to themselves."""
        return max((len(set(group)) for group in self.groups), default=1)

    @property
    def received(self) -> float:
        """Least bytes that a device receives in all executions, with the best known algorithms."""
        return received(self.kind, self.size, self.group_size) * self.times


@dataclass(frozen=True)
class Traffic:
    """Number of executions of a kind of collective, and the bytes that a device receives in them."""

    count: int = 0
    bytes: float = 0.0

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.count + other.count, self.bytes + other.bytes)


@dataclass(frozen=True)
class Communication:
    """The collectives of a program.

    Attributes:
        collectives: in the order of the text. Of a conditional, those of the branch with the most traffic.
    """

    collectives: tuple[Collective, ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the loops with collectives that count once, because the text lacks their number of iterations."""
        return tuple(dict.fromkeys(name for one in self.collectives for name in one.loops))

    def by_axes(self, mesh: Mapping[str, int]) -> dict[tuple[str, str], Traffic]:
        """(kind, axes) -> traffic, without groups of one device; axes of the mesh such as "fsdp" or "data+fsdp"."""
        total: dict[tuple[str, str], Traffic] = {}
        for one in self.collectives:
            if one.group_size > 1:
                key = one.kind, "+".join(axes_of(one.groups, mesh)) or "others"
                total[key] = total.get(key, Traffic()) + Traffic(one.times, one.received)
        return total


def received(kind: str, size: int, group: int) -> float:
    """Least bytes that a device receives in one collective.

    Args:
        size: bytes of an all-gather's result, of a reduce-scatter's operand, or of either for the other kinds.
        group: number of devices in a group.
    """
    return SHARES[kind](group) * size if group > 1 else 0.0


def read_communication(text: str) -> Communication:
    """Finds the collectives of a compiled module, and how often each runs.

    Raises:
        UserError: if the text has no entry computation, or a part of it can't be read.
    """
    entry, computations = _computations(text)
    if not entry:
        raise UserError("this is not the text of a compiled HLO module: it has no ENTRY computation")
    partitions = [int(n) for n in re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", text.split("\n", 1)[0])]
    return Communication(tuple(_Reader(computations, math.prod(partitions)).follow(entry)))


@dataclass(frozen=True)
class _Instruction:
    """A line of a computation, parsed: %name = type opcode(operands), rest."""

    name: str
    type: str
    opcode: str
    operands: str
    rest: str

    def names(self, attribute: str) -> list[str]:
        """The names of computations in an attribute, which holds one or a list in braces."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|[^\s,]+)", self.rest)
        return re.findall(r"[^\s,{}%]+", found[1]) if found else []


CALLS = {
    "call": "to_apply",
    "fusion": "calls",
    "async-start": "calls",
}  # opcode -> the attribute that names what it runs
BRANCHES = ("branch_computations", "true_computation", "false_computation")  # attributes of a conditional
_HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s+\(.*->.*\{\s*$")
_LINE = re.compile(r"^\s+(?:ROOT\s+)?%?([\w.\-]+) = ")
_OPCODE = re.compile(r"\s*([\w\-]+)\(")


def _computations(text: str) -> tuple[str, dict[str, list[_Instruction]]]:
    """The name of the entry computation, and name of a computation -> its instructions."""
    entry, found, current = "", {}, None
    for line in text.splitlines():
        if not line.startswith((" ", "\t")):
            head = _HEAD.match(line)
            if head:
                current = found.setdefault(head[2], [])
                entry = head[2] if head[1] else entry
        elif current is not None and (start := _LINE.match(line)):
            current.append(_instruction(start[1], line[start.end() :]))
    return entry, found


def _instruction(name: str, line: str) -> _Instruction:
    end = _closing(line, 0) if line.startswith("(") else line.find(" ")
    opcode = _OPCODE.match(line, end)
    if not opcode:
        raise UserError(f"the HLO instruction %{name} can't be read: {line[:120]}")
    close = _closing(line, opcode.end() - 1)
    return _Instruction(name, line[:end], opcode[1], line[opcode.end() : close - 1], line[close:])


def _closing(line: str, start: int) -> int:
    """The index after the bracket that closes the bracket at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += (line[place] == "(") - (line[place] == ")")
        if depth == 0:
            return place + 1
    return len(line)


def type_bytes(text: str) -> int:
    """Bytes of an HLO type such as "bf16[5,4]{1,0}", or of a tuple; a bounded dimension, "<=8", counts as its bound.

    Raises:
        UserError: if an element type is unknown.
    """
    total = 0
    for dtype, shape in re.findall(r"\b([a-z]\w*)\[([\d,<= ]*)\]", text):
        bits = BITS.get(dtype, 8 if dtype.startswith("f8") else 4 if dtype.startswith("f4") else None)
        if bits is None:
            raise UserError(f"the HLO type '{dtype}' is not known")
        total += -(-bits * math.prod(int(n) for n in re.findall(r"\d+", shape)) // 8)
    return total


@dataclass(frozen=True)
class _Reader:
    """Follows a program from its entry computation.

    Attributes:
        computations: name -> instructions.
        devices: the size of the group that an empty list of groups means.
    """

    computations: Mapping[str, Sequence[_Instruction]]
    devices: int

    def follow(self, name: str, times: int = 1, loops: tuple[str, ...] = ()) -> Iterator[Collective]:
        """The collectives of a computation, including those that it calls.

        Args:
            times: how often it runs.
            loops: names of the loops of unknown length around it, the innermost first.
        """
        for line in self.computations.get(name, ()):
            if line.opcode.removesuffix("-start") in SHARES:
                yield self._collective(line, self.computations[name], times, loops)
            elif line.opcode == "while":
                turns = re.search(r'known_trip_count"?\s*[:=]\s*\{\s*"?n"?\s*[:=]\s*"?(\d+)', line.rest)
                again, around = (times * int(turns[1]), loops) if turns else (times, (line.name, *loops))
                for inner in [*line.names("body"), *line.names("condition")]:
                    yield from self.follow(inner, again, around)
            elif line.opcode == "conditional":
                names = [n for attribute in BRANCHES for n in line.names(attribute)]
                branches = [list(self.follow(name, times, loops)) for name in names]
                yield from max(branches, key=lambda branch: sum(one.received for one in branch))
            elif attribute := CALLS.get(line.opcode):
                for inner in line.names(attribute):
                    yield from self.follow(inner, times, loops)

    def _collective(
        self, line: _Instruction, computation: Sequence[_Instruction], times: int, loops: tuple[str, ...]
    ) -> Collective:
        kind = line.opcode.removesuffix("-start")
        if pairs := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}", line.rest):
            groups = read_lists(pairs[1])
        else:
            groups = read_groups(line.rest.partition("replica_groups=")[2] or "{}", self.devices)
        operand, result = type_bytes(line.operands), type_bytes(line.type)
        if not operand:
            sizes = {one.name: one.type for one in computation}
            named = re.findall(r"%([\w.\-]+)", line.operands) or re.findall(r"([\w.\-]+)\s*(?:,|$)", line.operands)
            operand = sum(type_bytes(sizes[name]) for name in named)
        # The result type of an asynchronous start holds the operands too, and sometimes a context.
        if line.opcode in ("all-gather-start", "collective-permute-start", "collective-broadcast-start"):
            result = operand * (max(map(len, groups)) if kind == "all-gather" else 1)
        return Collective(kind, max(operand, result), groups, times, loops)
