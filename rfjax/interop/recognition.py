"""Recognises a checkpoint's layout by its config.json or its tensors' names; names the nearest layout if none fits."""

import functools
import re
from collections.abc import Collection

from rfjax.errors import UserError, one_line
from rfjax.interop import dit, sd3
from rfjax.interop.layouts import LAYOUTS, Metadata
from rfjax.tensors.layout import manifest
from rfjax.tensors.stored import Tensors
from rfjax.training.spec import make_run_spec

CLASSES = {"SD3Transformer2DModel": "sd3", "DiTTransformer2DModel": "dit-folder"}
SHOWN = 3  # names in a message
WRAPPERS = ("module.", "_orig_mod.", "model.", "transformer.")  # prefixes that training code adds to names


def recognise(tensors: Tensors, metadata: Metadata) -> str:
    """The name of a checkpoint's layout.

    Args:
        metadata: content of its config.json, if there is one.

    Raises:
        UserError: if neither the config.json nor the tensors' names show the layout.
    """
    names, class_name = set(tensors.names), (metadata or {}).get("_class_name")
    if f"{sd3.ORIGINAL.patch}.weight" in names:
        return "sd3-file"
    if isinstance(class_name, str) and class_name in CLASSES:
        return CLASSES[class_name]
    if f"{sd3.DIFFUSERS.patch}.weight" in names:
        return "sd3"
    if "projectors.0.0.weight" in names:
        return "repa"
    if any(name.startswith("blocks.0.adaLN_modulation") for name in names):
        raise UserError(
            f"{tensors.source} has the tensors that DiT, SiT and REPA share, but these disagree on the direction of "
            "time: choose the layout dit, sit or repa"
        )
    raise UserError(f"{tensors.source} has no layout that rfjax knows ({', '.join(LAYOUTS)}): {compare(names)}")


def compare(names: Collection[str]) -> str:
    """A sentence about a checkpoint's tensors and the layout that is nearest to them.

    A star stands in place of each block's number. Names that begin with a wrapper are also compared without it.
    """
    if not names:
        return "it has no tensors"
    some = ", ".join(map(one_line, sorted(names)[:SHOWN])) + (" ..." if len(names) > SHOWN else "")
    summary = f"it has {len(names)} tensors ({some})"
    shares = []
    for wrapper in ("", *WRAPPERS):
        bare = {_starred(name.removeprefix(wrapper)) for name in names if name.startswith(wrapper)}
        for layout in LAYOUTS:
            wanted = _expected(layout)
            shares.append((len(wanted & bare) / len(wanted), layout, wrapper, sorted(wanted - bare)))
    share, layout, wrapper, lacking = max(shares, key=lambda match: match[0])
    if not share:
        return f"{summary}, and none of these layouts has such names"
    behind = f" after the prefix '{wrapper}'" if wrapper else ""
    lacks = f"; it lacks {len(lacking)}, such as {', '.join(lacking[:SHOWN])}" if lacking else ""
    return f"{summary}; nearest is {layout}, of which it has {share:.0%} of the kinds of tensors{behind}{lacks}"


def _starred(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", name)


@functools.cache
def _expected(layout: str) -> frozenset[str]:
    """The kinds of tensors of a layout's smallest network."""
    model = {"depth": 2, "width": 8, "heads": 2, "patch": 2}
    model |= {"frequency_shift": 1} if layout == "dit-folder" else {"stored_positions": 2}
    model |= {"projectors": (4,), "projector_width": 4} if layout == "repa" else {}
    if layout in ("sd3", "sd3-file"):
        config = sd3.make_config(4, 4, (8, 8), model)
    else:
        config = dit.make_config(layout.removesuffix("-folder"), (4, 4), 2, model)
    spec = make_run_spec(config)
    return frozenset(map(_starred, manifest(LAYOUTS[layout].layout(spec.model, spec.inputs, config))))
