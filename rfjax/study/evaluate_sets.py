"""Measures a set of pictures, and writes what was found: WORKDIR/sets/NAME/metrics.json and its first pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.evaluation import montage
from rfjax.evaluation.metrics import Metric
from rfjax.evaluation.metrics.embedded import EmbeddedMetric
from rfjax.evaluation.picture_sets import PictureSet
from rfjax.evaluation.quantity import Quantity
from rfjax.jsonl import plain, write_json
from rfjax.study.reports.evaluate import RESULT, SHOWN
from rfjax.training.log import Display
from rfjax.training.processes import check_ours

COLUMNS = 8  # of the pictures that the report shows


@dataclass
class Found:
    """What metrics found in a set.

    Attributes:
        scores: by key.
        quantities: which of them reports show.
        protocols: key -> how the number was made, in plain texts.
        notes: sentences that a page must show beside the numbers.
        images: the first pictures. captions: of these.
    """

    scores: dict[str, Any] = field(default_factory=dict)
    quantities: list[Quantity] = field(default_factory=list)
    protocols: dict[str, Mapping[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    images: list[UInt8[np.ndarray, "n H W C"]] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def add(self, quantities: Sequence[Quantity], values: dict[str, Any]) -> None:
        """Takes in the result of a metric."""
        self.quantities += quantities
        self.protocols |= values.pop("protocols", {})
        self.notes += values.pop("notes", [])
        self.scores |= values

    def keep(self, images: UInt8[np.ndarray, "b H W C"], captions: Sequence[str], most: int) -> None:
        """Keeps pictures of a batch until there are `most`."""
        room = most - len(self.captions)
        if room > 0:
            self.images.append(images[:room])
            self.captions += captions[:room]


@dataclass(frozen=True)
class Measured:
    """A set of pictures that was measured.

    Attributes:
        about: what the pictures depend on. model: the section `model` of the config of what drew them, or empty.
        count: of the pictures.
    """

    name: str
    about: Mapping[str, Any]
    model: Mapping[str, Any]
    count: int
    found: Found

    def write(self, folder: Path, seconds: Mapping[str, float]) -> dict[str, Any]:
        """Writes metrics.json and the first pictures, on process 0; returns what is in it.

        Raises:
            FolderTaken: if another job has the set by now.
        """
        found = self.found
        result = {
            "name": self.name,
            "about": self.about,
            "model": self.model,
            "count": self.count,
            "scores": found.scores,
            "quantities": [one.to_plain() for one in found.quantities],
            "protocols": found.protocols,
            "notes": found.notes,
            "captions": found.captions,
            "seconds": seconds,
        }
        check_ours(folder)
        if jax.process_index() == 0:
            if found.images:
                montage.save(folder, SHOWN, np.concatenate(found.images), found.captions, COLUMNS)
            write_json(folder / RESULT, plain(result))
        return result


def measure(
    metrics: Sequence[Metric],
    pictures: PictureSet,
    config: Config,
    place: Callable[[np.ndarray], jax.Array],
    display: Display,
) -> Found:
    """What metrics find in a set.

    Args:
        config: of the job, for the size of a batch and how many pictures to keep.
        place: puts rows on the devices.
        display: is told the progress.

    Raises:
        UserError: for pictures that a metric is not for.
    """
    for metric in metrics:
        if isinstance(metric, EmbeddedMetric) and metric.reads_captions and not pictures.captioned:
            raise UserError(
                f"{pictures.name} says not what its pictures show, and {metric.opened.embedder.name} compares each "
                "with its caption: write NAME.txt beside each NAME.png, or the member captions into the archive, or "
                "name the classes of its labels in config.evaluate.classes_file"
            )
    size = min(config.generate.batch, len(pictures))
    found, states, done = Found(), [metric.init() for metric in metrics], 0
    found.notes += pictures.notes
    for images, captions in pictures.batches(size):
        found.keep(images, captions, config.sampling.shown)
        placed = place(images) if len(images) == size else images
        states = [metric.update(state, placed, captions) for metric, state in zip(metrics, states, strict=True)]
        done += len(images)
        display.say(f"measured {done:,} of {len(pictures):,} pictures")
    display.say("comparing with the reference")
    for metric, state in zip(metrics, states, strict=True):
        found.add(metric.quantities, metric.result(state))
    return found


def summary(result: dict[str, Any], seconds: float) -> str:
    """What the terminal shows of a set."""
    scores = result["scores"]
    said = [f"{one['label']} {scores[one['key']]:.4g}" for one in result["quantities"] if one["key"] in scores]
    return f"{result['name']}: {', '.join(said)} ({result['count']:,} pictures, {seconds:.0f} s)"
