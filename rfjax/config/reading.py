"""Turns a file of `configs/` and its flags into a checked `Config`, and a study into its runs."""

import dataclasses
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, get_origin, get_type_hints

import ml_collections

from rfjax.config.branches import branches
from rfjax.config.checks import OWN_SIZE, check
from rfjax.config.grid import combinations, count, steps_of
from rfjax.config.keys import Alignment, Config, Study
from rfjax.config.paths import resolved
from rfjax.config.rules import bounds, check_value, convert
from rfjax.config.versions import upgraded
from rfjax.errors import UserError, nearest

OPTIONS = "options"  # the section whose keys a config file makes up


def default() -> ml_collections.ConfigDict:
    """All keys with their defaults, locked against unknown keys; a config file and flags change some of them."""
    result = ml_collections.ConfigDict(dataclasses.asdict(Config()), convert_dict=True)
    return result.lock()


# Settings of an alignment that is switched off.
WITHOUT_EFFECT = {f"alignment.{one.name}" for one in dataclasses.fields(Alignment)} - {
    "alignment.encoders",
    "alignment.weight",
}


def axes(base: ml_collections.ConfigDict, values: Mapping[str, tuple[Any, ...]]) -> None:
    """Sets the axes of a study.

    Args:
        base: the config that all runs share, changed in place.
        values: key -> its values. {"model.depth": (1, 2, 3)} makes three runs; two axes make all combinations.

    Raises:
        UserError: if an axis is not a key of the config.
    """
    with base.unlocked():
        for path, choices in values.items():
            _check_axis(path)
            *sections, name = path.split(".")
            node = base.study.axes
            for section in sections:
                if section not in node:
                    node[section] = ml_collections.ConfigDict()
                node = node[section]
            node[name] = tuple(choices)


def parse(values: ml_collections.ConfigDict) -> Config:
    """Turns a ConfigDict into a checked Config.

    Raises:
        UserError: if a key is unknown, has a value of a wrong type, or has one that can't work; the message names it.
    """
    config = resolved(from_dict(values.to_dict()))
    check(config)
    for _, run in (made := runs(config)):
        check(run)
    branches(made)
    return config


def from_dict(values: Mapping[str, Any], cls: type = Config, where: str = "") -> Any:
    """Builds a `Config`, or a section of one, from nested plain values.

    Args:
        values: name of a key or section -> value; missing keys get their defaults.
        cls: the dataclass to build.
        where: the dotted path of the section, for messages.

    Raises:
        UserError: if a name is unknown, or a value breaks its key's rule.
    """
    values = upgraded(values) if cls is Config else values
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
            if not isinstance(value, Mapping):
                raise UserError(f"config.{path} is a section, not a value: {value!r}")
            made[name] = dict(value) if name == OPTIONS else dict(flatten(value))
        else:
            made[name] = convert(value, hints[name], path)
            check_value(made[name], fields[name].metadata, path)
    return cls(**made)


def filled(plain: Mapping[str, Any], cls: type = Config, where: str = "") -> dict[str, Any]:
    """Fills in a plain config of another version: adds defaults for missing keys and keeps unknown keys.

    Raises:
        UserError: if a value is of a wrong type; the message names its key.
    """
    plain = upgraded(plain) if cls is Config else plain
    hints, result = get_type_hints(cls), dict(plain)
    for name, default in dataclasses.asdict(cls()).items():
        hint, path, value = hints[name], f"{where}{name}", plain.get(name, default)
        if isinstance(default, dict) and not isinstance(value, Mapping):
            raise UserError(f"config.{path} is a section, not a value: {value!r}")
        if dataclasses.is_dataclass(hint):
            value = filled(value, hint, f"{path}.")
        elif get_origin(hint) is not dict:
            convert(value, hint, path)
        result[name] = value
    return result


