"""The rule of one key of a config: its type, its choices and its bounds."""

import dataclasses
import math
import unicodedata
from collections.abc import Mapping
from typing import Any, get_args, get_origin

from rfjax.errors import UserError, nearest
from rfjax.lookup import is_path

LONGEST_TEXT = 4096  # characters: a path's limit on Linux, and more than any prompt needs
MOST_ITEMS = 10_000  # of a tuple
LARGEST_SEED = 2**32 - 1  # JAX's seeds are 32-bit words
MOST_STEPS = 10**9  # a step is an int32 on the devices


def key(
    default: Any,
    doc: str,
    *,
    choices: tuple[Any, ...] = (),
    low: float | None = None,
    high: float | None = None,
    also: float | None = None,
    paths: bool = False,
) -> Any:
    """Declares a key of a config.

    Args:
        default: the value if a config does not set the key.
        doc: what the key does, its unit and its effect, in full sentences; `--help` prints it.
        choices: the allowed values. Empty allows all values of the type.
        low: the smallest allowed number, or item of a tuple. Each key of numbers has a `low` and a `high`.
        high: the largest allowed number, or item of a tuple.
        also: one more allowed number outside the bounds, which has a special meaning.
        paths: whether an import path `MODULE:NAME` is allowed in addition to the choices.
    """
    metadata = {"doc": doc, "choices": choices, "low": low, "high": high, "also": also, "paths": paths}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def convert(value: Any, hint: Any, path: str) -> Any:
    """Converts a value to the type of its key: an integer to a float, a list to a tuple.

    Args:
        hint: the type annotation of the key.
        path: the key's dotted path, for the message.

    Raises:
        UserError: if the value is of another type.
    """
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise UserError(f"config.{path} has {len(str(value))} digits, more than a float holds") from None
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(convert(item, get_args(hint)[0], path) for item in value)
    if type(value) is not hint:
        name = f"a tuple of {get_args(hint)[0].__name__}" if get_origin(hint) is tuple else hint.__name__
        raise UserError(f"config.{path} must be of type {name}, not {type(value).__name__} ({_short(value)})")
    return value


def check_value(value: Any, rule: Mapping[str, Any], path: str) -> None:
    """Checks a value against its key's rule, the metadata that `key` made.

    Raises:
        UserError: if the rule does not allow the value.
    """
    if isinstance(value, tuple):
        if len(value) > MOST_ITEMS:
            raise UserError(f"config.{path} has {len(value):,} items, and at most {MOST_ITEMS:,} are allowed")
        for item in value:
            check_value(item, rule, path)
    elif isinstance(value, str):
        _check_text(value, rule, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"config.{path} = {value!r} must be a finite number, {bounds(rule)}")
    elif rule["low"] is not None and not rule["low"] <= value <= rule["high"] and value != rule["also"]:
        raise UserError(f"config.{path} = {_short(value)} must be {bounds(rule)}")


def bounds(rule: Mapping[str, Any]) -> str:
    """The bounds of a key in words, such as "from 1 to 1000, or 0"; empty if the key has none."""
    if rule["low"] is None:
        return ""
    also = "" if rule["also"] is None else f", or {rule['also']:g}"
    return f"from {_plain(rule['low'])} to {_plain(rule['high'])}{also}"


def _plain(number: float) -> str:
    return str(number) if isinstance(number, int) and number < 10**6 else f"{number:.12g}"


def _short(value: Any) -> str:
    """The value as Python writes it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text):,} characters)"


def _check_text(text: str, rule: Mapping[str, Any], path: str) -> None:
    if rule["choices"] and text not in rule["choices"] and not (rule["paths"] and is_path(text)):
        raise UserError(
            f"config.{path} = {_short(text)} is not one of its choices{nearest(text[:80], map(str, rule['choices']))}"
        )
    if len(text) > LONGEST_TEXT:
        raise UserError(f"config.{path} has {len(text):,} characters, and at most {LONGEST_TEXT:,} are allowed")
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs"):
            raise UserError(
                f"config.{path} holds the character U+{ord(character):04X}, which texts and paths can't have: remove it"
            )
