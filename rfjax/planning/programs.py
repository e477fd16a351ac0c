"""What a traced training step does on one device: counted from its jaxpr, so for any compiler and without one.

Inside of `jax.shard_map` every array has the size that one device sees, and every collective is written out.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from rfjax.models.counting import equation_flops, inner_jaxprs, jaxpr_flops
from rfjax.planning.hlo import Traffic, received

# Primitives of the collectives in a jaxpr, by the names that HLO has for them.
COLLECTIVES = {
    "psum": "all-reduce",
    "psum_invariant": "all-reduce",
    "pmax": "all-reduce",
    "pmin": "all-reduce",
    "all_gather": "all-gather",
    "all_gather_invariant": "all-gather",
    "all_gather_reduced": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "unreduced_psum": "all-reduce",
    "unreduced_reduce_scatter": "reduce-scatter",
    "all_to_all": "all-to-all",
    "ppermute": "collective-permute",
}

# They make no array of their own: a compiler reads their operand in another order.
VIEWS = {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "pvary", "name", "optimization_barrier"}

LOOPS = ("scan", "while")
BACKWARD, AGAIN = "transpose(", "rematted_computation"  # in the names that JAX gives to what differentiation made


@dataclass(frozen=True)
class Program:
    """One step on one device.

    Attributes:
        flops: of matrix products and convolutions. again: of those, what the backward pass computes again.
        traffic: (kind, mesh axes such as "data+fsdp") -> its executions, and the bytes that a device must receive.
        kept: bytes that the forward pass leaves for the backward pass, besides the step's arguments.
        most: bytes of the arrays that exist at one time, at most, besides the step's arguments, if no compiler joined
            any two operations. Compilers need less of them for operations, and more for their own copies.
        manual: whether gradients are computed inside of `jax.shard_map`; otherwise kept and most can't be known.
    """

    flops: float
    again: float
    traffic: dict[tuple[str, str], Traffic]
    kept: int
    most: int
    manual: bool


@dataclass(frozen=True)
class _Place:
    """Where an equation stands.

    Attributes:
        times: that it runs. axes: of the mesh that its device is told of. share: of its work that one device does.
        again: whether this has been computed before.
    """

    times: int = 1
    axes: tuple[tuple[str, int], ...] = ()
    share: float = 1.0
    again: bool = False


def program(jaxpr: Any, devices: int) -> Program:
    """Counts a step.

    Args:
        jaxpr: of `jax.jit(step).trace(...)`, closed. devices: that share what lies outside of `jax.shard_map`.
    """
    flops = again = 0.0
    kept = most = 0
    traffic: dict[tuple[str, str], Traffic] = defaultdict(Traffic)
    for equation, place in _equations(jaxpr.jaxpr, _Place(share=1 / devices)):
        work = equation_flops(equation) * place.times * place.share
        flops += work
        again += work * place.again
        if equation.primitive.name in COLLECTIVES:
            key, found = _communication(equation, place)
            if found.bytes:
                traffic[key] += found
        if equation.primitive.name == "shard_map":
            inside = equation.params["jaxpr"]
            kept, most = max(kept, _kept(inside)), max(most, _most(inside))
    return Program(flops, again, dict(traffic), kept, most, manual=kept > 0)


def _equations(jaxpr: Any, place: _Place) -> Iterator[tuple[Any, _Place]]:
    """Every equation that runs, with all that are inside of it; of branches, the one with the most FLOPs."""
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        here = replace(place, again=place.again or AGAIN in str(equation.source_info.name_stack))
        yield equation, here
        if name == "scan":
            here = replace(here, times=here.times * params["length"])
        elif name == "shard_map":
            here = replace(here, axes=tuple(params["mesh"].shape.items()), share=1.0)
        inner = list(inner_jaxprs(equation))
        for one in [max(inner, key=jaxpr_flops)] if name == "cond" else inner:
            yield from _equations(one, here)


def _communication(equation: Any, place: _Place) -> tuple[tuple[str, str], Traffic]:
    """What a collective sends; of constants, such as the number of devices, nothing is sent."""
    names = equation.params.get("axes", equation.params.get("axis_name"))
    names = names if isinstance(names, tuple | list) else (names,)
    used = [(name, n) for name, n in place.axes if name in names and n > 1]
    kind, operands = COLLECTIVES[equation.primitive.name], sum(map(_bytes, _variables(equation)))
    whole = max(operands, sum(map(_bytes, equation.outvars))) if operands else 0
    each = received(kind, whole, math.prod(n for _, n in used))
    return (kind, "+".join(name for name, _ in used)), Traffic(place.times, each * place.times)


def _variables(equation: Any) -> list[Any]:
    """The operands that are not constants."""
    return [variable for variable in equation.invars if not hasattr(variable, "val")]


def _bytes(variable: Any) -> int:
    aval = variable.aval
    if not hasattr(aval, "shape") or not jnp.issubdtype(aval.dtype, jnp.generic):
        return 0  # a random key or a token
    return math.prod(aval.shape) * aval.dtype.itemsize


class _Roots(dict):
    """A variable -> the one whose memory it lies in."""

    def note(self, equation: Any) -> None:
        if equation.primitive.name in VIEWS and len(equation.invars) == len(equation.outvars):
            for new, old in zip(equation.outvars, equation.invars, strict=True):
                if not hasattr(old, "val"):
                    self[new] = self.of(old)

    def of(self, variable: Any) -> Any:
        return self.get(variable, variable)


def _kept(jaxpr: Any) -> int:
    """Bytes that equations before the first of the backward pass made, and later ones read."""
    marks = [BACKWARD in str(equation.source_info.name_stack) for equation in jaxpr.eqns]
    if not any(marks):
        return max((_kept(inner) for equation in jaxpr.eqns for inner in inner_jaxprs(equation)), default=0)
    roots, made, kept = _Roots(), set(), set()
    first = marks.index(True)
    for place, equation in enumerate(jaxpr.eqns):
        if place < first:
            roots.note(equation)
            made.update(v for v in equation.outvars if roots.of(v) is v)
        elif marks[place]:
            kept.update(map(roots.of, _variables(equation)))
    return sum(map(_bytes, made & kept))


def _most(jaxpr: Any) -> int:
    """The most bytes that exist at one time, each array from its equation to its last use, but for the arguments."""
    roots, last = _Roots(), {}
    for place, equation in enumerate(jaxpr.eqns):
        roots.note(equation)
        last |= {roots.of(variable): place for variable in _variables(equation)}
    end = len(jaxpr.eqns)
    last |= {roots.of(v): end for v in jaxpr.outvars if not hasattr(v, "val")}
    alive, most, sizes = 0, 0, {}
    leaving = defaultdict(list)
    for place, equation in enumerate(jaxpr.eqns):
        new = {v: _bytes(v) for v in equation.outvars if roots.of(v) is v and v in last}
        inner = max(map(_most, inner_jaxprs(equation)), default=0)
        outs = sum(new.values())
        # A loop's results stand beside what its body makes; elsewhere the results are what the inside makes.
        most = max(most, alive + (outs + inner if equation.primitive.name in LOOPS else max(outs, inner)))
        alive += outs
        sizes |= new
        for variable in new:
            leaving[last[variable]].append(variable)
        alive -= sum(sizes.pop(v) for v in leaving.pop(place, ()))
    return most
