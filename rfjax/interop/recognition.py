"""Whose a checkpoint is: `recognise` by its config.json or its tensors' names; where none fits, what comes nearest."""

import functools
import re
from collections.abc import Collection

from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.interop import dit, sd3
from rfjax.interop.layout import manifest
from rfjax.interop.layouts import LAYOUTS, Facts
from rfjax.interop.stored import Tensors, shown
from rfjax.training.spec import make_run_spec

CLASSES = {"SD3Transformer2DModel": "sd3", "DiTTransformer2DModel": "dit-folder"}
SHOWN = 3  # names in a message
WRAPPERS = ("module.", "_orig_mod.", "model.", "transformer.")  # what training code puts before names


def recognise(tensors: Tensors, facts: Facts) -> str:
    """The name of a checkpoint's layout, from its config.json or the names of its tensors.

    Raises:
        UserError: if they don't tell.
    """
    names, said = set(tensors.names), (facts or {}).get("_class_name")
    if f"{sd3.ORIGINAL.patch}.weight" in names:
        return "sd3-file"
    if isinstance(said, str) and said in CLASSES:
        return CLASSES[said]
    if f"{sd3.DIFFUSERS.patch}.weight" in names:
        return "sd3"
    if "projectors.0.0.weight" in names:
        return "repa"
    if dit.is_ambiguous(tensors):
        raise UserError(
            f"{tensors.source} has DiT's tensors, which SiT and REPA share: say whose it is by the layout dit, sit or "
            "repa, since they disagree on the direction of time"
        )
    raise UserError(f"{tensors.source} is of no layout that rfjax knows ({', '.join(LAYOUTS)}): {compare(names)}")


def compare(names: Collection[str]) -> str:
    """What was found, and which layout comes nearest to it, in words.

    Names are compared with a star in place of each block's number. Those that begin with a wrapper are also compared
    without it.
    """
    if not names:
        return "it has no tensors"
    some = ", ".join(map(shown, sorted(names)[:SHOWN])) + (" ..." if len(names) > SHOWN else "")
    said = f"it has {len(names)} tensors ({some})"
    shares = []
    for wrapper in ("", *WRAPPERS):
        bare = {_starred(name.removeprefix(wrapper)) for name in names if name.startswith(wrapper)}
        for layout in LAYOUTS:
            wanted = _expected(layout)
            shares.append((len(wanted & bare) / len(wanted), layout, wrapper, sorted(wanted - bare)))
    share, layout, wrapper, lacking = max(shares, key=lambda found: found[0])
    if not share:
        return f"{said}, none of them named as in one of these"
    behind = f", behind '{wrapper}'" if wrapper else ""
    lacks = f"; it lacks {len(lacking)}, such as {', '.join(lacking[:SHOWN])}" if lacking else ""
    return f"{said}; nearest is {layout}, of which it has {share:.0%} of the kinds of tensors{behind}{lacks}"


def _starred(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


@functools.cache
def _expected(layout: str) -> frozenset[str]:
    """The kinds of tensors that every network of a layout has."""
    config = _example(layout)
    parts = make_run_spec(config)
    return frozenset(map(_starred, manifest(LAYOUTS[layout].layout(parts.model, parts.inputs, config))))


def _example(layout: str) -> Config:
    """A small network of a layout."""
    model = {"depth": 2, "width": 8, "heads": 2, "patch": 2}
    if layout in ("sd3", "sd3-file"):
        return sd3.make_config(4, 4, (8, 8), model | {"stored_positions": 2})
    if layout == "dit-folder":
        return dit.make_config("dit", (4, 4), 2, model | {"frequency_shift": 1})
    more = {"projectors": (4,), "projector_width": 4} if layout == "repa" else {}
    return dit.make_config(layout, (4, 4), 2, model | {"stored_positions": 2} | more)
