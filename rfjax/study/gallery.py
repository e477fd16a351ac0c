"""The job `generate`: draws a captioned grid from one model, a run's or another project's."""

import errno
import functools
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax import config as configs
from rfjax import data, files, names
from rfjax.config import Config
from rfjax.errors import Exit, UserError
from rfjax.evaluation import pictures, sampling, scorers
from rfjax.jsonl import write_json
from rfjax.study.display import StudyDisplay
from rfjax.study.encodings import read_encodings
from rfjax.study.folder import describe_environment
from rfjax.training import loop, weights
from rfjax.training import mesh as meshes
from rfjax.training.weights import Weights
from rfjax.untrusted import Unreadable, read_json

LARGEST_TILE = 512  # pixels for a picture's longer side in the grid; the .npz file has them all
LONGEST_LABEL = 80  # bytes
RUN_SECTIONS = {"data", "text", "flow", "model"}  # what tells a run's config.json from another project's


def run(config: Config, started: float) -> int:
    """Draws what `config.generate` asks for into `config.workdir`; returns the exit code, 1 for pictures with NaN.

    Three files are named after model and settings: the grid (.png), the pictures as drawn (.npz: uint8 pixels, or
    float32 latents) and all about them (.json). The same command writes the same files again; other settings that would
    have the same name get a number.

    Args:
        started: `time.time()` at the start of the process.

    Raises:
        UserError: for what the user can mend, before anything is compiled.
    """
    sample, folder = config.generate, Path(config.workdir)
    encoded = read_encodings(Path(sample.encodings)) if sample.encodings else None
    model = read_model(sample, config.mesh)
    sides = configs.check_generate(sample, model.config)
    trained = model.trained((*sides, model.parts.inputs.image[-1]))
    if (guided := config.sampling.guidance_channels) > trained.image[-1]:
        raise UserError(
            f"config.sampling.guidance_channels = {guided}, and this model has {trained.image[-1]} channels"
        )
    asked = find_captions(sample, encoded, model)
    one = configs.Setting(sample.steps, sample.guidance)
    chosen = sampling.make_settings(config.sampling, one, seed=sample.seed)
    scorer = _scorer(model, trained, asked)
    _prepare(folder)

    first, count, label = jax.process_index() == 0, len(asked.texts), _label(Path(sample.source))
    batch = min(sample.batch, count)
    rounds = -(-count // batch)
    display = StudyDisplay(rounds, active=first, whole=False)
    place = functools.partial(meshes.place, mesh=meshes.make_mesh(config.mesh))
    began = time.time()
    with display.bars, display.run(label, rounds, 1) as bar:
        bar.say("compiling the sampler and drawing")
        tell = lambda done: bar.advance(-(-done // batch), f"{done} of {count} pictures")  # noqa: E731
        drawn = sampling.draw(trained, asked, chosen, batch, place, tell=tell)
    seconds = time.time() - began
    found = sampling.record(drawn, asked.texts, chosen, scorer)
    if first:
        settings = describe(config, model, trained, asked)
        path = free_name(folder, f"{label}_{chosen.sampler}_{one.name}_seed{sample.seed}", settings)
        note = f"{label}: {_sentence(settings)}"
        _write(path, asked, drawn, sample, note)
        found = {key: value for key, value in found.items() if key not in settings}
        times = {"seconds": seconds, "start_up_seconds": began - started}
        write_json(path.with_suffix(".json"), {"settings": settings, "found": found, **times, **describe_environment()})
        display.say(_summary(path, note, settings, found, seconds))
    return Exit.FAILED if found.get("problem") else Exit.DONE


def _prepare(folder: Path) -> None:
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


def read_model(sample: configs.Generate, mesh: configs.Mesh) -> Weights:
    """The model of a run's folder, or of another project's checkpoint.

    Raises:
        UserError: if there is none.
    """
    source = Path(sample.source)
    if not source.exists():
        raise UserError(f"there is no {source}: config.generate.source must be the folder of a run, or a checkpoint")
    if (source / "study.json").is_file():
        runs = sorted(path.parent for path in source.glob("runs/*/config.json"))
        such = f", such as {runs[-1]}" if runs else ", once it has one"
        raise UserError(f"{source} is the folder of a study: let config.generate.source be one of its runs{such}")
    if not sample.layout and _is_run(source):
        return weights.read(source, mesh, sample.weights == "ema")
    from rfjax import interop

    return interop.read(source, sample.layout, mesh)


def _is_run(source: Path) -> bool:
    """Whether this is a run's folder: other projects write a config.json as well."""
    try:
        plain = read_json(source / "config.json")
    except Unreadable:
        return (source / "checkpoints").is_dir()
    return set(plain or ()) >= RUN_SECTIONS or (plain is None and (source / "checkpoints").is_dir())


def _label(source: Path) -> str:
    """A short name of the model, for people and files, whose names may have 255 bytes."""
    name = source.resolve().stem if source.is_file() else source.resolve().name
    return name.encode()[:LONGEST_LABEL].decode(errors="ignore")


def find_captions(sample: configs.Generate, encoded: sampling.Captions | None, model: Weights) -> sampling.Captions:
    """What to draw: the encodings of a file, the prompts, or the first captions of the run's validation data.

    Raises:
        UserError: if they don't fit the model, or can't be had.
    """
    if encoded:
        inputs, length = model.parts.inputs, encoded.context.shape[1]
        if model.config.model.backbone == "mmdit3":  # others take any number of text tokens
            length = inputs.text[0]
        for name, found, wanted in (
            ("context", encoded.context.shape[1:], (length, inputs.text[1])),
            ("pooled", encoded.pooled.shape[1:], (inputs.pooled_width,)),
        ):
            if found != wanted:
                n = len(encoded.texts)
                raise UserError(
                    f"config.generate.encodings = {sample.encodings}: expected {name} of shape {(n, *wanted)} for this "
                    f"model, found {(n, *found)}"
                )
        return encoded
    if sample.prompts:
        return sampling.Captions(sample.prompts, *model.parts.encoder(sample.prompts))
    try:
        source = data.open_source(model.config.data, "validation")
        loop.check_shapes(source, model.config, model.parts)
        return sampling.captions(source, model.parts.encoder, sample.count)
    except UserError as error:
        stored = model.config.text.encoder == "stored"
        raise UserError(
            f"give config.generate.{'encodings' if stored else 'prompts'}, for the model's own data has no captions to "
            f"offer: {error}"
        ) from error


def describe(config: Config, model: Weights, trained: pictures.Trained, asked: sampling.Captions) -> dict[str, Any]:
    """All that the pictures depend on, as plain values."""
    sample, sampling_config = config.generate, config.sampling
    return {
        "source": str(Path(sample.source).resolve()),
        "layout": sample.layout,
        "weights": sample.weights,
        "step": model.step,
        "backbone": model.config.model.backbone,
        "formulation": model.config.flow.formulation,
        "image": list(trained.image),
        "sampler": sampling_config.sampler,
        "steps": sample.steps,
        "guidance": sample.guidance,
        "guidance_interval": [sampling_config.guidance_low, sampling_config.guidance_high],
        "guidance_channels": sampling_config.guidance_channels or trained.image[-1],
        "grid": names.schedule_of(sampling_config.schedule, trained.formulation.name),
        "shift": sampling_config.shift,
        "diffusion": sampling_config.diffusion if sampling_config.sampler == "euler_maruyama" else None,
        "seed": sample.seed,
        "count": len(asked.texts),
        "captions": list(asked.texts),
        "text": hashlib.sha256(asked.context.tobytes() + asked.pooled.tobytes()).hexdigest()[:16],
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


def _write(path: Path, asked: sampling.Captions, drawn: sampling.Drawn, sample: configs.Generate, note: str) -> None:
    """The grid, and the arrays beside it."""
    shown, texts = pictures.to_show(drawn.images), list(asked.texts)
    room = min(max(pictures.TILE, *shown.shape[1:3]), LARGEST_TILE)
    with files.atomic(path) as partial:
        pictures.montage(shown, texts, sample.columns, note, room).save(partial, format="PNG")
    images = shown if drawn.images.shape[-1] in pictures.PIXELS else drawn.images
    with files.atomic(path.with_suffix(".npz")) as partial, partial.open("wb") as file:  # by name, numpy adds an ending
        np.savez(file, images=images, captions=np.array(texts), seed=np.uint32(sample.seed))


def _scorer(model: Weights, trained: pictures.Trained, asked: sampling.Captions) -> scorers.Scorer | None:
    """Scores are for a data set's own captions at its own size; a Fréchet distance needs two pictures."""
    known = model.config.data
    if asked.images is None or len(asked.texts) < 2 or trained.image != model.parts.inputs.image:
        return None
    return scorers.scorer(known.name, known.image_size, known.channels)


def _summary(path: Path, note: str, settings: dict[str, Any], found: dict[str, Any], seconds: float) -> str:
    """What the terminal shows in the end."""
    lines = [note, f"{settings['count']} drawn in {seconds:.1f} s: {path}, .npz and .json"]
    if settings["image"][-1] not in pictures.PIXELS:
        lines.append(
            f"latents of {settings['image'][-1]} channels have no decoder here: the grid shows their first three "
            "principal components as colours, the .npz file has their values"
        )
    if found.get("score") is not None:
        lines.append(
            f"score {found['score']:.3f} ± {found['stderr']:.3f}, Fréchet distance {found['frechet']:.3f} "
            f"({settings['count']} pictures: compare equal counts only)"
        )
    if found.get("problem"):
        lines.append(f"{found['problem']}: nothing is scored, and values that are not finite are shown as 0")
    return "\n".join(lines)
