"""Blocks behind one another: the scan over depth, what is recomputed, sharded weights, and states that are tapped."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from rfjax.models.blocks import ATTENTION, Spec
from rfjax.models.shards import REMAT, WHOLE, Shards

INTERMEDIATES = "intermediates"  # the collection of Flax's `capture_intermediates`, which coordinate checks ask for


class Stack(NamedTuple):
    """Blocks of one kind behind one another.

    Attributes:
        block: their class; called as (carry, given) -> (carry, None).
        name: of STACKS.
        count: how many; 0: one block outside of a scan.
        settings: keyword arguments of the class.
    """

    block: Any
    name: str
    count: int
    settings: dict[str, Any]


class Taps(NamedTuple):
    """Which hidden states the stacks hand out.

    Attributes:
        after: numbers of blocks, counted from 1 over all stacks.
        tokens: carry -> the image tokens (B, N, D) in it.
    """

    after: tuple[int, ...]
    tokens: Callable[[Any], Array]


@dataclass(frozen=True)
class Stacking:
    """How blocks are put behind one another.

    Attributes:
        remat: what the backward pass computes again, of `shards.REMAT`.
        unroll: blocks per iteration of the scan.
        shards: what this device has of the weights.
    """

    remat: str = "none"
    unroll: int = 1
    shards: Shards = WHOLE

    def run(self, spec: Spec, stacks: list[Stack], carry: Any, given: Any, taps: Taps | None = None) -> tuple[Any, Any]:
        """Runs the stacks in order; to be called within a module's compact method.

        The scan carries the tapped states: where the block's number is not the tap's it hands on what it was given, so
        no layer's state is kept but the tapped ones.

        Args:
            carry: what each block changes.
            given: what each block reads.
            taps: None: no state is tapped, and the program is the same as without this feature.

        Returns:
            (carry, the tapped states).
        """
        if taps:
            empty = tuple(jnp.zeros_like(taps.tokens(carry)) for _ in taps.after)
            carry = (carry, jnp.int32(1), empty)
        for block, name, count, settings in stacks:
            kind = _tapped(block, taps) if taps else block
            module = self.blocks(kind, count, name) if count else self.block(kind, name)
            carry, _ = module(spec, name=name, **settings)(carry, given)
        return (carry[0], carry[2]) if taps else (carry, ())

    def block(self, block: Any, name: str, *, unrolled: bool = False) -> Any:
        """A block's class, ready for a device's part of the weights, which are found at `name`.

        Args:
            unrolled: it is one of several in a row. XLA would use again what should not be kept; within a loop it
                can't, and for a single block, whose backward pass comes right after, it may.
        """
        if self.shards.changes:
            whole = lambda tree: {"params": self.shards.gather(tree["params"], name)}  # noqa: E731
            block = nn.map_variables(block, "params", trans_in_fn=whole)
        if self.remat == "none" and not self.shards.dimensions:
            return block
        return nn.remat(block, prevent_cse=unrolled, policy=REMAT[self.remat])

    def blocks(self, block: Any, count: int, name: str) -> Any:
        """`count` blocks (carry, y) -> (carry, None) in a scan: one is traced and compiled, whatever the depth.

        Each parameter gets a leading axis of that length. The result is called as the block's constructor.
        """
        return nn.scan(
            self.block(block, name, unrolled=self.unroll >= count > 1),
            variable_axes={"params": 0, ATTENTION: 0, INTERMEDIATES: 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=count,
            unroll=min(self.unroll, count),
        )


def _tapped(block: Any, taps: Taps) -> Any:
    """The block's class with the carry (carry, number of this block, tapped states)."""

    class Tapped(block):
        def __call__(self, carry: Any, given: Any) -> tuple[Any, None]:
            inner, number, states = carry
            inner, _ = super().__call__(inner, given)
            state = taps.tokens(inner)
            states = tuple(jnp.where(number == n, state, old) for n, old in zip(taps.after, states, strict=True))
            return (inner, number + 1, states), None

    return Tapped
