"""From a file in `configs/` and its flags to a checked `Config`, and to the runs of a study."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import ml_collections

from rfjax.config.checks import OWN_SIZE, check
from rfjax.config.keys import Config
from rfjax.errors import UserError, nearest

# Keys that say where and how to run, not what: a study may go on with others.
OPERATIONAL = (
    "job",
    "workdir",
    "only",
    "mesh",
    "cluster",
    "recovery",
    "plan",
    "data.outside",
    "data.changed",
    "model.remat",
    "training.accumulate",
    "training.attention_every",
    "training.keep_checkpoints",
    "sample",
    "study",
)


def default() -> ml_collections.ConfigDict:
    """Every key with its default; a config file changes some, flags change more. Unknown keys are refused."""
    result = ml_collections.ConfigDict(dataclasses.asdict(Config()), convert_dict=True)
    return result.lock()


def axes(base: ml_collections.ConfigDict, values: Mapping[str, tuple[Any, ...]]) -> None:
    """Sets the axes of a study: {"model.depth": (1, 2, 3)} makes three runs; two axes make all the combinations."""
    with base.unlocked():
        for path, choices in values.items():
            *sections, name = path.split(".")
            node = base.study.axes
            for section in sections:
                if section not in node:
                    node[section] = ml_collections.ConfigDict()
                node = node[section]
            node[name] = tuple(choices)


def parse(values: ml_collections.ConfigDict) -> Config:
    """Checks a ConfigDict and makes it a Config.

    Raises:
        UserError: for an unknown key, a wrong type, or a value that can't work, with the key's name.
    """
    config = from_dict(_located(values.to_dict()))
    check(config)
    for _, run in runs(config):
        check(run)
    return config


# Folders and files. Those of `data` are written out where they are opened: a study keeps the name that it was given.
WRITTEN_OUT = ("workdir", "training.start_from", "study.source", "sample.source", "sample.encodings")
PATHS = (*WRITTEN_OUT, "data.path", "data.data_dir")


def _located(plain: dict[str, Any]) -> dict[str, Any]:
    """Writes out `~` in the values of keys that are paths, which no shell does after a "=".

    Raises:
        UserError: for a home folder that is not known, and for an address such as gs://, which is no folder.
    """
    for path in PATHS:
        *sections, name = path.split(".")
        owner = plain
        for section in sections:
            owner = owner[section]
        value = owner[name]
        if not isinstance(value, str):  # its type is checked later
            continue
        if re.match(r"\w+://", value):
            raise UserError(f"config.{path} = '{value}' is an address, not a folder: mount it, and name where it is")
        if path in WRITTEN_OUT and value.startswith("~"):
            try:
                owner[name] = str(Path(value).expanduser())
            except RuntimeError as error:
                raise UserError(
                    f"config.{path} = '{value}' begins with ~, and this machine knows no home folder for it: write the "
                    "whole path"
                ) from error
    return plain


def from_dict(values: Mapping[str, Any], cls: type = Config, where: str = "") -> Any:
    """Builds a dataclass of this module from nested plain values; checks names, types, choices and ranges."""
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    made = {}
    for name, value in values.items():
        path = f"{where}{name}"
        if name not in fields:
            raise UserError(f"the config has no key '{path}'{nearest(name, fields)}")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise UserError(f"config.{path} is a section, not a value: {value!r}")
            made[name] = from_dict(value, hints[name], f"{path}.")
        elif get_origin(hints[name]) is dict:
            made[name] = dict(_flatten(value))
        else:
            made[name] = _convert(value, hints[name], path)
            _check_value(made[name], fields[name].metadata, path)
    return cls(**made)


def _convert(value: Any, hint: Any, path: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_convert(item, get_args(hint)[0], path) for item in value)
    if type(value) is not hint:
        raise UserError(f"config.{path} must be of type {hint.__name__}, not {type(value).__name__} ({value!r})")
    return value


def _check_value(value: Any, rule: Mapping[str, Any], path: str) -> None:
    if rule["choices"] and value not in rule["choices"]:
        raise UserError(
            f"config.{path} = {value!r} is not among its choices{nearest(str(value), map(str, rule['choices']))}"
        )
    if rule["low"] is not None and not value >= rule["low"]:
        raise UserError(f"config.{path} = {value!r} must be at least {rule['low']}")


def _flatten(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", tuple(value) if isinstance(value, list | tuple) else (value,)


def runs(config: Config) -> list[tuple[str, Config]]:
    """The named runs of a study: every combination of its axes, in order; one run named "run" where it has none.

    Raises:
        UserError: if an axis is not a key of the config, or a value does not fit.
    """
    axis = config.study.axes
    for path in axis:
        section, _, name = path.rpartition(".")
        owner = getattr(config, section, None) if section else None
        if owner is None or not hasattr(owner, name):
            raise UserError(f"config.study.axes.{path} is not a key of the config{nearest(path, _paths())}")
    result = []
    for values in itertools.product(*axis.values()):
        plain = config.to_dict()
        for path, value in zip(axis, values, strict=True):
            section, _, name = path.rpartition(".")
            plain[section][name] = value
        plain["study"]["axes"] = {}
        for key_of_size, value in OWN_SIZE.get(plain["data"]["name"], {}).items():
            plain["data"][key_of_size] = plain["data"][key_of_size] or value
        name = "-".join(_label(path, value) for path, value in zip(axis, values, strict=True)) or "run"
        result.append((name, from_dict(plain)))
    return result


LABELS = {
    "model.backbone": "",
    "model.depth": "d",
    "optimizer.learning_rate": "lr",
    "training.seed": "seed",
    "training.steps": "steps",
    "data.name": "",
    "flow.formulation": "",
}


def _label(path: str, value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else re.sub(r"[^\w.+-]+", "_", str(value)).strip("_")
    return LABELS.get(path, path.rpartition(".")[2] + "=") + text


def _paths() -> Iterator[str]:
    for path, value, _ in entries():
        if not isinstance(value, dict):
            yield path


def entries(cls: type = Config, where: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Every key as (dotted path, default, metadata)."""
    for field in dataclasses.fields(cls):
        value = field.default_factory() if field.default is dataclasses.MISSING else field.default
        if dataclasses.is_dataclass(value):
            yield from entries(type(value), f"{where}{field.name}.")
        else:
            yield f"{where}{field.name}", value, field.metadata


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Sentences on the keys that differ between two plain configs, leaving the operational ones aside.

    A key that is newer than a config has its default there.
    """
    flat = [dict(_flatten(_completed(c))) for c in (ours, theirs)]
    paths = [p for p in {**flat[0], **flat[1]} if not any(p == o or p.startswith(o + ".") for o in OPERATIONAL)]
    shown = lambda value: repr(value[0]) if value else "absent"  # noqa: E731
    return [
        f"{path} is {shown(flat[1].get(path))} there and {shown(flat[0].get(path))} here"
        for path in paths
        if flat[0].get(path) != flat[1].get(path)
    ]


def _completed(plain: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return from_dict(plain).to_dict()
    except UserError:
        return plain


def describe(plain: Mapping[str, Any]) -> str:
    """The list of keys for `--help`, with the values of a plain config."""
    lines = []
    for path, _, metadata in entries():
        value: Any = plain
        for name in path.split("."):
            value = value[name]
        choices = f" [{' | '.join(map(repr, metadata['choices']))}]" if metadata["choices"] else ""
        lines.append(f"  --config.{path}={value!r}\n        {metadata['doc']}{choices}")
    return "\n".join(lines)
