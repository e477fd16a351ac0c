"""Names of a tree's leaves."""

from typing import Any

import jax


def leaf_name(path: Any) -> str:
    """The name of a leaf from its path in a tree, such as "blocks/attention/q/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