def flatten(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """All values of nested ones as (dotted path, tuple): a list whole, another value alone."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", tuple(value) if isinstance(value, list | tuple) else (value,)


MOST_RUNS = 10_000  # of a study
LONGEST_NAME = 200  # characters of a run's name: a folder's name may have 255 bytes
BASE_ONLY = (
    "study",
    "generate",
    "archive",
    "suite",
    "plan",
    "design",
    "cluster",
)  # sections that have one value for all runs


def runs(config: Config) -> list[tuple[str, Config]]:
    """A study's runs, (name, config): all combinations of its axes, in order, or one run "run" if it has no axes.

    Runs without alignment that differ in its settings alone are one run.

    Raises:
        UserError: if an axis is not a key of the config, has no values, or a value does not fit; if two runs would have
            the same name, or there are too many.
    """
    _check_axes(config.study)
    result: dict[str, Config] = {}
    folders: dict[str, str] = {}
    seen: list[list[Any]] = []
    for values in combinations(config.study):
        plain = config.to_dict()
        for path, value in values.items():
            section, _, name = path.rpartition(".")
            plain[section][name] = value
        plain["study"] |= {"axes": {}, "seeds": ()}
        if exponent := plain["training"]["steps_exponent"]:
            steps = steps_of(plain["training"]["steps"], exponent, plain["model"]["depth"])
            plain["training"] |= {"steps": steps, "steps_exponent": 0.0}
        for key_of_size, value in OWN_SIZE.get(plain["data"]["name"], {}).items():
            plain["data"][key_of_size] = plain["data"][key_of_size] or value
        run = from_dict(plain)
        labels = {path: _label(path, value) for path, value in values.items()}
        if not run.alignment.active:
            labels = {path: label for path, label in labels.items() if path not in WITHOUT_EFFECT}
        name = "-".join(labels.values()) or "run"
        with_effect = [value for path, value in values.items() if path in labels]
        if with_effect in seen and len(with_effect) < len(values):
            continue  # it differs from that run in settings of an alignment that neither has
        seen.append(with_effect)
        if len(name.encode()) > LONGEST_NAME:
            raise UserError(
                f"the study's run '{name[:60]}...' has a name of over {LONGEST_NAME} bytes: shorten its axes"
            )
        folder = unicodedata.normalize("NFC", name).casefold()  # some file systems don't tell such names apart
        if folder in folders:
            raise UserError(
                f"two runs of config.study.axes would share the folder '{name}': {folders[folder]} and "
                f"{_written(values)}; leave one out, or choose values whose names differ"
            )
        folders[folder] = _written(values)
        result[name] = run
    return list(result.items())


def _check_axes(study: Study) -> None:
    for path, values in study.axes.items():
        _check_axis(path)
        section, _, _ = path.partition(".")
        if section in BASE_ONLY:
            raise UserError(
                f"config.study.axes.{path} can't differ between runs: config.{section} holds for all of them"
            )
        if not values:
            raise UserError(f"config.study.axes.{path} has no values: give at least one, such as (1, 2)")
    if (made := count(study)) > MOST_RUNS:
        raise UserError(f"config.study.axes makes {made:,} runs, and at most {MOST_RUNS:,} are allowed")


def _check_axis(path: str) -> None:
    """Refuses an axis that is not a key of the config."""
    known = [key for key, value, _ in entries() if "." in key and not isinstance(value, dict)]
    if path not in known and not path.startswith(f"{OPTIONS}."):
        raise UserError(f"config.study.axes.{path} is not a key of the config{nearest(path, known)}")


def _written(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {value!r}" for path, value in values.items())


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
    return LABELS.get(path, path.rpartition(".")[2] + "=") + (text or "none")


def entries(cls: type = Config, where: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """All keys as (dotted path, default, metadata)."""
    for field in dataclasses.fields(cls):
        value = field.default_factory() if field.default is dataclasses.MISSING else field.default
        if dataclasses.is_dataclass(value):
            yield from entries(type(value), f"{where}{field.name}.")
        else:
            yield f"{where}{field.name}", value, field.metadata


def describe(plain: Mapping[str, Any]) -> str:
    """The text of `--help`: all keys with their values in a plain config, what they do, and their bounds."""
    lines = []
    for path, _, metadata in entries():
        value: Any = plain
        for name in path.split("."):
            value = value[name]
        choices = [*map(repr, metadata["choices"]), *(["'MODULE:NAME'"] if metadata["paths"] else [])]
        allowed = " | ".join(choices) or bounds(metadata)
        lines.append(f"  --config.{path}={value!r}\n        {metadata['doc']}" + (f" [{allowed}]" if allowed else ""))
    return "\n".join(lines)
