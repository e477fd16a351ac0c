"""Every key of a config, with its default and what it means: the one list, which `--help` prints."""

import dataclasses
import json
from typing import Any

from rfjax.config.rules import LARGEST_SEED, MOST_STEPS, key
from rfjax.config.setting import LARGEST_GUIDANCE
from rfjax.config.setting import MOST_STEPS as MOST_SAMPLER_STEPS


@dataclasses.dataclass(frozen=True)
class Data:
    """Which images and captions."""

    name: str = key(
        "shapes",
        "the source; none: a network that came without its data",
        choices=("shapes", "digits", "tfds", "folder", "latents", "none"),
    )
    image_size: int = key(
        16,
        "side of the square images, in pixels (of stored latents: in latent pixels); 0: shapes 16, digits 8",
        low=0,
        high=16_384,
    )
    channels: int = key(3, "channels of an image; 0: shapes 3, digits 1", low=0, high=4096)
    resize: str = key("crop", "how to make an image square: centre crop or squash", choices=("crop", "squash"))
    flip: bool = key(False, "mirror half of the training images (not for digits or captions with left and right)")
    dataset: str = key("", "tfds: name of a prepared data set, with :version or /config if there are several")
    data_dir: str = key("work/tfds", "tfds: where the prepared data sets are")
    train_split: str = key("train[:95%]", "tfds: slice of the data set to train on")
    validation_split: str = key("train[95%:]", "tfds: slice to measure the validation loss on")
    image_key: str = key("", "tfds: feature with the image; empty: found by its type")
    label_key: str = key("", "tfds: feature with the label; empty: found by its type")
    caption_key: str = key("", "tfds: feature with the caption; empty: found by its name")
    caption_template: str = key("a photo of a {}", "tfds: caption made of a label's name")
    path: str = key("", "folder: directory with the images; latents: directory with train/ and validation/")
    captions_file: str = key("captions.jsonl", "folder: its JSON-lines file (else metadata.jsonl, where there is one)")
    validation_percent: float = key(
        5.0, "folder, and latents without validation/: share kept for the validation loss", low=0, high=99
    )
    layout: str = key(
        "", "latents: order of the axes in the files; empty: as their shape shows", choices=("", "nhwc", "nchw")
    )
    outside: bool = key(
        False,
        "also read files that lie outside of the data's own folder: by a path in captions.jsonl, or behind a link",
    )
    changed: str = key(
        "refuse",
        "when the data are no longer what the runs recorded: refuse to go on and to compare them, or allow it and say "
        "so in the report",
        choices=("refuse", "allow"),
    )
    max_bad: float = key(0.05, "folder: largest fraction of broken records to go on with", low=0, high=1)
    cache_mb: float = key(512.0, "keep decoded examples in memory when they fit in this many MiB", low=0, high=1e7)


@dataclasses.dataclass(frozen=True)
class Text:
    """How captions become arrays."""

    encoder: str = key(
        "words",
        "words: built in; stored: encodings from the data set; labels: its class labels, for dit and sit",
        choices=("words", "stored", "labels"),
    )
    length: int = key(8, "text tokens L; longer captions are cut", low=1, high=65_536)
    width: int = key(64, "channels E of a text token", low=2, high=65_536)
    pooled_width: int = key(64, "channels P of the pooled vector; labels: the number of classes", low=1, high=1_000_000)
    vocabularies: int = key(
        1, "words: encoders, each with vectors and L tokens of its own, one after the other", low=1, high=16
    )
    layout: str = key("one", "stored: one encoder, or SD3's CLIP L, CLIP G and T5", choices=("one", "sd3"))
    drop: float = key(
        0.1, "probability of zeroing an encoder's outputs in training (three encoders in SD3: 0.464)", low=0, high=1
    )


