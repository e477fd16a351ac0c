"""All keys of a config, by section: each with its default, its bounds and what it does. `--help` prints this list."""

import dataclasses
import json
from typing import Any

from rfjax.config.keys.alignment import Alignment
from rfjax.config.keys.data import Data
from rfjax.config.keys.design import Design
from rfjax.config.keys.encode import Encode
from rfjax.config.keys.encoders import Autoencoder, Text
from rfjax.config.keys.evaluation import Evaluate
from rfjax.config.keys.machines import Cluster, Mesh, Plan
from rfjax.config.keys.model import Flow, Model
from rfjax.config.keys.representations import Representations
from rfjax.config.keys.sampling import Archive, Generate, Sampling
from rfjax.config.keys.study import Study
from rfjax.config.keys.suite import Suite
from rfjax.config.keys.training import Optimizer, Recovery, Training, Validation
from rfjax.config.rules import key


@dataclasses.dataclass(frozen=True)
class Config:
    """Holds the job, its folder, and one attribute for each section."""

    job: str = key(
        "study",
        "Chooses the job: `study` trains the runs and writes the report, `report` rewrites the report from the files "
        "of a study, `generate` makes pictures with one model, `archive` makes very many in one file for evaluators, "
        "`evaluate` measures the pictures of models, archives or folders by the papers' metrics, "
        "`suite` draws the prompts of a benchmark in its own layout and reads its scores, "
        "`encode` turns a data set into stored latents, text encodings and features, `representations` measures the "
        "hidden states of the models of study.source, `plan` computes what the study needs on other devices, "
        "`design` proposes the ladder that predicts a larger model, from the finished runs in workdir.",
        choices=(
            "study",
            "report",
            "generate",
            "archive",
            "evaluate",
            "suite",
            "encode",
            "representations",
            "plan",
            "design",
        ),
    )
    workdir: str = key(
        "work/scaling", "Names the folder that the study, or the pictures of `generate` or `archive`, are written to."
    )
    only: str = key("", "Trains only the run of this name and writes no report. Empty trains all runs.")
    encoders: tuple[str, ...] = key(
        (), "Lists frozen encoders, each named as MODULE:NAME, that run on each batch before the training step."
    )
    options: dict[str, Any] = key(
        {},
        "Holds values for your own modules. A config file sets them, as in options.weight = 0.5; flags change them.",
    )
    data: Data = dataclasses.field(default_factory=Data)
    autoencoder: Autoencoder = dataclasses.field(default_factory=Autoencoder)
    text: Text = dataclasses.field(default_factory=Text)
    flow: Flow = dataclasses.field(default_factory=Flow)
    model: Model = dataclasses.field(default_factory=Model)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    training: Training = dataclasses.field(default_factory=Training)
    alignment: Alignment = dataclasses.field(default_factory=Alignment)
    mesh: Mesh = dataclasses.field(default_factory=Mesh)
    cluster: Cluster = dataclasses.field(default_factory=Cluster)
    recovery: Recovery = dataclasses.field(default_factory=Recovery)
    plan: Plan = dataclasses.field(default_factory=Plan)
    design: Design = dataclasses.field(default_factory=Design)
    validation: Validation = dataclasses.field(default_factory=Validation)
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    representations: Representations = dataclasses.field(default_factory=Representations)
    generate: Generate = dataclasses.field(default_factory=Generate)
    archive: Archive = dataclasses.field(default_factory=Archive)
    encode: Encode = dataclasses.field(default_factory=Encode)
    evaluate: Evaluate = dataclasses.field(default_factory=Evaluate)
    suite: Suite = dataclasses.field(default_factory=Suite)
    study: Study = dataclasses.field(default_factory=Study)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON; `from_dict` is the inverse."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
