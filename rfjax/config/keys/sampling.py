"""The sections `sampling`, `generate` and `archive`: the pictures of each run, and the pictures of one model."""

import dataclasses

from rfjax.config.rules import LARGEST_SEED, MOST_STEPS, key
from rfjax.config.setting import LARGEST_GUIDANCE, PRESETS
from rfjax.config.setting import MOST_STEPS as MOST_SAMPLER_STEPS


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sets the pictures that each run generates at its end. Data sets with a metric (`shapes`, `digits`) score them."""

    count: int = key(
        64,
        "Sets how many captions of the validation set get a picture at each setting. 0 generates none.",
        low=0,
        high=1_000_000,
    )
    seeds: int = key(
        0,
        "Generates pictures only in the runs whose training.seed is below this number, so that the repeats of a model "
        "need not. 0 generates them in every run.",
        low=0,
        high=LARGEST_SEED,
    )
    shown: int = key(16, "Sets how many of the pictures are saved as an image file.", low=0, high=10_000)
    batch: int = key(
        32,
        "Sets the number of pictures generated at once. A larger value needs more memory; the pictures do not depend "
        "on it.",
        low=1,
        high=65_536,
    )
    settings: tuple[str, ...] = key(
        ("25@3.0",),
        "Lists the settings to generate with, each written STEPS@GUIDANCE: the number of sampler steps and the scale "
        "of classifier-free guidance. A scale of 1 means no guidance. A preset may stand for the number of steps, as "
        "in repa-sde-250@1.8: it sets sampler, schedule and diffusion as the code of a paper does. The presets are "
        f"{', '.join(PRESETS)}; those of SiT and DiT guide 3 channels.",
    )
    metrics: tuple[str, ...] = key(
        ("own",),
        "Lists the metrics of the pictures: `own` is the data set's own score (`shapes` and `digits` have one); those "
        "of the papers are fid, sfid, fid_infinity, inception_score, precision_recall, density_coverage, kid, "
        "clip_score, clip_fid, cmmd, fd_dinov2, fd_efficientnet, pickscore and hps, whose networks config.evaluate "
        "names; others are named as MODULE:NAME.",
    )
    sampler: str = key(
        "euler",
        "Chooses the sampler.",
        choices=("euler", "heun", "ddim", "dpm++2m", "dopri5", "euler_maruyama", "ddpm"),
    )
    schedule: str = key(
        "own",
        "Chooses the schedule of times that the sampler steps through. `own` is `karras` for edm and `uniform` "
        "(evenly spaced) for all other formulations.",
        choices=("own", "uniform", "discrete", "karras", "repa", "dit", "sd3-ref"),
    )
    shift: float = key(
        1.0,
        "Shifts the schedule towards noise by SD3's Eq. 23. 1 leaves it unchanged; larger values suit higher "
        "resolutions (SD3 uses 3 at 1024 x 1024 pixels).",
        low=1e-3,
        high=1e3,
    )
    diffusion: str = key(
        "linear",
        "Chooses how much noise the sampler `euler_maruyama` adds along t, by the names of SiT's code.",
        choices=("constant", "sbdm", "sigma", "linear", "decreasing", "increasing-decreasing"),
    )
    guidance_low: float = key(
        0.0, "Sets the lowest t at which guidance acts. Below it the conditional prediction is used.", low=0, high=1
    )
    guidance_high: float = key(
        1.0, "Sets the highest t at which guidance acts. Above it the conditional prediction is used.", low=0, high=1
    )
    guidance_channels: int = key(
        0,
        "Applies guidance to this many leading channels only. 0 guides all channels; DiT's and SiT's code guides 3 of "
        "4.",
        low=0,
        high=4096,
    )
    weights: str = key(
        "both",
        "Chooses the weights to generate with: `raw` takes the trained weights, `ema` their moving average.",
        choices=("both", "raw", "ema"),
    )
    along: bool = key(
        False,
        "Also scores the averaged weights at every validation during the run, at the first of `settings`.",
    )


@dataclasses.dataclass(frozen=True)
class Generate:
    """The jobs `generate` and `archive`: make pictures with one model. `sampling` sets the sampler and the schedule."""

    source: str = key("", "Names the model: the folder of a run, or a checkpoint of another project.")
    layout: str = key(
        "", "Names the project whose checkpoint `source` is. Empty recognises the checkpoint from its files."
    )
    prompts: tuple[str, ...] = key(
        (),
        "Lists the prompts, one picture each; a model of class labels takes their numbers. Empty takes the first "
        "captions of the run's validation data.",
    )
    encodings: str = key(
        "",
        "Names an .npz file of encoded prompts, to use in place of `prompts`: context (n, L, E), pooled (n, P) and "
        "optionally captions (n).",
    )
    count: int = key(
        16, "Sets the number of pictures if neither prompts nor encodings are given.", low=1, high=1_000_000
    )
    weights: str = key(
        "ema",
        "Chooses the weights of a run: `ema` takes the moving average, `raw` the trained weights themselves.",
        choices=("ema", "raw"),
    )
    step: int = key(0, "Chooses the checkpoint of a run by its step. 0 takes the newest.", low=0, high=MOST_STEPS)
    steps: int = key(
        25,
        "Sets the number of sampler steps. More steps are more accurate and take proportionally longer.",
        low=1,
        high=MOST_SAMPLER_STEPS,
    )
    preset: str = key(
        "",
        "Chooses a sampler as the code of a paper runs it: it takes the place of `steps` and of the sampler, schedule "
        "and diffusion of the section `sampling`. Those of SiT and DiT guide 3 channels. Empty chooses none.",
        choices=("", *PRESETS),
    )
    guidance: float = key(
        3.0,
        "Sets the scale of classifier-free guidance. 1 means no guidance; larger values follow the prompt more "
        "closely.",
        low=0,
        high=LARGEST_GUIDANCE,
    )
    seed: int = key(
        0,
        "Seeds the initial noise. Each picture's noise depends on this seed and the picture's index in the list.",
        low=0,
        high=LARGEST_SEED,
    )
    offload: bool = key(
        False,
        "Keeps only one network on the devices at a time: each text encoder, then the network, then the autoencoder. "
        "It takes less memory, and the weights are read from their files as they are needed.",
    )
    height: int = key(
        0,
        "Sets the height of the pictures in pixels, or in latent pixels for a model of latents without an autoencoder. "
        "0 takes the training size.",
        low=0,
        high=65_536,
    )
    width: int = key(
        0,
        "Sets the width of the pictures in pixels, or in latent pixels for a model of latents without an autoencoder. "
        "0 takes the training size.",
        low=0,
        high=65_536,
    )
    columns: int = key(4, "Sets the number of columns in the image that shows all pictures.", low=1, high=1000)
    batch: int = key(
        32,
        "Sets the number of pictures generated at once. A larger value needs more memory; the pictures do not depend "
        "on it.",
        low=1,
        high=65_536,
    )


@dataclasses.dataclass(frozen=True)
class Archive:
    """The job `archive`: many pictures in one .npz file for evaluators. `generate` names the model and their number."""

    labels: str = key(
        "random",
        "Chooses the class labels of the pictures: `random` draws each by seed and index, as REPA and SiT do, "
        "`balanced` takes each class equally often, `captions` takes the captions or labels of the model's validation "
        "data in order. A model of text has `captions` alone.",
        choices=("random", "balanced", "captions"),
    )
    rounding: str = key(
        "sit",
        "Chooses how a value s in -1 ... 1 becomes a byte: `sit` rounds, clamp(127.5 s + 128); `repa` cuts off the "
        "fraction of 255 (s + 1) / 2, which makes pictures half a level darker.",
        choices=("sit", "repa"),
    )
