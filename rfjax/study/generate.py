"""The job `generate`: makes a captioned montage with one model, a run's or another project's."""

import errno
import functools
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from rfjax import config as configs
from rfjax import data, files
from rfjax.config import Config
from rfjax.config.paths import expanded
from rfjax.errors import UserError
from rfjax.evaluation import generation
from rfjax.evaluation.generation import Generated, Prompts
from rfjax.evaluation.metrics import Metric, make_metrics
from rfjax.evaluation.sampler import Sampleable, SamplerSettings, decodes_apart, make_settings
from rfjax.jsonl import write_json
from rfjax.study import offload, pictures
from rfjax.study.encodings import read_encodings
from rfjax.study.folder import Session, describe_environment
from rfjax.study.jobs import Job, Task
from rfjax.study.model_source import Found, check_guided, find_model, label_of
from rfjax.study.offload import Parts
from rfjax.training import mesh as meshes
from rfjax.training.context import check_shapes
from rfjax.training.encode import EncodeStage, place_weights
from rfjax.training.log import Display
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.weights import Weights

Watch = tuple[Display, Stop]  # what shows the progress, and what may end it


def make_job(config: Config, started: float) -> Job:
    """Finds the model and the prompts of `config.generate`; the job makes the pictures in `config.workdir`.

    Three files are named after model and settings: the montage (.png), the pictures as generated (.npz: uint8 pixels,
    or float32 latents) and all about them (.json). The same command writes the same files again. NaN fails the job.

    Args:
        config: of the job.
        started: `time.time()` at the start of the process.

    Raises:
        UserError: for what the user can mend, before anything is compiled.
    """
    config = preset_applied(config)
    request, folder = config.generate, Path(config.workdir)
    encoded = read_encodings(expanded(request.encodings, "config.generate.encodings")) if request.encodings else None
    found = find_model(config)
    shape = found.size(request)
    check_guided(config, shape[-1])
    prompts = find_prompts(request, encoded, found)
    prepare_folder(folder)
    label, count = label_of(Path(request.source)), len(prompts.texts)
    # Scores are for a data set's own captions at its own size, and a Fréchet distance needs two pictures.
    own = prompts.true is not None and count > 1 and shape == found.spec.codec.shape
    metrics = make_metrics(found.config) if own else ()
    gallery = Gallery(config, found, shape, prompts, label, metrics)
    rounds = -(-count // min(request.batch, count))
    task = Task(label, folder, rounds, 1, lambda: False, gallery.make, gallery.summary)
    return Job(config, [task], Session(started), rounds, shared=False)


def preset_applied(config: Config) -> Config:
    """The config with the steps and the sampler of `config.generate.preset` in place of its own."""
    if not (preset := config.generate.preset):
        return config
    steps = configs.PRESETS[preset].steps
    sampling = configs.with_preset(config.sampling, preset)
    return replace(config, sampling=sampling, generate=replace(config.generate, steps=steps))


@dataclass(frozen=True)
class Gallery:
    """Pictures to make.

    Attributes:
        config: of the job.
        found: the model, of which no weight is read yet.
        shape: of z.
        prompts: what to show.
        label: a short name of the model.
        metrics: of the pictures.
    """

    config: Config
    found: Found
    shape: tuple[int, ...]
    prompts: Prompts
    label: str
    metrics: tuple[Metric, ...]

    @property
    def batch(self) -> int:
        """Pictures at once."""
        return min(self.config.generate.batch, len(self.prompts.texts))

    def make(self, display: Display, stop: Stop) -> dict[str, Any]:
        """Generates the pictures and writes the files; `stop` ends it at the next Ctrl-C."""
        request, count, began, parts = (
            self.config.generate,
            len(self.prompts.texts),
            time.monotonic(),
            Parts(display.say),
        )
        one = configs.Setting(request.steps, request.guidance)
        settings = make_settings(self.config.sampling, one, seed=request.seed)
        model, made = (self._apart if request.offload else self._together)(settings, parts, (display, stop))
        seconds = time.monotonic() - began
        record, about = generation.record(made, count, settings, self.metrics), describe(self, model)
        path = pictures.free_name(
            Path(self.config.workdir), f"{self.label}_{settings.sampler}_{one.name}_seed{request.seed}", about
        )
        record = {key: value for key, value in record.items() if key not in about}
        if jax.process_index() == 0:
            pictures.write(path, made, self.prompts.texts, request, f"{self.label}: {pictures.sentence(about)}")
            plain = {"settings": about, "found": record, "parts": parts.found, "seconds": seconds}
            write_json(path.with_suffix(".json"), plain | describe_environment())
        split = {"samples": seconds}
        return {"path": path, "about": about, **record, "parts": parts.lines(), "split_seconds": split}

    def _together(self, settings: SamplerSettings, parts: Parts, watch: Watch) -> tuple[Weights, Generated]:
        """All networks are on the devices together."""
        mesh, encoders = meshes.make_mesh(self.config.mesh), self.found.spec.encoders
        names = ("autoencoder", "text", *(one.name for one in encoders[2:]))
        weights = [
            parts.read(name, functools.partial(place_weights, one.weights(), mesh))
            for name, one in zip(names, encoders, strict=True)
        ]
        stage, model = EncodeStage(encoders, tuple(weights)), self._load(parts)
        with parts.running("network"):
            made = self._generate(model.sampleable(stage, self.shape), self.prompts, stage.condition, settings, watch)
        return model, made

    def _apart(self, settings: SamplerSettings, parts: Parts, watch: Watch) -> tuple[Weights, Generated]:
        """One network is on the devices at a time."""
        mesh, encoders = meshes.make_mesh(self.config.mesh), self.found.spec.encoders
        encoded = offload.encode_prompts(encoders[1], self.prompts, self.batch, mesh, parts)
        model = self._load(parts)
        nothing = EncodeStage(encoders, ((),) * len(encoders))
        network = offload.without_decoder(model.sampleable(nothing, self.shape))
        with parts.running("network"):
            made = self._generate(network, encoded.prompts, encoded.condition, settings, watch)
        model = replace(model, params=())
        if decodes_apart(codec := encoders[0]):
            del network
            codec = replace(codec, shape=self.shape)
            images = offload.decode(codec, made.z, self.batch, mesh, parts)
            scores = {} if made.broken else generation.score(self.metrics, images, self.prompts.texts, self.batch)
            made = replace(made, images=images, scores=scores)
        return model, made

    def _load(self, parts: Parts) -> Weights:
        loaded: list[Weights] = []

        def load() -> Any:
            loaded.append(self.found.load())
            return loaded[0].params

        parts.read("network", load)
        return loaded[0]

    def _generate(
        self,
        network: Sampleable,
        prompts: Prompts,
        condition: Callable[[dict[str, Any]], Any],
        settings: SamplerSettings,
        watch: Watch,
    ) -> Generated:
        count, (display, stop), mesh = len(prompts.texts), watch, meshes.make_mesh(self.config.mesh)

        def place(values: Any) -> jax.Array:
            if stop.granted():
                raise Interrupted("stopped while drawing", stop.code)
            return meshes.place(values, mesh)

        return generation.generate(
            network,
            prompts,
            settings,
            self.batch,
            encode=condition,
            place=place,
            metrics=self.metrics if network.codec.pictures else (),
            keep=count,
            tell=lambda done: display.advance(-(-done // self.batch), f"{done} of {count} pictures"),
        )

    def summary(self, result: dict[str, Any], seconds: float) -> str:
        about = result["about"]
        lines = [
            f"{self.label}: {pictures.sentence(about)}",
            *result["parts"],
            *filter(None, [cuts.sentence() if (cuts := getattr(self.found.spec.text, "cuts", None)) else ""]),
            f"{about['count']} drawn in {seconds:.1f} s: {result['path']}, .npz and .json",
        ]
        if not self.found.spec.codec.pictures:
            lines.append(
                f"latents of {about['image'][-1]} channels have no decoder here, for config.autoencoder.path names "
                "none: the grid shows their first three principal components as colours, the .npz file has their values"
            )
        quantities = [one for metric in self.metrics for one in metric.quantities if result.get(one.key) is not None]
        found = [
            f"{one.label} {result[one.key]:.3f}" + (f" ± {result[one.error]:.3f}" if one.error in result else "")
            for one in quantities
        ]
        if found:
            lines.append(f"{', '.join(found)} ({about['count']} pictures: compare equal counts only)")
        if result.get("problem"):
            lines.append(f"{result['problem']}: nothing is scored, and values that are not finite are shown as 0")
        return "\n".join(lines)


def prepare_folder(folder: Path) -> None:
    """Makes the folder of the pictures, now that all that could be refused is known to be fine.

    Raises:
        UserError: if it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.clean(folder)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except OSError as error:
        raise UserError(f"the folder {folder} can't be written ({error.strerror}): set config.workdir") from error


def find_prompts(request: configs.Generate, encoded: Prompts | None, model: Found) -> Prompts:
    """What to generate: the encodings of a file, the prompts, or the first captions of the run's validation data.

    Raises:
        UserError: if they don't fit the model, or can't be had.
    """
    cond, text = model.spec.inputs.cond, model.spec.text
    if encoded:
        length = encoded.arrays["context"].shape[1]
        if model.config.model.backbone == "mmdit3":  # others take any number of text tokens
            length = cond.context.shape[0]
        for name, wanted in (("context", (length, cond.context.shape[1])), ("pooled", cond.pooled.shape)):
            found, n = encoded.arrays[name].shape[1:], len(encoded.texts)
            if found != wanted:
                raise UserError(
                    f"config.generate.encodings = {request.encodings}: expected {name} of shape {(n, *wanted)} for "
                    f"this model, found {(n, *found)}"
                )
        return encoded
    if request.prompts:
        return Prompts(request.prompts, text.prompts(request.prompts))
    try:
        source = data.open_source(model.config.data, "validation")
        check_shapes(source, model.spec)
        return generation.first_prompts(source, model.spec.encoders, request.count)
    except UserError as error:
        stored = model.config.text.encoder == "stored"
        raise UserError(
            f"give config.generate.{'encodings' if stored else 'prompts'}: the model's own data has no captions to "
            f"offer: {error}"
        ) from error


def describe(gallery: Gallery, model: Weights) -> dict[str, Any]:
    """All that the pictures depend on, as plain values."""
    arrays, texts = gallery.prompts.arrays, gallery.prompts.texts
    return pictures.describe_sampling(gallery.config, model, gallery.shape) | {
        "count": len(texts),
        "captions": list(texts),
        "text": hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()[:16],
    }
