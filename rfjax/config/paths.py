"""Paths in a config: `~` is expanded, and addresses of buckets are checked; `expanded` makes them local."""

import dataclasses
from pathlib import Path
from typing import Any

from rfjax import buckets
from rfjax.errors import UserError

PATHS = (
    "workdir", "training.start_from", "generate.source", "generate.encodings", "study.source", "suite.prompts",
    "suite.results",
)  # fmt: skip
# `~` is expanded when these are opened: a study records the path as written.
OPENED = ("data.path", "data.validation_path", "data.data_dir", "text.path", "autoencoder.path")


def resolved(config: Any) -> Any:
    """The config with `~` and `~user` expanded in all keys of PATHS.

    Raises:
        UserError: if this machine does not know the user, or a path is an address that is not understood.
    """
    for key in OPENED:
        section, _, name = key.rpartition(".")
        _check_address(getattr(getattr(config, section), name), f"config.{key}")
    for key in PATHS:
        section, _, name = key.rpartition(".")
        owner = getattr(config, section) if section else config
        changed = dataclasses.replace(owner, **{name: _expanded(getattr(owner, name), f"config.{key}")})
        config = dataclasses.replace(config, **{section: changed}) if section else changed
    return config


def _check_address(path: str, key: str) -> None:
    if buckets.is_address(path):
        buckets.place(path, key)


def _expanded(path: str, key: str) -> str:
    _check_address(path, key)
    return str(expanded(path, key)) if path.startswith("~") else path


def expanded(path: str | Path, key: str) -> Path:
    """Expands `~` and `~user` in a path, and reads what an address of a bucket names into the cache.

    Args:
        path: as the user wrote it.
        key: the key that holds the path, for the message.

    Raises:
        UserError: if this machine does not know the user, or the user has no home folder, or the address can't be read.
    """
    if buckets.is_address(path):
        return buckets.local(path, key)
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{key} = '{path}' begins with ~, but this machine knows no such home folder: write the whole path"
        ) from error
