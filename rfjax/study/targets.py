"""The size whose loss is asked for, or promised, as a config names it: "depth=38", "parameters=1e7,examples=2e5"."""

import math
from dataclasses import dataclass

from rfjax.errors import UserError, nearest

KINDS = ("parameters", "train_flops", "depth")
EXAMPLES = "examples"
LIKE = "write it like parameters=8e9, train_flops=1e21 or depth=38"
LIKE_BOTH = "write it like parameters=8e9,examples=2e10 or depth=38,examples=2e10"


@dataclass(frozen=True)
class Target:
    """A size of `kind`, and the examples that it is trained on; None where the study's rule for steps has them."""

    kind: str
    value: float
    examples: float | None = None


def parse(text: str) -> Target | None:
    """The target that a text names; None where it names none."""
    found: dict[str, float] = {}
    for part in text.split(","):
        kind, _, number = (word.strip() for word in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            return None
        if kind in found or kind not in (*KINDS, EXAMPLES) or not 0 < value < math.inf:
            return None
        found[kind] = value
    examples = found.pop(EXAMPLES, None)
    if len(found) != 1 or (examples is not None and "train_flops" in found):
        return None
    return Target(*next(iter(found.items())), examples)


def read(text: str, key: str) -> Target:
    """The target that a key of the config names.

    Raises:
        UserError: if the text names none; the message says how one is written.
    """
    target = parse(text)
    if target is None:
        raise UserError(f"{key} = '{text}' {_trouble(text)}")
    return target


def _trouble(text: str) -> str:
    """Why a text names no target, and how one is written: the end of a sentence."""
    parts = [part.partition("=")[0].strip() for part in text.split(",")]
    unknown = next((kind for kind in parts if kind not in (*KINDS, EXAMPLES)), "")
    hint = nearest(unknown, (*KINDS, EXAMPLES)) if unknown else ""
    if len(parts) == 1 and parts[0] != EXAMPLES:
        return f"names no size{hint}: {LIKE}"
    if "train_flops" in parts and EXAMPLES in parts:
        return f"names FLOPs and examples, of which the first follow from the second and the size: {LIKE_BOTH}"
    return f"names no size with its examples{hint}: {LIKE_BOTH}"
