"""What one device computes, sends and stores in a traced training step, read from the step's jaxpr.

Inside `jax.shard_map` each array of a jaxpr has the size that one device holds, and each collective is an equation. The
counts are therefore the same for all compilers.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from rfjax.models.counting import equation_flops, inner_jaxprs, jaxpr_flops
from rfjax.planning.hlo import Traffic, received

# Primitives of the collectives in a jaxpr -> the names of HLO.
COLLECTIVES = {
    **dict.fromkeys(("psum", "psum_invariant", "pmax", "pmin", "unreduced_psum"), "all-reduce"),
    **dict.fromkeys(("all_gather", "all_gather_invariant", "all_gather_reduced"), "all-gather"),
    **dict.fromkeys(("reduce_scatter", "unreduced_reduce_scatter"), "reduce-scatter"),
    **{"all_to_all": "all-to-all", "ppermute": "collective-permute"},
}

# Primitives whose result needs no memory of its own: a compiler reads the operand in another order.
VIEWS = {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "pvary", "name", "optimization_barrier"}

LOOPS = ("scan", "while")
# Parts of the names that JAX gives to equations of the backward pass, and to those that recompute activations.
BACKWARD, RECOMPUTED = "transpose(", "rematted_computation"


@dataclass(frozen=True)
class Program:
    """One step on one device.

    Attributes:
        flops: FLOPs of matrix products and convolutions.
        recomputed: FLOPs among them by which the backward pass recomputes activations.
        traffic: (kind, mesh axes such as "data+fsdp") -> number of executions, and the bytes that a device receives.
        saved: bytes that the forward pass saves for the backward pass, besides the step's arguments.
        peak: the most bytes of arrays that exist at one time, besides the step's arguments, if the compiler fuses no
            operations. A compiler needs less than that for fused operations, and more for its own copies.
        in_shard_map: whether gradients are computed inside `jax.shard_map`. If not, `saved` and `peak` are unknown, 0.
    """

    flops: float
    recomputed: float
    traffic: dict[tuple[str, str], Traffic]
    saved: int
    peak: int
    in_shard_map: bool


@dataclass(frozen=True)
class _Context:
    """Where an equation stands in the program.

    Attributes:
        times: how often the equation runs.
        axes: (name, length) of the mesh axes that the equation can use.
        share: the fraction of the equation's FLOPs that one device computes.
        recomputed: whether the equation repeats an earlier computation.
    """

    times: int = 1
    axes: tuple[tuple[str, int], ...] = ()
    share: float = 1.0
    recomputed: bool = False


def read_program(jaxpr: Any, devices: int) -> Program:
    """Counts the FLOPs, the communication and the memory of a step.

    Args:
        jaxpr: the closed jaxpr of `jax.jit(step).trace(...)`.
        devices: the number of devices, which share the work outside `jax.shard_map` evenly.
    """
    flops = recomputed = 0.0
    saved = peak = 0
    traffic: dict[tuple[str, str], Traffic] = defaultdict(Traffic)
    for equation, context in _equations(jaxpr.jaxpr, _Context(share=1 / devices)):
        count = equation_flops(equation) * context.times * context.share
        flops += count
        recomputed += count * context.recomputed
        if equation.primitive.name in COLLECTIVES:
            key, sent = _communication(equation, context)
            if sent.bytes:
                traffic[key] += sent
        if equation.primitive.name == "shard_map":
            inside = equation.params["jaxpr"]
            saved, peak = max(saved, _saved_bytes(inside)), max(peak, peak_bytes(inside))
    return Program(flops, recomputed, dict(traffic), saved, peak, in_shard_map=saved > 0)


def _equations(jaxpr: Any, context: _Context) -> Iterator[tuple[Any, _Context]]:
    """All equations that run, at any depth; of a conditional's branches only the one with the most FLOPs."""
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        here = replace(context, recomputed=context.recomputed or RECOMPUTED in str(equation.source_info.name_stack))
        yield equation, here
        if name == "scan":
            here = replace(here, times=here.times * params["length"])
        elif name == "shard_map":
            here = replace(here, axes=tuple(params["mesh"].shape.items()), share=1.0)
        inner = list(inner_jaxprs(equation))
        for one in [max(inner, key=jaxpr_flops)] if name == "cond" else inner:
            yield from _equations(one, here)


