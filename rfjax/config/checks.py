"""Checks of values that are valid one by one but not together, before anything is compiled."""

import os
from pathlib import Path

from rfjax.config.keys import Config, Data, Generate, Text
from rfjax.config.latents import encodes_pictures
from rfjax.config.parameterisation import check_heads, check_parameterisation
from rfjax.config.setting import setting
from rfjax.errors import UserError
from rfjax.lookup import is_path

# The size that 0 stands for in config.data, by data source.
OWN_SIZE = {"shapes": {"image_size": 16, "channels": 3}, "digits": {"image_size": 8, "channels": 1}}

# What config.data.path names, by data source.
PATHS = {
    "folder": "a directory of images",
    "webdataset": "a directory of .tar files",
    "parquet": "a directory of .parquet files",
    "imagenet": "the directory of train/",
    "coco": "the directory of annotations/",
    "latents": "the folder of train/latents.npy",
    "moments": "the folder of vae-sd/dataset.json",
}


def check(config: Config) -> None:
    """Checks a config's values against each other.

    Raises:
        UserError: if two or more values don't fit together; the message names their keys.
    """
    data, training = config.data, config.training
    _check_workdir(config.workdir)
    _check_data(data)
    _check_model(config)
    if config.optimizer.flatten and config.optimizer.weight_decay:
        raise UserError(
            "config.optimizer.flatten can't tell matrices from biases: set weight_decay = 0 or flatten = False"
        )
    if config.optimizer.warmup >= training.steps and config.optimizer.decay != "none":
        raise UserError(
            f"config.optimizer.warmup = {config.optimizer.warmup} leaves no steps to decay in: "
            f"config.training.steps = {training.steps}"
        )
    _check_decay(config)
    if config.alignment.active and config.alignment.block > config.model.depth:
        raise UserError(
            f"config.alignment.block = {config.alignment.block} is not there: config.model.depth = {config.model.depth}"
        )
    check_parameterisation(config)
    _check_sampling(config)
    asked = config.validation
    for name, count in (("examples", asked.examples), ("along", asked.along)):
        if count % 8:
            raise UserError(f"config.validation.{name} = {count} must be a multiple of the 8 levels of t")
    if config.job in ("generate", "archive"):
        _check_generate(config.generate, config.job)


def _check_decay(config: Config) -> None:
    """Refuses a decay that starts in the warm-up, and branches without such a decay."""
    optimizer, training = config.optimizer, config.training
    start = optimizer.decay_start(training.steps)
    if optimizer.decay == "wsd" and start < max(optimizer.warmup, 1):
        raise UserError(
            f"the decay of config.optimizer.decay = 'wsd' would start at step {start} of config.training.steps = "
            f"{training.steps}, before the warm-up ends: lower config.optimizer.warmup = {optimizer.warmup} or "
            f"decay_share = {optimizer.decay_share:g}"
        )
    if not config.study.branches:
        return
    if optimizer.decay != "wsd":
        raise UserError(
            f"config.study.branches needs config.optimizer.decay = 'wsd', not '{optimizer.decay}': with another "
            "schedule runs of different lengths have nothing in common"
        )
    if training.select != "last":
        raise UserError(
            "config.study.branches works with config.training.select = 'last': the best checkpoint of a branch may be "
            "its trunk's"
        )


def _check_data(data: Data) -> None:
    """Refuses a data source without its size or its files."""
    if data.name not in OWN_SIZE and not (data.image_size and data.channels):
        raise UserError(f"'{data.name}' has no size of its own: set config.data.image_size and config.data.channels")
    if data.name == "shapes" and (data.channels not in (0, 3) or 0 < data.image_size < 16):
        raise UserError("the data set 'shapes' draws images of 3 channels and at least 16 pixels: see config.data")
    for name in ("alt_text", "other_words"):
        if getattr(data, name) and data.name != "shapes":
            raise UserError(f"config.data.{name} is for the data set 'shapes' alone, not for '{data.name}'")
    if data.name in ("shapes", "digits") and data.flip:
        raise UserError(f"config.data.flip would make captions of '{data.name}' wrong: switch it off")
    if data.name == "tfds" and not data.dataset:
        raise UserError("config.data.dataset must name a prepared data set for config.data.name = 'tfds'")
    if data.name in PATHS and not data.path:
        raise UserError(f"config.data.path must name {PATHS[data.name]} for config.data.name = '{data.name}'")


LONGEST_NAME, LONGEST_PATH = 255, 4096  # bytes, on Linux, macOS and most network file systems
ROOM = 512  # bytes that the folder of a run and the files of a checkpoint add to the path


