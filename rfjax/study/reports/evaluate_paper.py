"""Published numbers and the protocols that they were measured by, to stand beside those of the job `evaluate`.

A number stands beside ours only with what differs between the two protocols, in words; nothing there means none does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rfjax.study.reports.paper import SOURCE as SD3
from rfjax.study.reports.paper import TABLE_2
from rfjax.study.reports.repa_paper import SOURCE as REPA

ADM = "inception@adm"
SIZES = {(12, 768): "SiT-B/2", (24, 1024): "SiT-L/2", (28, 1152): "SiT-XL/2"}  # (depth, width)
KEYS = ("fid", "sfid", "inception_score", "precision", "recall")
# REPA, Table 8: (model, aligned, training steps) -> FID, sFID, IS, precision, recall, without guidance.
TABLE_8 = {
    ("SiT-B/2", False, 400_000): (33.0, 6.46, 43.7, 0.53, 0.63),
    ("SiT-B/2", True, 400_000): (24.4, 6.40, 59.9, 0.59, 0.65),
    ("SiT-L/2", False, 400_000): (18.8, 5.29, 72.0, 0.64, 0.64),
    ("SiT-L/2", True, 400_000): (10.0, 5.20, 109.2, 0.69, 0.65),
    ("SiT-XL/2", False, 400_000): (17.2, 5.07, 76.5, 0.65, 0.63),
    ("SiT-XL/2", False, 7_000_000): (8.3, 6.32, 131.7, 0.68, 0.67),
    ("SiT-XL/2", True, 400_000): (7.9, 5.06, 122.6, 0.70, 0.65),
    ("SiT-XL/2", True, 4_000_000): (5.9, 5.73, 157.8, 0.70, 0.69),
}
REFERENCE = "VIRTUAL_imagenet256_labeled"  # ADM's statistics of the whole training data


class Protocol(NamedTuple):
    """How a number was measured; "" or 0 where it is not known.

    Attributes:
        network: the embedder's name. pictures: how many. reference: what they were compared with.
        sampler: with its steps. guidance: its scale. training: steps of training. model: what drew them.
    """

    network: str
    pictures: int
    reference: str
    sampler: str
    guidance: float
    training: int
    model: str


@dataclass(frozen=True)
class Published:
    """A number of a paper.

    Attributes:
        source: the paper and its table.
    """

    source: str
    key: str
    value: float
    protocol: Protocol


def own(record: Mapping[str, Any], key: str) -> Protocol:
    """The protocol of one of our numbers.

    Args:
        record: a set's metrics.json.
        key: of the number.
    """
    about, made = record["about"], record["protocols"].get(key, {})
    network, sampler = str(made.get("embedder", "")), about.get("sampler", "")
    return Protocol(
        network=network.split("-", maxsplit=1)[0] + network[network.find("@") :]
        if network.startswith("clip")
        else network,
        pictures=int(record["count"]),
        reference=str(made.get("reference", "")),
        sampler=f"{sampler}, {about.get('steps')} steps" if sampler else "",
        guidance=float(about.get("guidance", 0)),
        training=int(about.get("step", 0)),
        model=model_of(record),
    )


def model_of(record: Mapping[str, Any]) -> str:
    """The name that a paper has for the model, "" if none has it."""
    model = record["model"]
    if model.get("backbone") == "sit":
        name = SIZES.get((model.get("depth"), model.get("width")), "")
        return name and name + (" + REPA" if record["about"].get("aligned") else "")
    return ""


def published(record: Mapping[str, Any], key: str) -> Iterator[Published]:
    """What papers have for this number of such a model: of the same training where they have it, else all."""
    name, step = model_of(record), int(record["about"].get("step", 0))
    found = [
        Published(
            f"{REPA}, Table 8",
            key,
            values[KEYS.index(key)],
            Protocol(ADM, 50_000, REFERENCE, "euler_maruyama, 250 steps", 1.0, training, model + " + REPA" * aligned),
        )
        for (model, aligned, training), values in TABLE_8.items()
        if key in KEYS and model + " + REPA" * aligned == name
    ]
    same = [one for one in found if one.protocol.training == step]
    yield from same or found
    row = TABLE_2.get(record["about"].get("formulation", ""))
    if row and key in ("clip_score", "clip_fid"):
        for data, clip, fid in (
            ("ImageNet", row.imagenet_clip, row.imagenet_fid),
            ("CC12M", row.cc12m_clip, row.cc12m_fid),
        ):
            protocol = Protocol(
                "clip", 1000, "COCO-2014 validation", "euler, 25 steps", 5.0, 0, f"depth 24, trained on {data}"
            )
            yield Published(f"{SD3}, Table 2", key, clip if key == "clip_score" else fid, protocol)


def differences(ours: Protocol, theirs: Protocol) -> list[str]:
    """What differs between two protocols, in words; a thing that the paper does not state counts as the same."""
    found = []
    if theirs.network and not ours.network.startswith(theirs.network):
        found.append(f"network {ours.network}, not {theirs.network}")
    if theirs.pictures and ours.pictures != theirs.pictures:
        found.append(f"{ours.pictures:,} pictures, not {theirs.pictures:,}")
    if theirs.reference and theirs.reference not in ours.reference:
        found.append(f"reference {ours.reference or 'none'}, not {theirs.reference}")
    if theirs.sampler and ours.sampler != theirs.sampler:
        found.append(f"sampler {ours.sampler or 'unknown'}, not {theirs.sampler}")
    if theirs.guidance and ours.guidance != theirs.guidance:
        found.append(f"guidance {ours.guidance:g}, not {theirs.guidance:g}")
    if theirs.training and ours.training != theirs.training:
        found.append(f"{ours.training or 'unknown'} training steps, not {theirs.training:,}")
    if theirs.model and ours.model != theirs.model:
        found.append(f"another model ({theirs.model})")
    return found


def rows(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, float, Published, list[str]]]:
    """(set, label, our value, published, differences) of every number that a paper has, too."""
    for record in records:
        for quantity in record["quantities"]:
            key = quantity["key"]
            value = record["scores"].get(key)
            if isinstance(value, int | float):
                for one in published(record, key):
                    ours = own(record, key)
                    yield record["name"], quantity["label"], value, one, differences(ours, one.protocol)
