"""Where the jobs `generate` and `archive` find their model: the folder of a run, or another project's checkpoint.

A model comes with the encoders that its config names. A diffusers pipeline has its own beside its network, and the
job's own config.text.path and config.autoencoder.path take the place of either.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rfjax import config as configs
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.encoders import prompt_encoder
from rfjax.errors import UserError
from rfjax.evaluation.sampler import Sampleable
from rfjax.training import mesh as meshes
from rfjax.training import weights
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.weights import Weights
from rfjax.untrusted import Unreadable, read_json

LONGEST_LABEL = 80  # bytes
RUN_SECTIONS = {"data", "text", "flow", "model"}  # what tells a run's config.json from another project's
CLIP_TOKENS = 77  # that the text of SD3 begins with: a longer config.text.length has T5's as well
PIPELINE_TEXT = ("text_encoder", "text_encoder_2", "text_encoder_3")  # folders of a pipeline beside its network
PIPELINE_VAE = "vae"


@dataclass(frozen=True)
class Found:
    """A model of which nothing is read yet but its config.

    Attributes:
        config: of its network, with the encoders that this job takes.
        spec: of that config.
        read: reads the weights, which are all that it needs of the run's own config.
    """

    config: Config
    spec: RunSpec
    read: Callable[[], Weights]

    def load(self) -> Weights:
        """The weights on the devices."""
        return replace(self.read(), config=self.config, spec=self.spec)

    def size(self, request: configs.Generate) -> tuple[int, ...]:
        """The shape of z for the pictures that are asked for.

        Raises:
            UserError: if the model can't make such pictures.
        """
        codec = self.spec.codec
        sides = configs.check_generate(request, self.config, codec.shape[-3:-1], getattr(codec, "factor", 1))
        return (*codec.shape[:-3], *sides, codec.shape[-1])


def find_model(config: Config) -> Found:
    """The model of `config.generate.source`: a run's folder, or another project's checkpoint.

    Raises:
        UserError: if there is none, or its encoders are not its own.
    """
    request, source = config.generate, mirror.reading(config.generate.source, "config.generate.source")
    if not source.exists():
        raise UserError(f"there is no {source}: config.generate.source must be the folder of a run, or a checkpoint")
    if (source / "study.json").is_file():
        runs = sorted(path.parent for path in source.glob("runs/*/config.json"))
        such = f", such as {runs[-1]}" if runs else ", once it has one"
        raise UserError(f"{source} is the folder of a study: let config.generate.source be one of its runs{such}")
    if not request.layout and is_run(source):
        own = weights.read_config(source)
        check_step(source, request.step)
        chosen = with_encoders(own, config)

        def read() -> Weights:
            step = request.step or None
            return weights.read_weights(source, config.mesh, request.weights == "ema", step, config=chosen)
    else:
        from rfjax import interop

        own = interop.read_config(source, request.layout)
        chosen = with_encoders(own, config, source)

        def read() -> Weights:
            return interop.read(source, request.layout, config.mesh)

    spec = make_run_spec(chosen)
    _check_text(chosen, own, spec)
    return Found(chosen, spec, read)


def check_step(source: Path, step: int) -> None:
    """Raises UserError if a run has no checkpoint of this step."""
    if step and step not in (kept := weights.kept_steps(source)):
        there = ", ".join(map(str, kept)) or "none"
        raise UserError(f"config.generate.step = {step}: the run in {source} has checkpoints of the steps {there}")


def with_encoders(own: Config, asked: Config, pipeline: Path | None = None) -> Config:
    """A model's config with the encoders that a job names, else those of its pipeline, else its own.

    Args:
        own: of the model.
        asked: of the job.
        pipeline: the folder that another project's model lies in; None for a run.
    """
    text, autoencoder = own.text, own.autoencoder
    if text.path and not asked.text.path:
        text = replace(text, encoder=prompt_encoder(text))
    beside = pipeline is not None and any((pipeline / name).is_dir() for name in PIPELINE_TEXT)
    path = asked.text.path or (str(pipeline) if beside else "")
    if path and not asked.generate.encodings:  # which need no encoder
        kind = prompt_encoder(text)
        length = asked.text.length if asked.text.length > CLIP_TOKENS else text.length
        null = ("empty" if pipeline else "zeros") if asked.text.null == "own" else asked.text.null
        text = replace(
            asked.text,
            encoder=kind,
            path=path,
            length=length if kind == "sd3" else text.length,
            width=0,
            pooled_width=0,
            layout=text.layout,
            drop=text.drop,
            null=null,
        )
    if path := asked.autoencoder.path or (str(pipeline) if pipeline and (pipeline / PIPELINE_VAE).is_dir() else ""):
        autoencoder = replace(asked.autoencoder, path=path)
    return replace(own, text=text, autoencoder=autoencoder)


def _check_text(chosen: Config, own: Config, spec: RunSpec) -> None:
    """Refuses text encoders of other widths than the network reads."""
    if chosen.text.path == own.text.path or not own.text.width:
        return
    made = spec.inputs.cond
    found, wanted = (made.context.shape[-1], made.pooled.shape[-1]), (own.text.width, own.text.pooled_width)
    if found != wanted:
        raise UserError(
            f"the text encoders in {chosen.text.path} make tokens of {found[0]} channels and a pooled vector of "
            f"{found[1]}, and this network reads {wanted[0]} and {wanted[1]}: name its own in config.text.path"
        )


def open_network(config: Config) -> tuple[Weights, EncodeStage, Sampleable]:
    """The model of `config.generate.source` with its encoders, and as something to sample from at the asked size.

    Raises:
        UserError: if there is none, or it can't make such pictures.
    """
    found = find_model(config)
    shape = found.size(config.generate)
    check_guided(config, shape[-1])
    model = found.load()
    stage = EncodeStage.place(model.spec.encoders, meshes.make_mesh(config.mesh))
    return model, stage, model.sampleable(stage, shape)


def check_guided(config: Config, channels: int) -> None:
    """Raises UserError if more channels are to be guided than the model has."""
    guided = config.sampling.guidance_channels
    if guided > channels and not config.generate.preset:
        raise UserError(f"config.sampling.guidance_channels = {guided}, and this model has {channels} channels")


def is_run(source: Path) -> bool:
    """Whether this is a run's folder: other projects write a config.json as well."""
    try:
        plain = read_json(source / "config.json")
    except Unreadable:
        return (source / "checkpoints").is_dir()
    return set(plain or ()) >= RUN_SECTIONS or (plain is None and (source / "checkpoints").is_dir())


def label_of(source: Path) -> str:
    """A short name of the model, for people and files, whose names may have 255 bytes."""
    name = source.resolve().stem if source.is_file() else source.resolve().name
    return name.encode()[:LONGEST_LABEL].decode(errors="ignore")
