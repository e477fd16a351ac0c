"""A config's paths: `~` written out, and no address of what is no file system."""

import dataclasses
import re
from pathlib import Path
from typing import Any

from rfjax.errors import UserError

PATHS = ("workdir", "training.start_from", "generate.source", "generate.encodings", "study.source")
DATA = ("data.path", "data.data_dir")  # `~` is written out where they are opened: a study keeps the name it was given
REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")  # gs://bucket, and what Path makes of it


def resolved(config: Any) -> Any:
    """The config with `~` and `~user` written out in each key that names a folder or file of rfjax's own.

    Raises:
        UserError: for a user that is not known here, and for an address such as gs://bucket.
    """
    for key in DATA:
        section, _, name = key.rpartition(".")
        _check_local(getattr(getattr(config, section), name), f"config.{key}")
    for key in PATHS:
        section, _, name = key.rpartition(".")
        owner = getattr(config, section) if section else config
        changed = dataclasses.replace(owner, **{name: _expanded(getattr(owner, name), f"config.{key}")})
        config = dataclasses.replace(config, **{section: changed}) if section else changed
    return config


def _check_local(path: str, key: str) -> None:
    if REMOTE.match(path):
        raise UserError(
            f"{key} = '{path}' is no path of a file system, which rfjax needs for locks, renames and appended lines: "
            "mount it (NFS, Filestore, or a bucket with a hierarchical namespace by gcsfuse) and name the folder"
        )


def _expanded(path: str, key: str) -> str:
    _check_local(path, key)
    return str(expanded(path, key)) if path.startswith("~") else path


def expanded(path: str | Path, key: str) -> Path:
    """The path with `~` and `~user` written out.

    Args:
        path: as the user wrote it.
        key: which names it, for the message.

    Raises:
        UserError: for a user that is not known here, or one without a home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{key} = '{path}' begins with ~, and this machine knows no home folder for it: write the whole path"
        ) from error