def _check_workdir(workdir: str) -> None:
    """Refuses a folder whose files would have longer names than file systems allow."""
    if not workdir:
        raise UserError("config.workdir must name the folder of the study")
    longest = max(len(os.fsencode(part)) for part in Path(workdir).parts)
    if longest > LONGEST_NAME or len(os.fsencode(Path(workdir).absolute())) > LONGEST_PATH - ROOM:
        raise UserError(
            f"config.workdir = '{workdir[:60]}...' is too long: a name may have {LONGEST_NAME} bytes, and the whole "
            f"path {LONGEST_PATH - ROOM}"
        )


def _check_shape(config: Config) -> None:
    """Refuses examples that the network can't cut into patches."""
    data, model = config.data, config.model
    sides = data.shape[-3:-1] or (data.image_size,)
    encoded = encodes_pictures(config)  # then patches divide latents, see `check_z`
    if len(data.shape) not in (0, 3, 4):
        raise UserError(f"config.data.shape = {data.shape} must be (H, W, C) of an image or (F, H, W, C) of a video")
    if not encoded and any(side % model.patch for side in sides):
        key, value = ("shape", data.shape) if data.shape else ("image_size", data.image_size)
        raise UserError(f"config.data.{key} = {value} is not a multiple of config.model.patch = {model.patch}")
    if len(data.shape) == 4 and (model.stored_positions or model.backbone == "uvit"):
        raise UserError("a video (config.data.shape of four numbers) needs positions by formula, and not the uvit")
    if len(data.shape) == 4 and data.shape[0] % model.frame_patch:
        raise UserError(f"config.data.shape = {data.shape} has no multiple of frame_patch = {model.frame_patch} frames")


def _check_model(config: Config) -> None:
    """Refuses a network that can't be built, or can't read the data's images and text."""
    data, model, text = config.data, config.model, config.text
    _check_shape(config)
    width, heads = model.chosen_width, model.chosen_heads
    check_heads(model)
    if width % 4:
        how = "width" if model.width else "width_per_depth x depth"
        raise UserError(f"config.model.{how} = {width} must be a multiple of 4 for the position embedding")
    if width % heads:
        raise UserError(f"a width of {width} can't be split over {heads} attention heads: see config.model.heads")
    if 0 < model.largest_image < data.image_size and not encodes_pictures(config):
        raise UserError(
            f"config.model.largest_image = {model.largest_image} is smaller than config.data.image_size = "
            f"{data.image_size}"
        )
    if text.encoder == "labels" and model.backbone not in ("dit", "sit") and not is_path(model.backbone):
        raise UserError(
            f"config.model.backbone = '{model.backbone}' reads text, not class labels: with config.text.encoder = "
            "'labels', take dit or sit"
        )
    _check_text(text)
    two = {"words": text.vocabularies == 2, "stored": text.layout == "sd3", "sd3": text.length > CLIP_TOKENS}
    if model.backbone == "mmdit3" and not two.get(text.encoder, text.vocabularies == 2 and is_path(text.encoder)):
        raise UserError(
            "config.model.backbone = 'mmdit3' has weights for two kinds of text: set config.text.vocabularies = 2 for "
            "'words', config.text.layout = 'sd3' for stored encodings, or config.text.length > 77 for 'sd3'"
        )
    if model.backbone == "uvit" and (model.patch < 2 or model.patch & (model.patch - 1) or width % model.patch):
        raise UserError(
            f"config.model.patch = {model.patch} must be 2, 4, 8 ... and divide the width, {width}, for 'uvit', which "
            "halves the resolution until a patch is one token"
        )
    if model.dual_blocks > (most := model.depth if model.backbone.startswith("mmdit") else 0):
        raise UserError(
            f"config.model.dual_blocks = {model.dual_blocks} must be at most {most} for '{model.backbone}' of depth "
            f"{model.depth}"
        )
    if model.attention == "cudnn" and model.precision != "bfloat16":
        raise UserError(
            f"config.model.attention = 'cudnn' needs config.model.precision = 'bfloat16', not '{model.precision}'"
        )
    if model.modulation != "adaln" and model.backbone == "uvit":
        raise UserError(
            f"config.model.modulation = '{model.modulation}' works with mmdit, mmdit3, dit, sit and crossdit: the "
            "convolutions of 'uvit' have no tokens to add one to"
        )
    if model.learn_sigma and model.backbone not in ("dit", "sit"):
        raise UserError(f"config.model.learn_sigma works with dit and sit, not with '{model.backbone}'")


CLIP_TOKENS = 77  # of Stable Diffusion 3's text, before T5's


