"""Configs that older versions of rfjax wrote: their keys under the names of today."""

from collections.abc import Mapping
from typing import Any

# Old path -> new path, of a key or a section; a key's own line comes before its section's.
RENAMED = {
    "samples.grid": "sampling.schedule",
    "samples": "sampling",
    "sample": "generate",
    "validation.grid": "validation.levels",
}
JOBS = {"sample": "generate"}


def new_name(path: str) -> str:
    """The path of a key or a section today; a path that never changed is returned as it is."""
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            return new + path[len(old) :]
    return path


def upgraded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A plain config of any version, nested, with today's names; what it lacks is not filled in."""
    result = _moved(plain)
    study = result.get("study")
    if isinstance(study, Mapping) and isinstance(study.get("axes"), Mapping):
        axes = {new_name(path): values for path, values in study["axes"].items()}
        result["study"] = {**study, "axes": axes}
    if isinstance(job := result.get("job"), str):
        result["job"] = JOBS.get(job, job)
    return result


def _moved(plain: Mapping[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for section, value in plain.items():
        if not isinstance(value, Mapping) or section == "study":
            result[new_name(section)] = value
            continue
        for name, item in value.items():
            target, _, key = new_name(f"{section}.{name}").partition(".")
            result.setdefault(target, {})[key] = item
        result.setdefault(new_name(section), {})  # an empty section stays one
    return result
