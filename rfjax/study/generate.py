"""The job `generate`: makes a captioned montage with one model, a run's or another project's."""

import errno
import hashlib
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax import config as configs
from rfjax import data, files, names
from rfjax.buckets import is_address
from rfjax.config import Config
from rfjax.config.paths import expanded
from rfjax.errors import UserError
from rfjax.evaluation import generation, montage
from rfjax.evaluation.generation import Prompts
from rfjax.evaluation.metrics import Metric, make_metrics
from rfjax.evaluation.sampler import Sampleable, make_settings
from rfjax.jsonl import write_json
from rfjax.study.encodings import read_encodings
from rfjax.study.folder import Session, describe_environment
from rfjax.study.jobs import Job, Task
from rfjax.study.model_source import label_of, open_network
from rfjax.training import mesh as meshes
from rfjax.training.context import check_shapes
from rfjax.training.encode import EncodeStage
from rfjax.training.log import Display
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.weights import Weights
from rfjax.untrusted import Unreadable, read_json

LARGEST_TILE = 512  # pixels for a picture's longer side in the grid; the .npz file has them all


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
    model, stage, network = open_network(config)
    prompts = find_prompts(request, encoded, model)
    prepare_folder(folder)
    label, count = label_of(Path(request.source)), len(prompts.texts)
    # Scores are for a data set's own captions at its own size, and a Fréchet distance needs two pictures.
    own = prompts.true is not None and count > 1 and network.codec == model.spec.codec
    metrics = make_metrics(model.config) if own else ()
    gallery = Gallery(config, model, network, prompts, stage, label, metrics)
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
        model: the weights and the run that they are of.
        network: the same, at the size of the pictures.
        prompts: what to show.
        stage: the encoders.
        label: a short name of the model.
        metrics: of the pictures.
    """

    config: Config
    model: Weights
    network: Sampleable
    prompts: Prompts
    stage: EncodeStage
    label: str
    metrics: tuple[Metric, ...]

    def make(self, display: Display, stop: Stop) -> dict[str, Any]:
        """Generates the pictures and writes the files; `stop` ends it at the next Ctrl-C."""
        request, count, began = self.config.generate, len(self.prompts.texts), time.monotonic()
        one, batch = configs.Setting(request.steps, request.guidance), min(request.batch, len(self.prompts.texts))
        settings = make_settings(self.config.sampling, one, seed=request.seed)
        mesh = meshes.make_mesh(self.config.mesh)

        def place(values: Any) -> jax.Array:
            if stop.granted():
                raise Interrupted("stopped while drawing", stop.code)
            return meshes.place(values, mesh)

        display.say("compiling the sampler and drawing")
        made = generation.generate(
            self.network,
            self.prompts,
            settings,
            batch,
            encode=self.stage.condition,
            place=place,
            metrics=self.metrics,
            keep=count,
            tell=lambda done: display.advance(-(-done // batch), f"{done} of {count} pictures"),
        )
        seconds, found = time.monotonic() - began, generation.record(made, count, settings, self.metrics)
        about, name = describe(self), f"{self.label}_{settings.sampler}_{one.name}_seed{request.seed}"
        path = free_name(Path(self.config.workdir), name, about)
        found = {key: value for key, value in found.items() if key not in about}
        if jax.process_index() == 0:
            _write(path, self, made, f"{self.label}: {_sentence(about)}")
            record = {"settings": about, "found": found, "seconds": seconds, **describe_environment()}
            write_json(path.with_suffix(".json"), record)
        return {"path": path, "about": about, **found, "split_seconds": {"samples": seconds}}

    def summary(self, result: dict[str, Any], seconds: float) -> str:
        about = result["about"]
        lines = [
            f"{self.label}: {_sentence(about)}",
            f"{about['count']} drawn in {seconds:.1f} s: {result['path']}, .npz and .json",
        ]
        if not self.network.codec.pictures:
            lines.append(
                f"latents of {about['image'][-1]} channels have no decoder here: the grid shows their first three "
                "principal components as colours, the .npz file has their values"
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


def find_prompts(request: configs.Generate, encoded: Prompts | None, model: Weights) -> Prompts:
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


def describe(gallery: Gallery) -> dict[str, Any]:
    """All that the pictures depend on, as plain values."""
    arrays, texts = gallery.prompts.arrays, gallery.prompts.texts
    return describe_sampling(gallery.config, gallery.model, gallery.network) | {
        "count": len(texts),
        "captions": list(texts),
        "text": hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()[:16],
    }


def describe_sampling(config: Config, model: Weights, network: Sampleable) -> dict[str, Any]:
    """What pictures depend on besides what they show, as plain values."""
    request, sampling, shape = config.generate, config.sampling, network.codec.shape
    return {
        "source": request.source if is_address(request.source) else str(Path(request.source).resolve()),
        "layout": request.layout,
        "weights": request.weights,
        "step": model.step,
        "backbone": model.config.model.backbone,
        "formulation": model.config.flow.formulation,
        "image": list(shape),
        "sampler": sampling.sampler,
        "steps": request.steps,
        "guidance": request.guidance,
        "guidance_interval": [sampling.guidance_low, sampling.guidance_high],
        "guidance_channels": sampling.guidance_channels or shape[-1],
        "grid": names.schedule_of(sampling.schedule, network.formulation.name),
        "shift": sampling.shift,
        "diffusion": sampling.diffusion if sampling.sampler == "euler_maruyama" else None,
        "seed": request.seed,
    }


def _sentence(settings: dict[str, Any]) -> str:
    """The settings in a line, the usual ones left out."""
    low, high = settings["guidance_interval"]
    channels, every = settings["guidance_channels"], settings["image"][-1]
    parts = [
        settings["formulation"],
        f"{settings['weights']} weights of step {settings['step']}" if settings["step"] else "imported weights",
        f"{settings['sampler']}, {settings['steps']} steps",
        f"noise {settings['diffusion']}" if settings["diffusion"] else "",
        f"times {settings['grid']}" if settings["grid"] != "uniform" else "",
        f"shift {settings['shift']:g}" if settings["shift"] != 1 else "",
        f"guidance {settings['guidance']:g}" + (f" for t in [{low:g}, {high:g}]" if (low, high) != (0, 1) else ""),
        f"on {channels} of {every} channels" if channels < every else "",
        f"seed {settings['seed']}",
        "{} x {} x {}".format(*settings["image"]),
    ]
    return ", ".join(filter(None, parts))


def free_name(folder: Path, name: str, settings: dict[str, Any]) -> Path:
    """The path NAME.png, or NAME_2.png and so on where the names before it belong to other settings."""
    plain, number, path = json.loads(json.dumps(settings)), 1, folder / f"{name}.png"
    while path.with_suffix(".json").exists():
        try:
            known = (read_json(path.with_suffix(".json")) or {}).get("settings")
        except Unreadable:
            known = None  # not ours: left alone
        if known == plain:
            break
        number += 1
        path = folder / f"{name}_{number}.png"
    return path


def _write(path: Path, gallery: Gallery, made: generation.Generated, note: str) -> None:
    """The montage, and the arrays beside it."""
    texts, request = list(gallery.prompts.texts), gallery.config.generate
    images = made.z if made.images is None else made.images
    shown = montage.preview(made.z) if made.images is None else made.images
    room = min(max(montage.TILE, *shown.shape[1:3]), LARGEST_TILE)
    with files.atomic(path) as partial:
        montage.montage(shown, texts, request.columns, note, room).save(partial, format="PNG")
    with files.atomic(path.with_suffix(".npz")) as partial, partial.open("wb") as file:  # by name, numpy adds an ending
        np.savez(file, images=images, captions=np.array(texts), seed=np.uint32(request.seed))
