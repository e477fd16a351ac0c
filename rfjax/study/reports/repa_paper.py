"""The published numbers of REPA (Yu et al. 2025, arXiv 2410.06940) that reports stand beside: FID without guidance."""

from collections.abc import Mapping
from typing import Any

SOURCE = "Yu et al. 2025, arXiv 2410.06940"
# Table 3: model -> (vanilla, REPA) at 400,000 steps.
TABLE_3 = {
    "SiT-B/2": (33.0, 24.4),
    "SiT-L/2": (18.8, 9.7),
    "SiT-XL/2": (17.2, 7.9),
    "DiT-L/2": (23.3, 15.6),
    "DiT-XL/2": (19.5, 12.3),
}
SPEED_UP = 17.5  # SiT-XL/2: 7,000,000 vanilla steps (FID 8.3) over 400,000 with REPA (7.9)
DEPTH = 24  # blocks of SiT-L/2, in which the depth of the alignment was varied
NONE = "vanilla"
TABLES: dict[str, dict[str, float]] = {  # its first word is what varies
    "block (Table 2, SiT-L/2, DINOv2-L)": {
        NONE: 18.8, "6/24": 10.3, "8/24": 10.0, "10/24": 10.5, "12/24": 11.2, "14/24": 11.6, "16/24": 12.1,
    },
    "weight (SiT-XL/2)": {NONE: 17.2, "0.25": 8.6, "0.5": 7.9, "0.75": 7.8, "1": 7.8},
    "encoder (Table 2, SiT-L/2)": {
        NONE: 18.8, "mae-l": 12.5, "mocov3-l": 11.9, "ijepa-h": 11.6, "clip-l": 11.0, "siglip-l": 10.2,
        "dinov2-l": 10.0, "dinov2-b": 9.7, "dinov2-g": 9.8,
    },
    "objective (Table 2, SiT-L/2)": {NONE: 18.8, "nt-xent": 10.0, "cosine": 9.9},
}  # fmt: skip
ENCODERS = {  # a part of the folder's name -> row
    "mae-large": "mae-l", "moco": "mocov3-l", "ijepa": "ijepa-h", "clip-vit-large": "clip-l",
    "siglip-large": "siglip-l", "dinov2-large": "dinov2-l", "dinov2-base": "dinov2-b", "dinov2-giant": "dinov2-g",
}  # fmt: skip


def setting_of(table: str) -> str:
    """The key of the section `alignment` that a table varies."""
    kind = table.split(" ", maxsplit=1)[0]
    return {"encoder": "encoders", "objective": "loss"}.get(kind, kind)


def row_of(table: str, settings: Mapping[str, Any], depth: int) -> str:
    """The row of a table that a run's alignment stands beside; "" without one.

    A block counts by its share of the depth, as a fraction of the paper's 24.

    Args:
        table: a name of TABLES.
        settings: the run's section `alignment`.
        depth: of the run's network.
    """
    if not settings["encoders"] or not settings["weight"]:
        return NONE
    kind = table.split(" ", maxsplit=1)[0]
    if kind == "block":
        block = settings["block"] or max(1, round(depth / 3))
        return f"{block * DEPTH // depth}/{DEPTH}" if block * DEPTH % depth == 0 else ""
    if kind == "weight":
        return f"{settings['weight']:g}"
    if kind == "objective":
        return settings["loss"]
    (first, *more) = settings["encoders"]
    return next((row for part, row in ENCODERS.items() if part in first.lower()), "") if not more else ""
