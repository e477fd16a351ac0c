"""Current names for the keys of configs that older versions of rfjax wrote."""

from collections.abc import Mapping
from typing import Any

# Old path -> new path of a key or a section. The line of a key stands before the line of its section.
RENAMED = {
    "samples.grid": "sampling.schedule",
    "samples": "sampling",
    "sample": "generate",
    "validation.grid": "validation.levels",
}
JOBS = {"sample": "generate"}


def new_name(path: str) -> str:
    """The current path of a key or a section; returns the path itself if it was never renamed."""
    for old, new in RENAMED.items():
        if path == old or path.startswith(f"{old}."):
            return new + path[len(old) :]
    return path


def upgraded(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A nested plain config of any version under the current names; missing keys stay missing."""
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
        result.setdefault(new_name(section), {})  # keeps an empty section
    return result
