"""The job `evaluate` of an autoencoder: its reconstructions of validation pictures beside the pictures themselves.

PSNR, SSIM and LPIPS of each pair; rFID and other distances of the two sets (SD3, Table 3). The originals are the
reference of these, and not the training data.
"""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from rfjax.config import Config
from rfjax.encoders import Codec, make_codec
from rfjax.encoders.embedding import lpips
from rfjax.encoders.parts import in_parts
from rfjax.errors import UserError
from rfjax.evaluation import picture_sets
from rfjax.evaluation.metrics import OWN, make_metrics
from rfjax.evaluation.picture_sets import SourceSet
from rfjax.evaluation.quantity import Quantity
from rfjax.evaluation.sampler import jit_decode
from rfjax.evaluation.statistics import means
from rfjax.evaluation.statistics import pictures as pixels
from rfjax.evaluation.validation import gather
from rfjax.study.evaluate_sets import Measured, measure, summary
from rfjax.study.folder import Session, prepare_folder
from rfjax.study.jobs import Job, Task
from rfjax.study.reports.evaluate import RESULT, SETS
from rfjax.training import mesh as meshes
from rfjax.training.encode import place_weights
from rfjax.training.log import Display
from rfjax.training.stop import Interrupted, Stop
from rfjax.untrusted import Unreadable, read_json

NAME, SPLIT = "reconstructions", "validation"
PSNR = Quantity("psnr", "PSNR, dB", "higher", error="psnr_stderr")
SSIM = Quantity("ssim", "SSIM", "higher", error="ssim_stderr")
LPIPS = Quantity("lpips", "LPIPS", "lower", error="lpips_stderr")


def make_job(config: Config, session: Session) -> Job:
    """One set: the reconstructions of the first `generate.count` validation pictures.

    Raises:
        UserError: if there is no autoencoder, or the data have no pictures.
    """
    if not config.autoencoder.path:
        raise UserError("config.evaluate.source = 'autoencoder' needs config.autoencoder.path, which names its folder")
    pictures = picture_sets.open_split(config.data, SPLIT, config.generate.count)
    codec = make_codec(config)
    trouble = prepare_folder(config, [])
    folder = Path(config.workdir) / SETS / NAME
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    batches = -(-len(pictures) // config.generate.batch)
    evaluation = Evaluation(config, codec, pictures, folder)
    task = Task(NAME, folder, batches, 1, evaluation.complete, evaluation.run, summary)
    return Job(config, [task], session, batches, warnings=[*filter(None, [trouble])])


@dataclass(frozen=True)
class Evaluation:
    """Pictures to reconstruct and to measure.

    Attributes:
        config: of the job.
        codec: of the autoencoder.
        originals: the pictures.
        folder: of the set.
    """

    config: Config
    codec: Codec
    originals: SourceSet
    folder: Path

    def complete(self) -> bool:
        """Whether the numbers are there, of as many pictures as are asked for; others are measured anew."""
        try:
            return (read_json(self.folder / RESULT) or {}).get("count") == len(self.originals)
        except Unreadable:
            return False

    def run(self, display: Display, stop: Stop) -> dict[str, Any]:
        """Reconstructs and measures, and writes the numbers."""
        config, codec = self.config, self.codec
        mesh, began = meshes.make_mesh(config.mesh), time.monotonic()

        def place(values: Any) -> jax.Array:
            if stop.granted():
                raise Interrupted("stopped while measuring reconstructions", stop.code)
            return meshes.place(values, mesh)

        names = tuple(name for name in config.sampling.metrics if name != OWN)
        own = replace(config.evaluate, reference=SPLIT, reference_count=len(self.originals))
        metrics = make_metrics(replace(config, evaluate=own, sampling=replace(config.sampling, metrics=names)))
        weights, pairs = place_weights(codec.weights(), mesh), Pairs.make(config)
        made = Reconstructions(codec, self.originals, weights, place, pairs)
        found = measure(metrics, made, config, place, display)
        found.add(*pairs.result())
        about = {"source": config.autoencoder.path, "data": self.originals.name}
        about["rounding"] = getattr(codec, "rounding", "")
        seconds = {"metrics": time.monotonic() - began}
        result = Measured(NAME, about, {}, len(self.originals), found).write(self.folder, seconds)
        return result | {"split_seconds": seconds}


@dataclass
class Pairs:
    """Measures of each reconstruction and its original.

    Attributes:
        network: LPIPS, where the config names its files, jitted with its weights.
        values: key -> of each picture so far.
    """

    network: tuple[lpips.Lpips, Callable[[Any, Any], jax.Array]] | None
    values: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @classmethod
    def make(cls, config: Config) -> "Pairs":
        """With LPIPS if `config.evaluate.lpips` names its files."""
        if not config.evaluate.lpips:
            return cls(None)
        network = lpips.make(config)
        return cls((network, jax.jit(functools.partial(network.distance, jax.device_put(network.weights())))))

    def add(self, images: UInt8[np.ndarray, "b H W C"], originals: UInt8[np.ndarray, "b H W C"]) -> None:
        """Measures a batch."""
        found = {"psnr": pixels.psnr(images, originals), "ssim": pixels.ssim(images, originals)}
        if self.network:
            found["lpips"] = np.asarray(self.network[1](jnp.asarray(images), jnp.asarray(originals)))
        for key, values in found.items():
            self.values.setdefault(key, []).append(values)

    def result(self) -> tuple[list[Quantity], dict[str, Any]]:
        """The quantities, and their means over pictures with standard errors and protocols."""
        quantities = [one for one in (PSNR, SSIM, LPIPS) if one.key in self.values]
        found: dict[str, Any] = {"protocols": {}}
        for one in quantities:
            mean = means.mean_of(np.concatenate(self.values[one.key]))
            found |= {one.key: mean.value, one.error: mean.stderr}
            plain = {"images": "uint8, a mean over pictures"}
            found["protocols"][one.key] = self.network[0].about() if one is LPIPS and self.network else plain
        return quantities, found


@dataclass(frozen=True)
class Reconstructions:
    """A `PictureSet`: what an autoencoder makes of pictures; each batch is measured beside its originals on the way.

    Attributes:
        weights: of the codec, placed.
        place: puts rows on the devices.
        pairs: takes what each picture's pair measures.
    """

    codec: Codec
    originals: SourceSet
    weights: Any
    place: Callable[[Any], jax.Array]
    pairs: Pairs
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"reconstructions of {self.originals.name}"

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.originals.shape

    @property
    def captioned(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self.originals)

    def batches(self, size: int) -> Iterator[tuple[UInt8[np.ndarray, "B H W C"], list[str]]]:
        encode = jax.jit(in_parts(self.codec.encode, getattr(self.codec, "at_once", 0)))
        first = 0
        for images, captions in self.originals.batches(size):
            whole = np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])
            prepared = self.codec.prepare({"image": whole}, captions)
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(first, first + size))
            z = encode(self.weights, {name: self.place(rows) for name, rows in prepared.items()}, keys)
            made = gather(jit_decode(self.codec)(self.weights, z))[: len(images)]
            self.pairs.add(made, images)
            first += size
            yield made, captions