def _communication(equation: Any, context: _Context) -> tuple[tuple[str, str], Traffic]:
    """The traffic of a collective; a collective of constants, such as the number of devices, sends nothing."""
    names = equation.params.get("axes", equation.params.get("axis_name"))
    names = names if isinstance(names, tuple | list) else (names,)
    used = [(name, n) for name, n in context.axes if name in names and n > 1]
    kind, operands = COLLECTIVES[equation.primitive.name], sum(map(_bytes, _variables(equation)))
    whole = max(operands, sum(map(_bytes, equation.outvars))) if operands else 0
    each = received(kind, whole, math.prod(n for _, n in used))
    return (kind, "+".join(name for name, _ in used)), Traffic(context.times, each * context.times)


def _variables(equation: Any) -> list[Any]:
    """The operands that are not constants."""
    return [variable for variable in equation.invars if not hasattr(variable, "val")]


def _bytes(variable: Any) -> int:
    aval = variable.aval
    if not hasattr(aval, "shape") or not jnp.issubdtype(aval.dtype, jnp.generic):
        return 0  # a random key or a token
    return math.prod(aval.shape) * aval.dtype.itemsize


def _owners(jaxpr: Any) -> dict[Any, Any]:
    """Variable that is a view -> the variable that owns its memory."""
    owners: dict[Any, Any] = {}
    for equation in jaxpr.eqns:
        if equation.primitive.name in VIEWS and len(equation.invars) == len(equation.outvars):
            pairs = zip(equation.outvars, equation.invars, strict=True)
            owners |= {new: owners.get(old, old) for new, old in pairs if not hasattr(old, "val")}
    return owners


def _saved_bytes(jaxpr: Any) -> int:
    """Bytes of the arrays that the forward pass makes and the backward pass reads."""
    marks = [BACKWARD in str(equation.source_info.name_stack) for equation in jaxpr.eqns]
    if not any(marks):
        return max((_saved_bytes(inner) for equation in jaxpr.eqns for inner in inner_jaxprs(equation)), default=0)
    owners, first = _owners(jaxpr), marks.index(True)
    made = {v for equation in jaxpr.eqns[:first] for v in equation.outvars if v not in owners}
    backward = (equation for equation, mark in zip(jaxpr.eqns, marks, strict=True) if mark)
    used = {owners.get(v, v) for equation in backward for v in _variables(equation)}
    return sum(map(_bytes, made & used))


def peak_bytes(jaxpr: Any) -> int:
    """The most bytes that exist at one time, each array from its equation to its last use, without the arguments."""
    owners, last = _owners(jaxpr), {}
    for place, equation in enumerate(jaxpr.eqns):
        last |= {owners.get(v, v): place for v in _variables(equation)}
    last |= {owners.get(v, v): len(jaxpr.eqns) for v in jaxpr.outvars if not hasattr(v, "val")}
    alive, most, sizes = 0, 0, {}
    leaving = defaultdict(list)
    for place, equation in enumerate(jaxpr.eqns):
        new = {v: _bytes(v) for v in equation.outvars if v not in owners and v in last}
        inner = max(map(peak_bytes, inner_jaxprs(equation)), default=0)
        outs = sum(new.values())
        # The results of a loop exist beside what its body makes; other results are among what the inner jaxpr makes.
        most = max(most, alive + (outs + inner if equation.primitive.name in LOOPS else max(outs, inner)))
        alive += outs
        sizes |= new
        for variable in new:
            leaving[last[variable]].append(variable)
        alive -= sum(sizes.pop(v) for v in leaving.pop(place, ()))
    return most
