"""The files of the job `generate`: what pictures depend on, their name, the montage and the arrays."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rfjax import config as configs
from rfjax import files, flow, names
from rfjax.buckets import is_address
from rfjax.config import Config
from rfjax.evaluation import montage
from rfjax.evaluation.generation import Generated
from rfjax.training.weights import Weights
from rfjax.untrusted import Unreadable, read_json

LARGEST_TILE = 512  # pixels for a picture's longer side in the grid; the .npz file has them all


def describe_sampling(config: Config, model: Weights, shape: tuple[int, ...]) -> dict[str, Any]:
    """What pictures of this shape of z depend on besides what they show, as plain values."""
    request, sampling = config.generate, config.sampling
    text, formulation = model.config.text, flow.formulation(model.config.flow.formulation, model.config.flow.shift)
    encoders = {"autoencoder": model.config.autoencoder.path, "text": text.path, "null": text.path and text.null}
    return {
        **{name: value for name, value in encoders.items() if value},
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
        "grid": names.schedule_of(sampling.schedule, formulation.name),
        "shift": sampling.shift,
        "diffusion": sampling.diffusion if sampling.sampler == "euler_maruyama" else None,
        "seed": request.seed,
    }


def sentence(settings: dict[str, Any]) -> str:
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
        "decoded" if settings.get("autoencoder") else "",
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


def write(path: Path, made: Generated, texts: Sequence[str], request: configs.Generate, note: str) -> None:
    """The montage, and the arrays beside it."""
    images = made.z if made.images is None else made.images
    shown = montage.preview(made.z) if made.images is None else made.images
    room = min(max(montage.TILE, *shown.shape[1:3]), LARGEST_TILE)
    with files.atomic(path) as partial:
        montage.montage(shown, list(texts), request.columns, note, room).save(partial, format="PNG")
    with files.atomic(path.with_suffix(".npz")) as partial, partial.open("wb") as file:  # by name, numpy adds an ending
        np.savez(file, images=images, captions=np.array(texts), seed=np.uint32(request.seed))
