"""Reads the command line: a config file, its variant, and flags that set its keys."""

import ast
import sys
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from rfjax import config as configs
from rfjax import installed
from rfjax.config import versions
from rfjax.errors import UserError, nearest


def read_flags(arguments: list[str]) -> configs.Config:
    """Reads --config and its overrides, and checks the resulting config.

    Raises:
        UserError: if the file is missing, a key is unknown or a value is wrong; the message suggests the right one.
    """
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", None, "path of a config file", flag_values=values)
    file = next((a.split("=", 1)[1] for a in arguments if a.startswith("--config=")), None)
    if file is None:
        raise UserError(f"no config is given: add --config=FILE{nearest('', installed.known_configs())}")
    path, colon, variant = file.partition(":")
    file = f"{installed.find_config(Path(path))}{colon}{variant}"
    axes, others = _split_axes([f"--config={file}" if word.startswith("--config=") else word for word in arguments])
    given, sys.argv = sys.argv, [sys.argv[0], *others]  # ml_collections reads overrides from sys.argv
    try:
        rest = values(sys.argv)[1:]
        loaded = holder.value
    except UserError:
        raise
    except Exception as error:  # absl and ml_collections raise many kinds
        raise UserError(_explain(error, others)) from error
    finally:
        sys.argv = given
    if rest:
        raise UserError(f"the argument '{rest[0]}' is not understood: write settings as --config.KEY=VALUE")
    configs.axes(loaded, axes)
    return configs.parse(loaded)


AXES = "config.study.axes."


def _split_axes(arguments: list[str]) -> tuple[dict[str, tuple[Any, ...]], list[str]]:
    """Splits arguments into axes and others, because ml_collections can't set a key that the file lacks."""
    axes: dict[str, tuple[Any, ...]] = {}
    others: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if not (word.startswith("-") and name.startswith(AXES)):
            others.append(word)
            continue
        value = value if equals else next(words, "")
        try:
            choices = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise UserError(
                f'--{name} = {value[:80]} is not a list of values: write it like --{AXES}model.depth="(1,2,3)" or '
                f"--{AXES}model.backbone=\"('dit','mmdit')\""
            ) from None
        axes[name.removeprefix(AXES)] = tuple(choices) if isinstance(choices, tuple | list) else (choices,)
    return axes, others


def _explain(error: Exception, arguments: list[str]) -> str:
    """One sentence about an error of absl or ml_collections."""
    keys = [path for path, *_ in configs.entries()]
    given = (argument.split("=")[0] for argument in arguments if argument.startswith("--config."))
    for name in (flag.removeprefix("--config.") for flag in given):
        inner = [key for key in keys if key.startswith(f"{name}.")]
        if inner or name == "study.axes":
            such = inner[0] if inner else f"{name}.model.depth"
            return f"config.{name} is a section, not a value: set one of its keys, such as --config.{such}=VALUE"
        if (new := versions.new_name(name)) != name:
            return f"config.{name} has a new name: config.{new}"
        if name not in keys:
            return f"the config has no key '{name}'{nearest(name, keys)}"
    return f"{type(error).__name__}: {error}".replace("\n", " ")
