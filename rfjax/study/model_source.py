"""Where the jobs `generate` and `archive` find their model: the folder of a run, or another project's checkpoint."""

from pathlib import Path

from rfjax import config as configs
from rfjax.buckets import mirror
from rfjax.config import Config
from rfjax.errors import UserError
from rfjax.evaluation.sampler import Sampleable
from rfjax.training import mesh as meshes
from rfjax.training import weights
from rfjax.training.encode import EncodeStage
from rfjax.training.weights import Weights
from rfjax.untrusted import Unreadable, read_json

LONGEST_LABEL = 80  # bytes
RUN_SECTIONS = {"data", "text", "flow", "model"}  # what tells a run's config.json from another project's


def read_model(request: configs.Generate, mesh: configs.Mesh) -> Weights:
    """The model of a run's folder, or of another project's checkpoint.

    Raises:
        UserError: if there is none.
    """
    source = mirror.reading(request.source, "config.generate.source")
    if not source.exists():
        raise UserError(f"there is no {source}: config.generate.source must be the folder of a run, or a checkpoint")
    if (source / "study.json").is_file():
        runs = sorted(path.parent for path in source.glob("runs/*/config.json"))
        such = f", such as {runs[-1]}" if runs else ", once it has one"
        raise UserError(f"{source} is the folder of a study: let config.generate.source be one of its runs{such}")
    if not request.layout and is_run(source):
        return weights.read_weights(source, mesh, request.weights == "ema")
    from rfjax import interop

    return interop.read(source, request.layout, mesh)


def open_network(config: Config) -> tuple[Weights, EncodeStage, Sampleable]:
    """The model of `config.generate.source` with its encoders, and as something to sample from at the asked size.

    Raises:
        UserError: if there is none, or it can't make such pictures.
    """
    model = read_model(config.generate, config.mesh)
    sides = configs.check_generate(config.generate, model.config)
    stage = EncodeStage.place(model.spec.encoders, meshes.make_mesh(config.mesh))
    network = model.sampleable(stage, (*sides, model.spec.inputs.shape[-1]))
    guided, channels = config.sampling.guidance_channels, network.codec.shape[-1]
    if guided > channels and not config.generate.preset:
        raise UserError(f"config.sampling.guidance_channels = {guided}, and this model has {channels} channels")
    return model, stage, network


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
