"""JSON that runs write: files, and the lines of `metrics.jsonl` with what each kind must hold.

A number that is not finite is written as "NaN", "Infinity" or "-Infinity" (as protobuf's JSON mapping has them), so
that null is left for what was not measured. Files from before this have null in its place: where a kind of line must
hold a number, null is read as NaN. Imports no JAX.
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
    """Makes a value strict JSON: a number that is not finite becomes a word of NOT_FINITE."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a file, and its folder if need be: a reader sees the old one or the whole new one, also after a power cut.

    Raises:
        UserError: see `files.atomic`. OSError: if it can't be written for another reason.
    """
    files.write(path, json.dumps(plain(value), indent=1) + "\n", lasting=True)


def number(value: Any) -> int | float:
    """A number as `plain` writes it; null, which older versions wrote for one that is not finite, as NaN.

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


def _numbers(value: Any) -> list[int | float]:
    return [number(item) for item in _typed(value, list)]


def _texts(value: Any) -> list[str]:
    return [_typed(item, str) for item in _typed(value, list)]


def _counts(value: Any) -> dict[str, int | float]:
    return {name: number(item) for name, item in _typed(value, dict).items()}


def _levels(value: Any) -> list[int | float]:
    found = _numbers(value)
    if len(found) != LEVELS:
        raise ValueError(f"no {LEVELS} levels: {value!r}")
    return found


def _size(value: Any) -> dict[str, int | float]:
    found = _counts(value)
    if missing := SIZE - set(found):
        raise ValueError(f"a size without {', '.join(sorted(missing))}")
    return found


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"no {kind.__name__}: {value!r}")
    return value


def _count(value: Any) -> int:
    if _typed(value, int) < 0:
        raise ValueError(f"no count: {value!r}")
    return value


def _text(value: Any) -> str:
    return _typed(value, str)


# What a key holds, in every kind of line that has it. Others are not read by anything here.
KEYS: dict[str, Callable[[Any], Any]] = {
    "kind": _text, "step": _count, "weights": _text, "setting": _text, "grid": _text, "sampler": _text,
    **dict.fromkeys(("loss", "stderr", "flops", "seconds", "score", "path_length", "guidance"), number),
    **dict.fromkeys(("frechet", "frechet_stderr", "frechet_floor"), number),
    "examples": _count, "steps": _count, "count": _count, "evaluations": _count,
    "levels": _levels, "losses": _numbers, "captions": _texts, "size": _size, "parts": _counts,
}  # fmt: skip
PROGRESS = ("examples", "flops", "seconds")
NEEDED = {
    "start": ("size", "steps"),
    "train": (*PROGRESS, "loss"),
    "validation": (*PROGRESS, "weights", "grid", "loss", "stderr", "levels"),
    "examples": ("weights", "losses"),
    "scores": ("weights", "setting", "sampler", "steps", "guidance"),
    "samples": ("captions", "sampler", "steps"),
}


def checked(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with its numbers as floats, those that are not finite too.

    Raises:
        ValueError: if it lacks what its kind must hold, or holds something else there.
    """
    needed = ("kind", "step", *NEEDED.get(record.get("kind") if isinstance(record.get("kind"), str) else "", ()))
    if missing := [key for key in needed if key not in record]:
        raise ValueError(f"without {', '.join(missing)}")
    unmeasured = {key for key, value in record.items() if value is None and key not in needed}
    known = {key: KEYS[key](value) for key, value in record.items() if key in KEYS and key not in unmeasured}
    return {**record, **known}


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records of a file of metrics, and how many lines could not be read.

    A killed writer may cut one short, and an editor may have spoilt others.

    Raises:
        Unreadable: if the file is a folder, a pipe or a device.
    """
    records, skipped = [], 0
    fix = "move it away, and the run writes a new one from its newest checkpoint on"
    for record in json_lines(path, fix=fix):
        try:
            records.append(checked(record)) if record is not None else None
            skipped += record is None
        except ValueError:
            skipped += 1
    return records, skipped
