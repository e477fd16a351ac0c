"""JSON files of runs, and the lines of `metrics.jsonl` with the keys that each kind of line must have.

Numbers that are not finite are written as "NaN", "Infinity" or "-Infinity", as in protobuf's JSON mapping, so that null
means "not measured". Older versions wrote null for them: if a kind of line must have a number, null is read as NaN.
Imports no JAX.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rfjax import files
from rfjax.untrusted import json_lines

FILE = "metrics.jsonl"
LEVELS = 8  # of t, of the validation loss: rfjax.evaluation.validation.LEVELS, which imports JAX
SIZE = {"parameters", "without_modulation", "active_per_token", "forward_flops", "train_flops"}
NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def plain(value: Any) -> Any:
    """Converts a value to strict JSON: a number that is not finite becomes a word of NOT_FINITE."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file and its folder. A reader sees the old file or the complete new one, even after a power cut.

    Raises:
        UserError: see `files.atomic`.
        OSError: if it can't be written for another reason.
    """
    files.write(path, json.dumps(plain(value), indent=1) + "\n", lasting=True)


def number(value: Any) -> int | float:
    """Reads a number that `plain` wrote, or null as NaN.

    Raises:
        ValueError: if it is something else.
    """
    if value is None:
        return math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value in NOT_FINITE:
        return NOT_FINITE[value]
    raise ValueError(f"no number: {value!r}")


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}: {value!r}")
    return value


def _text(value: Any) -> str:
    return _typed(value, str)


def _count(value: Any) -> int:
    if _typed(value, int) < 0:
        raise ValueError(f"no count: {value!r}")
    return value


def _list_of(check: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda value: [check(item) for item in _typed(value, list)]


def _levels(value: Any) -> list[int | float]:
    if len(_typed(value, list)) != LEVELS:
        raise ValueError(f"no {LEVELS} levels: {value!r}")
    return _list_of(number)(value)


def _numbers(value: Any) -> dict[str, int | float]:
    return {name: number(item) for name, item in _typed(value, dict).items()}


def _curves(value: Any) -> dict[str, list[int | float]]:
    return {name: _list_of(number)(item) for name, item in _typed(value, dict).items()}


def _subset(value: Any) -> dict[str, Any]:
    checks = {"triples": _count, "loss": number, "stderr": number, "levels": _levels}
    if missing := set(checks) - set(_typed(value, dict)):
        raise ValueError(f"a subset of triples without {', '.join(sorted(missing))}")
    return value | {name: check(value[name]) for name, check in checks.items()}


def _size(value: Any) -> dict[str, int | float]:
    if missing := SIZE - set(_typed(value, dict)):
        raise ValueError(f"a size without {', '.join(sorted(missing))}")
    return _numbers(value)


# Key -> check of its value, in all kinds of lines. Nothing reads other keys.
KEYS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("kind", "weights", "setting", "grid", "sampler", "trunk"), _text),
    **dict.fromkeys(("loss", "stderr", "flops", "seconds", "score", "path_length", "guidance"), number),
    **dict.fromkeys(("frechet", "frechet_stderr", "frechet_floor"), number),
    **dict.fromkeys(("step", "examples", "steps", "count", "evaluations", "trunk_step", "triples"), _count),
    **{"levels": _levels, "losses": _list_of(number), "captions": _list_of(_text), "size": _size, "parts": _numbers},
    "alignment_flops": _numbers,
    "along": _subset,
    **{"t": number, "accuracy": _list_of(number), "cknna": _curves},
}
PROGRESS = ("examples", "flops", "seconds")
NEEDED = {
    "start": ("size", "steps"),
    "train": (*PROGRESS, "loss"),
    "validation": (*PROGRESS, "weights", "grid", "loss", "stderr", "levels"),
    "examples": ("weights", "losses"),
    "scores": ("weights", "setting", "sampler", "steps", "guidance"),
    "samples": ("captions", "sampler", "steps"),
    "representations": ("weights", "setting", "t", "count", "cknna"),
}


def checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """Checks a record, and converts its numbers, including those that are not finite.

    Raises:
        ValueError: if it lacks a key that its kind must have, or a value is wrong.
    """
    needed = ("kind", "step", *NEEDED.get(record.get("kind") if isinstance(record.get("kind"), str) else "", ()))
    if missing := [key for key in needed if key not in record]:
        raise ValueError(f"without {', '.join(missing)}")
    unmeasured = {key for key, value in record.items() if value is None and key not in needed}
    known = {key: KEYS[key](value) for key, value in record.items() if key in KEYS and key not in unmeasured}
    return {**record, **known}


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Reads a file of metrics. A killed writer may have cut a line, and an editor may have damaged others.

    Returns:
        The records, and the number of lines that could not be read.

    Raises:
        Unreadable: if the file is a folder, a pipe or a device.
    """
    records, skipped = [], 0
    fix = "move it away, and the run writes a new file from its newest checkpoint on"
    for record in json_lines(path, fix=fix):
        try:
            records.append(checked(record or {}))
        except ValueError:
            skipped += 1
    return records, skipped
