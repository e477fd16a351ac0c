"""In which keys two configs differ, as far as a study's results depend on them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rfjax import names
from rfjax.config.reading import flatten, from_dict
from rfjax.config.versions import upgraded
from rfjax.errors import UserError

# Keys that change where and how a study runs but not its results, so that it may continue with other values.
OPERATIONAL = (
    "job",
    "workdir",
    "only",
    "mesh",
    "cluster",
    "recovery",
    "plan",
    "design",
    "data.outside",
    "data.changed",
    "model.remat",
    "training.accumulate",
    "training.attention_every",
    "training.keep_checkpoints",
    "training.measurements",
    "generate",
    "archive",
    "suite",
    "study",
)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Sentences on the keys in which two plain configs differ, without the keys of OPERATIONAL.

    A key that a config of an older version lacks has its default there.
    """
    flat = [of_results(_completed(upgraded(c))) for c in (ours, theirs)]
    pairs = {path: (flat[1].get(path), flat[0].get(path)) for path in {**flat[0], **flat[1]}}
    return [
        f"{path} is {_shown(there, here)} there and {_shown(here, there)} here"
        for path, (there, here) in pairs.items()
        if there != here
    ]


def of_results(plain: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The flat values of a plain config without the keys of OPERATIONAL: what a run's results depend on."""
    flat = dict(flatten(plain))
    return {p: value for p, value in flat.items() if not any(p == o or p.startswith(o + ".") for o in OPERATIONAL)}


def _shown(value: tuple[Any, ...] | None, other: tuple[Any, ...] | None) -> str:
    """A flat value for people: whole where either is a list."""
    if value is None:
        return "absent"
    return repr(value[0]) if all(one is None or len(one) == 1 for one in (value, other)) else repr(value)


def _completed(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    """Adds defaults for missing keys, and replaces the schedule "own" by the name of the schedule that it means."""
    try:
        config = from_dict(plain)
        schedule = names.schedule_of(config.sampling.schedule, config.flow.formulation)
    except UserError:
        return plain
    return dataclasses.replace(config, sampling=dataclasses.replace(config.sampling, schedule=schedule)).to_dict()
