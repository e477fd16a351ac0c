"""Finds objects by name: an entry of a table, or an import path `MODULE:NAME`.

Each kind of object that a config names (data sources, backbones, objectives, encoders, measurements, metrics, reports)
has a table from names to import paths. A user's own module needs no entry: the config names its object as
`my_package.my_module:MyThing`.
"""

import importlib
from collections.abc import Mapping
from typing import Any

from rfjax.errors import UserError, nearest


def is_path(name: str) -> bool:
    """Whether a name is an import path `MODULE:NAME` rather than an entry of a table."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in [*module.split("."), attribute])


def find(name: str, table: Mapping[str, str], key: str) -> Any:
    """Imports the object that a config names.

    Args:
        name: an entry of the table, or `MODULE:NAME`.
        table: name -> `MODULE:NAME`.
        key: the config's key that holds the name, for the message.

    Raises:
        UserError: if the table has no such name, the module can't be imported, or it has no such attribute.
    """
    if name not in table and not is_path(name):
        raise UserError(f"config.{key} = '{name}' is not one of its choices{nearest(name, table)}")
    path = table.get(name, name)
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        if name in table:
            raise
        raise UserError(f"config.{key} = '{name}': the module '{module}' can't be imported ({error})") from error
    except AttributeError as error:
        raise UserError(f"config.{key} = '{name}': the module '{module}' has no '{attribute}'") from error