def _check_text(text: Text) -> None:
    """Refuses a text encoder without its folder, or of impossible sizes."""
    encoder, published = text.encoder, text.encoder in ("sd3", "sentence") or is_path(text.encoder)
    for key in ("width", "pooled_width"):
        if not getattr(text, key) and not published:
            raise UserError(f"config.text.{key} = 0 takes the size of 'sd3' or 'sentence': '{encoder}' needs a number")
    if text.null == "empty" and encoder == "stored":
        raise UserError(
            "config.text.null = 'empty' needs an encoder that can encode the empty prompt, which 'stored' can't: set "
            "it to 'zeros'"
        )
    if encoder != "sd3":
        return
    if not text.path:
        raise UserError("config.text.path must name the folder of a diffusers pipeline for config.text.encoder = 'sd3'")
    if not text.parts:
        raise UserError("config.text.parts is empty: name at least one of clip_l, clip_g and t5")
    if text.length < CLIP_TOKENS + ("t5" in text.parts):
        what = "and T5 needs more: 154 in the paper, 333 in diffusers" if "t5" in text.parts else "without T5's"
        raise UserError(f"config.text.length = {text.length} is too short: CLIP has {CLIP_TOKENS} tokens, {what}")


def _check_sampling(config: Config) -> None:
    """Refuses settings that no sampler can generate pictures with."""
    sampling, training = config.sampling, config.training
    wanted = [setting(text) for text in sampling.settings] if sampling.count else []
    if sampling.count and not wanted:
        raise UserError("config.sampling.settings is empty: give one setting, or set config.sampling.count = 0")
    for one in wanted:
        if one.guidance != 1 and config.text.drop in (0, 1):
            raise UserError(
                f"config.sampling.settings: '{one.name}' needs guidance, but {_unguided(config.text.drop)}: use "
                f"'{one.preset or one.steps}@1.0', or another config.text.drop"
            )
    names = [one.name for one in wanted]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"config.sampling.settings names '{repeated}' twice: name it once")
    if 0 < config.data.channels < sampling.guidance_channels and not encodes_pictures(config):
        raise UserError(
            f"config.sampling.guidance_channels = {sampling.guidance_channels} exceeds config.data.channels = "
            f"{config.data.channels}: 0 guides all channels"
        )
    if sampling.guidance_low > sampling.guidance_high:
        raise UserError(
            f"config.sampling.guidance_low = {sampling.guidance_low:g} and guidance_high = {sampling.guidance_high:g} "
            "must be an interval within [0, 1], the lower value first"
        )
    every, saved = training.validate_every, training.checkpoint_every
    if training.select == "best" and (not every or every % saved):
        raise UserError(
            "config.training.select = 'best' needs a checkpoint at every validation: let checkpoint_every divide "
            f"validate_every (they are {saved} and {every})"
        )


def _unguided(drop: float) -> str:
    return f"with config.text.drop = {drop:g} the model {'sees no text' if drop else 'never trains without text'}"


def _check_generate(sample: Generate, job: str) -> None:
    """Refuses a job `generate` or `archive` that no model could do."""
    if not sample.source:
        raise UserError("config.generate.source must name the folder of a run, or a checkpoint of another project")
    if sample.prompts and sample.encodings:
        raise UserError(
            "config.generate.prompts and config.generate.encodings are both set: set one of them (the file of "
            "encodings may hold captions)"
        )
    if job == "archive" and (sample.prompts or sample.encodings):
        raise UserError(
            "config.generate.prompts and config.generate.encodings are for the job 'generate': the job 'archive' takes "
            "the labels that config.archive.labels says"
        )


def check_generate(sample: Generate, run: Config, own: tuple[int, int], factor: int = 1) -> tuple[int, int]:
    """Checks the job `generate` against the config `run` of a model.

    Args:
        sample: of the job.
        run: of the model.
        own: height and width that the network was trained at.
        factor: pixels of a picture for one of the network's; more than 1 where an autoencoder decodes.

    Returns:
        The height and width of the pictures, in the network's pixels.

    Raises:
        UserError: if the model can't generate pictures of this size, with this guidance or from these prompts.
    """
    model, text, patch = run.model, run.text, run.model.patch * factor
    # A checkpoint's table of positions is counted in patches, the other limits in pixels.
    largest = factor * (model.stored_positions * model.patch or model.largest_image or max(own))
    for name, length in (("height", sample.height), ("width", sample.width)):
        if length % patch:
            below = length // patch * patch
            near = f"{below} or {below + patch}" if below else f"{patch}"
            of = "the model's patch" if factor == 1 else f"a patch of the model's latents, {factor} x {model.patch}"
            raise UserError(f"config.generate.{name} = {length} is not a multiple of {of}, {patch}: take {near}")
        if length > largest:
            raise UserError(f"config.generate.{name} = {length}, and this model has positions for {largest} at most")
    if sample.guidance != 1 and text.drop in (0, 1):
        raise UserError(
            f"config.generate.guidance = {sample.guidance:g} can't guide this model because "
            f"{_unguided(text.drop)}: set config.generate.guidance = 1"
        )
    if sample.prompts and text.encoder == "stored":
        raise UserError(
            "this model needs text encoders to read config.generate.prompts: name their folder in config.text.path, or "
            "an .npz file with context and pooled in config.generate.encodings"
        )
    return sample.height // factor or own[0], sample.width // factor or own[1]