@dataclasses.dataclass(frozen=True)
class Flow:
    """Which formulation."""

    formulation: str = key("rf/lognorm(0.00,1.00)", "path, prediction and density, by the paper's name")
    shift: float = key(
        1.0, "of the density of t towards noise, for high resolutions (SD3 Eq. 23); 1: none", low=1e-3, high=1e3
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """Which backbone, how large."""

    backbone: str = key(
        "mmdit",
        "the architecture; mmdit3: weights of their own for each of two text encoders",
        choices=("mmdit", "mmdit3", "dit", "sit", "crossdit", "uvit"),
    )
    depth: int = key(4, "number of blocks d, and of attention heads", low=1, high=1000)
    width_per_depth: int = key(64, "head width: the width is this times d (64 in the paper)", low=4, high=4096)
    width: int = key(0, "the width itself; 0: by the depth rule", low=0, high=131_072)
    heads: int = key(0, "attention heads; 0: as many as blocks", low=0, high=4096)
    patch: int = key(2, "side of a patch in pixels", low=1, high=1024)
    mlp_ratio: int = key(4, "hidden width of the MLPs over the width", low=1, high=64)
    qk_norm: bool = key(False, "RMSNorm of queries and keys")
    remat: str = key(
        "none",
        "what the backward pass computes again, for less memory: nothing; all but matrix products; all but Linears; or "
        "everything in a block (a third more work)",
        choices=("none", "dots", "linears", "full"),
    )
    unroll: int = key(
        -1,
        "blocks per iteration of the scan over depth; 0: all (faster on a CPU, slower to compile); -1: all of up to 12 "
        "blocks on a CPU that has long to train, else 1",
        low=-1,
        high=1000,
    )
    precision: str = key("float32", "of matrix products", choices=("float32", "bfloat16"))
    attention: str = key("", "implementation of attention; empty: JAX chooses", choices=("", "xla", "cudnn"))
    dual_blocks: int = key(
        0, "mmdit: first blocks whose image also attends to itself alone (SD3.5 medium: 13)", low=0, high=1000
    )
    learn_sigma: bool = key(False, "dit, sit: a final layer of twice the channels, whose second half is not used")
    largest_image: int = key(
        0, "longest side, in pixels, that has positions (SD3 5.3.2); 0: data.image_size", low=0, high=65_536
    )
    base_image: int = key(
        0, "side at which patches lie 1 apart: 256 in SD3, 32 latents; 0: data.image_size", low=0, high=65_536
    )
    stored_positions: int = key(
        0, "side, in patches, of a checkpoint's table of positions; 0: by formula", low=0, high=16_384
    )
    time: str = key(
        "",
        "what the network is told; empty: t for sit, else 1000t; 1000t-1: DiT's own weights; 1-t: SiT's own",
        choices=("", "1000t", "1000t-1", "t", "1-t"),
    )
    frequency_shift: int = key(0, "of the time's sinusoid: 1 in diffusers' DiT", low=0, high=1)
    projectors: tuple[int, ...] = key(
        (), "widths of the encoders that a REPA checkpoint's projectors aim at", low=1, high=65_536
    )
    projector_width: int = key(2048, "hidden width of the projectors", low=1, high=65_536)


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """AdamW, its schedule, and the average of the weights."""

    learning_rate: float = key(1e-4, "peak learning rate of a model of depth 1", low=0, high=100)
    depth_exponent: float = key(
        0.0, "the peak is learning_rate x depth^depth_exponent: the ladder's rule", low=-10, high=10
    )
    warmup: int = key(1000, "steps of linear warm-up", low=0, high=MOST_STEPS)
    decay: str = key("none", "after the warm-up, down to zero at the last step", choices=("none", "cosine", "linear"))
    b1: float = key(0.9, "decay of the first moment", low=0, high=0.99999)
    b2: float = key(0.999, "decay of the second moment", low=0, high=0.9999999)
    eps: float = key(
        1e-8, "added to the root of the second moment (1e-15 with QK-norm in bf16: SD3 5.3.2)", low=1e-30, high=1
    )
    weight_decay: float = key(0.0, "decoupled weight decay of matrices", low=0, high=1000)
    clip: float = key(1.0, "largest global norm of the gradient; 0: none", low=0, high=1e9)
    flatten: bool = key(False, "update one long vector: compiles in half the time, for runs on one device")
    ema_decay: float = key(
        0.99, "decay of the averaged weights per update, warmed up as (1 + n) / (10 + n)", low=0, high=1
    )
    ema_every: int = key(100, "steps between updates of the average", low=1, high=MOST_STEPS)


@dataclasses.dataclass(frozen=True)
class Training:
    """The loop."""

    batch: int = key(64, "global batch size in examples", low=1, high=2**24)
    steps: int = key(1000, "updates", low=1, high=MOST_STEPS)
    seed: int = key(0, "of everything random in a run", low=0, high=LARGEST_SEED)
    log_every: int = key(20, "steps between lines of metrics", low=1, high=MOST_STEPS)
    validate_every: int = key(0, "steps between validation losses; 0: only at the end", low=0, high=MOST_STEPS)
    checkpoint_every: int = key(500, "steps between checkpoints", low=1, high=MOST_STEPS)
    keep_checkpoints: int = key(2, "how many of the latest to keep", low=1, high=1_000_000)
    accumulate: int = key(
        1, "parts of a batch that a device works on one after the other, for less memory", low=1, high=2**24
    )
    attention_every: int = key(
        0,
        "steps between measures of each block's attention: largest logit, entropy (SD3 Fig. 5); 0: none",
        low=0,
        high=MOST_STEPS,
    )
    start_from: str = key(
        "", "folder of a run whose weights to begin with: of a study, or made by rfjax.interop import"
    )
    select: str = key(
        "last", "weights to draw samples from: the last, or of the lowest validation loss", choices=("last", "best")
    )


@dataclasses.dataclass(frozen=True)
class Mesh:
    """How devices are arranged; one axis may be -1, which means all that are left."""

    data: int = key(-1, "devices that share the batch only", low=1, high=2**20, also=-1)
    fsdp: int = key(1, "devices that share the batch and the parameters", low=1, high=2**20, also=-1)
    tensor: int = key(
        1,
        "devices that share attention heads and hidden units of MLPs, and see the same examples",
        low=1,
        high=2**20,
        also=-1,
    )


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Several processes, and several jobs, at one study."""

    join: str = key(
        "auto",
        "the processes of one job: auto, where the environment says that there are several (TPU VMs, GKE, Slurm, "
        "launch/local.sh)",
        choices=("auto", "always", "never"),
    )
    coordinator: str = key("", "address host:port of process 0, where the environment does not say it")
    processes: int = key(0, "how many there are, with coordinator", low=0, high=2**20)
    process: int = key(-1, "which of them this is, with coordinator", low=-1, high=2**20)
    stale_minutes: float = key(
        5.0, "without a sign of life, after which another job's lock on a run is void", low=0.01, high=1e6
    )


@dataclasses.dataclass(frozen=True)
class Recovery:
    """What happens when training goes wrong."""

    skips: int = key(
        0,
        "how many batches a run may skip: it goes back to the checkpoint before a loss that was not finite or "
        "exploded, and leaves that batch out; 0: it stops there",
        low=0,
        high=1_000_000,
    )
    explosion: float = key(
        10.0,
        "a loss this many times the median of the last lines of metrics has exploded; 0: never",
        low=1.01,
        high=1e9,
        also=0,
    )
    hang_seconds: float = key(
        600.0, "without progress, after which a run says where it hangs; 0: never", low=0.1, high=1e7, also=0
    )
    hang_exits: bool = key(False, "and then ends with exit code 70, so that a launcher starts it again")


@dataclasses.dataclass(frozen=True)
class Validation:
    """The measured quantity: the loss on fixed (example, t, noise) triples."""

    examples: int = key(1024, "number of triples", low=8, high=2**24)
    batch: int = key(256, "examples per step; the loss does not depend on it", low=1, high=2**24)
    levels: str = key("k/8", "the levels of t", choices=("k/8", "(k+0.5)/8"))


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Pictures drawn at the end of each run, and scored where the data set has a score (shapes, digits)."""

    count: int = key(64, "captions from the validation set; 0: none", low=0, high=1_000_000)
    shown: int = key(16, "how many of them to keep as pictures", low=0, high=10_000)
    batch: int = key(32, "pictures drawn at once; the pictures do not depend on it", low=1, high=65_536)
    settings: tuple[str, ...] = key(("25@3.0",), "STEPS@GUIDANCE: steps of the solver, scale of guidance (1: none)")
    sampler: str = key("euler", "the solver", choices=("euler", "heun", "ddim", "dpm++2m", "dopri5", "euler_maruyama"))
    schedule: str = key(
        "own",
        "times; own: karras for edm, evenly spaced for the other formulations",
        choices=("own", "uniform", "discrete", "karras", "repa", "sd3-ref"),
    )
    shift: float = key(
        1.0, "of the times towards noise, for high resolutions (SD3 Eq. 23); 1: none", low=1e-3, high=1e3
    )
    diffusion: str = key(
        "linear",
        "euler_maruyama: the noise it adds",
        choices=("constant", "sbdm", "sigma", "linear", "decreasing", "increasing-decreasing"),
    )
    guidance_low: float = key(0.0, "guidance is on from this t", low=0, high=1)
    guidance_high: float = key(1.0, "to this t", low=0, high=1)
    guidance_channels: int = key(
        0, "guide the first channels only (DiT's and SiT's own code: 3 of 4); 0: all", low=0, high=4096
    )
    weights: str = key("both", "whose pictures: the final ones, the average, or both", choices=("both", "raw", "ema"))
    along: bool = key(False, "also score the averaged weights at every validation along the run, at the first setting")


@dataclasses.dataclass(frozen=True)
class Generate:
    """The job `generate`: pictures from one model. Solver, times and interval of guidance are those of `sampling`."""

    source: str = key("", "folder of a run, or a checkpoint of another project")
    layout: str = key("", "whose checkpoint that is, if it is another project's; empty: found from its files")
    prompts: tuple[str, ...] = key(
        (), "a picture each; class labels by number; empty: the first captions of the run's validation data"
    )
    encodings: str = key("", ".npz file with context (n, L, E), pooled (n, P) and, if you like, captions (n), to draw")
    count: int = key(16, "pictures, where no prompts are given", low=1, high=1_000_000)
    weights: str = key("ema", "of a run: the average or the last", choices=("ema", "raw"))
    steps: int = key(25, "of the solver", low=1, high=MOST_SAMPLER_STEPS)
    guidance: float = key(3.0, "scale of guidance; 1: none", low=0, high=LARGEST_GUIDANCE)
    seed: int = key(0, "of the noise, with a picture's place in the list", low=0, high=LARGEST_SEED)
    height: int = key(
        0, "of the pictures, in the model's pixels (of latents: latent pixels); 0: as trained", low=0, high=65_536
    )
    width: int = key(0, "likewise", low=0, high=65_536)
    columns: int = key(4, "of the grid of pictures", low=1, high=1000)
    batch: int = key(32, "pictures drawn at once", low=1, high=65_536)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The job `plan`: memory, communication and time of a study's runs on devices that need not be there."""

    devices: int = key(8, "how many", low=1, high=16_384)
    chip: str = key(
        "h100",
        "which",
        choices=("a100-40", "a100-80", "h100", "h200", "b200", "tpu-v4", "tpu-v5e", "tpu-v5p", "tpu-v6e"),
    )
    latents: str = key(
        "float32",
        "type that the data set stores latents in, which a batch of them keeps: data.name = latents may keep float16",
        choices=("float32", "float16"),
    )
    utilisation: float = key(0.4, "share of the chip's peak that training reaches (MFU)", low=0.001, high=1)


@dataclasses.dataclass(frozen=True)
class Study:
    """Many runs and what to fit to them."""

    name: str = key("scaling", "title of the report")
    report: str = key(
        "scaling",
        "what the runs are compared in",
        choices=("scaling", "formulations", "sampling", "architectures"),
        paths=True,
    )
    source: str = key("", "sampling: folder of the finished study whose models are sampled")
    axes: dict[str, Any] = key({}, "what the runs differ in: axes.model.depth = (1, 2, 3) and so on")
    x: str = key("parameters", "the size that the law is a function of", choices=("parameters", "train_flops"))
    law: str = key(
        "power_offset",
        "the law in the report's headline; the offset E of power_offset belongs to the examples seen",
        choices=("power", "power_offset"),
    )
    objective: str = key("log_squares", "of the fit", choices=("squares", "log_squares", "log_huber"))
    weights: str = key("ema", "whose validation loss is fitted", choices=("ema", "raw"))
    hold_out: int = key(1, "largest rungs kept out of the fit, to judge it", low=0, high=1000)
    surface: bool = key(False, "also fit L(N, D) to the checkpoints along each run")


@dataclasses.dataclass(frozen=True)
class Config:
    """All of it."""

    job: str = key(
        "study",
        "study: train and report; report: make the report again; generate: draw from one model; plan: what the study "
        "needs on a machine, without one",
        choices=("study", "report", "generate", "plan"),
    )
    workdir: str = key("work/scaling", "folder of the study, or of the pictures")
    only: str = key("", "train this run alone, and write no report")
    data: Data = dataclasses.field(default_factory=Data)
    text: Text = dataclasses.field(default_factory=Text)
    flow: Flow = dataclasses.field(default_factory=Flow)
    model: Model = dataclasses.field(default_factory=Model)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    training: Training = dataclasses.field(default_factory=Training)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    cluster: Cluster = dataclasses.field(default_factory=Cluster)
    recovery: Recovery = dataclasses.field(default_factory=Recovery)
    plan: Plan = dataclasses.field(default_factory=Plan)
    validation: Validation = dataclasses.field(default_factory=Validation)
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    generate: Generate = dataclasses.field(default_factory=Generate)
    study: Study = dataclasses.field(default_factory=Study)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON; `from_dict` is its inverse."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
