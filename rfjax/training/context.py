"""What the phases of a run share: its programs, its data, its devices, its clock, and who wants to know."""

import contextlib
import csv
import functools
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rfjax import data, files, flow, models
from rfjax.config import Config
from rfjax.encoders import Encoder
from rfjax.errors import UserError
from rfjax.evaluation.metrics import make_metrics
from rfjax.models.counting import abstract_parameters
from rfjax.models.parameterisation import Multipliers, Scaling
from rfjax.training import encodings, provenance
from rfjax.training import mesh as meshes
from rfjax.training.clock import Clock
from rfjax.training.encode import EncodeStage
from rfjax.training.log import Display
from rfjax.training.run import Run
from rfjax.training.spec import RunSpec, make_run_spec
from rfjax.training.step import jit_network, jit_noise
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.watchdog import Watchdog
from rfjax.trees import leaf_name


@dataclass(frozen=True)
class RunContext:
    """What the phases of a run share.

    Attributes:
        run: its name, config and folder.
        spec: what its compiled programs depend on.
        formulation: path, prediction and density.
        mesh: of the devices.
        encode: the stage between loading and the network.
        encode_features: the same with the encoders that only training needs.
        sources: the data by split.
        size: of the network.
        clock: seconds by activity.
        stop: whether the run should stop.
        watchdog: waits for signs of life.
        display: what the person who waits sees.
    """

    run: Run
    spec: RunSpec
    formulation: flow.Formulation
    mesh: Mesh
    encode: EncodeStage
    encode_features: EncodeStage
    sources: dict[str, data.Source]
    size: models.Size
    clock: Clock
    stop: Stop
    watchdog: Watchdog
    display: Display

    @property
    def config(self) -> Config:
        """The run's."""
        return self.run.config

    def description(self) -> dict[str, Any]:
        """The line of metrics that each start begins with."""
        return {
            "name": self.run.name,
            "size": asdict(self.size) | {"train_flops": self.size.train_flops},
            "alignment_flops": self.spec.alignment_flops,
            "steps": self.config.training.steps,
            "quantities": [one.to_plain() for metric in make_metrics(self.config) for one in metric.quantities],
            "devices": jax.device_count(),
            "processes": jax.process_count(),
            "device": jax.devices()[0].device_kind,
            "mesh": dict(self.mesh.shape),
            **({"trunk": self.run.trunk.name, "trunk_step": self.run.first} if self.run.trunk else {}),
        }

    def everywhere(self, tree: Any) -> Any:
        """Puts small values whole on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def place(self, values: Any) -> jax.Array:
        """Spreads rows over the mesh."""
        return meshes.place(values, self.mesh)

    def doing(self, activity: str) -> None:
        """Tells the watchdog and the person who waits what comes now."""
        self.watchdog.beat(activity)
        self.display.say(activity)

    def pause(self, activity: str) -> None:
        """A place between two pieces of a long measurement: a sign of life, and a chance to stop.

        Raises:
            Interrupted: if the run should stop; the loop saves first.
        """
        self.watchdog.beat(activity)
        if self.stop.granted():
            raise Interrupted(f"stopped while {activity}", self.stop.code)

    def noise(self) -> Callable[[Any, Any], Any]:
        """(step, slot), on the devices -> what is random in a step."""
        sample = jit_noise(self.spec.objective, self.spec.inputs, self.mesh)
        formulation, seed = self.everywhere((self.formulation.arrays, np.uint32(self.config.training.seed)))
        return lambda step, slot: sample(formulation, seed, step, slot)

    def load(self, split: str, indices: list[int], stage: EncodeStage | None = None) -> dict[str, Any]:
        """Examples as an encoded batch on the devices, whose `slot` holds their indices; stage: None for the run's."""
        stage = stage or self.encode
        rows = meshes.rows_here(len(indices), self.mesh)
        source, own = self.sources[split], [indices[row] for row in rows]
        batch, _ = data.load(source, own, stage.prepare, stage.names(source))
        put = meshes.put_rows({**batch, "slot": np.asarray(own, np.int32)}, len(indices), self.mesh)
        return stage(put, *self._zeros)

    @functools.cached_property
    def _zeros(self) -> tuple[jax.Array, jax.Array]:
        """Seed and step of data that no training step sees, on the devices once."""
        return self.everywhere((np.uint32(0), np.int32(0)))

    def network(self, params: Any) -> Callable[..., jax.Array]:
        """(z, t, cond) -> prediction with these whole weights, jitted; its inputs are spread alike first."""
        apply = jit_network(self.spec.model, self.spec.full_opt)
        return lambda *inputs: apply({"params": params}, *jax.tree.map(self.place, inputs))


@contextlib.contextmanager
def open_context(run: Run, display: Display, stop: Stop) -> Iterator[RunContext]:
    """Everything that a run needs, for the time of a `with`; writes the run's config and its table of parameters.

    Raises:
        UserError: for what the user can mend.
    """
    clock, watchdog = Clock(), Watchdog(run.name, run.folder, run.config.recovery)
    with watchdog.watching():
        with clock("setup"):
            config, mesh, spec = run.config, meshes.make_mesh(run.config.mesh), make_run_spec(run.config)
            shapes = check_mesh(config, spec, mesh)
            sources = provenance.open_and_admit(run, display.warn)
            check_shapes(sources["train"], spec)
            encodings.admit(run, (*spec.encoders, *spec.features), config.data.changed == "allow")
            if jax.process_index() == 0:
                run.write_config()
                table = parameter_overview.get_parameter_overview(shapes, include_stats=False)
                files.write(run.folder / "parameters.txt", f"{table}\n")
                if spec.scaling:
                    files.write(run.folder / "parameterisation.csv", scaling_table(spec.scaling, shapes))
            encode = EncodeStage.place(spec.encoders, mesh)
            context = RunContext(
                run=run,
                spec=spec,
                formulation=flow.formulation(config.flow.formulation, config.flow.shift),
                mesh=mesh,
                encode=encode,
                encode_features=encode.extended(spec.features, mesh),
                sources=sources,
                size=models.measure(spec.model, spec.inputs),
                clock=clock,
                stop=stop,
                watchdog=watchdog,
                display=display,
            )
        yield context


def check_mesh(config: Config, spec: RunSpec, mesh: Mesh) -> Any:
    """Checks that the mesh can divide the batches and the model; returns the weights as shapes.

    Raises:
        UserError: if it can't, or the optimizer can't be spread over it.
    """
    meshes.check_batch("training.batch", config.training.batch, mesh, config.training.accumulate)
    meshes.check_batch("validation.batch", config.validation.batch, mesh)
    shapes = abstract_parameters(spec.model, spec.inputs)
    meshes.check_model(spec.model, shapes, mesh)
    if config.optimizer.flatten and mesh.size > mesh.shape[meshes.DATA]:
        raise UserError(
            "config.optimizer.flatten makes one vector of all weights, which config.mesh.fsdp and tensor can't share "
            "out: set config.optimizer.flatten = False"
        )
    paths = [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)]
    if spec.scaling:
        list(map(spec.scaling.kind, paths))
    if spec.adapter is None and not any(map(spec.trains, paths)):
        raise UserError(
            f"config.training.trainable = '{spec.trainable}' matches the path of no weight, such as {paths[0]}"
        )
    if spec.adapter and mesh.shape[meshes.TENSOR] > 1:
        raise UserError("config.model.adapter works with config.mesh.tensor = 1: use config.mesh.fsdp in its place")
    return shapes


def scaling_table(scaling: Scaling, shapes: Any) -> str:
    """Each weight, its kind and its multipliers, as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("weight", "kind", *Multipliers._fields))
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        name = leaf_name(path)
        numbers = (f"{value:.6g}" for value in scaling.multipliers(name, leaf.shape))
        rows.writerow((name, scaling.table.kinds[scaling.kind(name)].name, *numbers))
    return text.getvalue()


def check_shapes(source: data.Source, spec: RunSpec) -> None:
    """Raises UserError if the data set's examples, once prepared, do not have the shapes that the config says."""
    check_fields(source, (*spec.encoders, *spec.features), spec)
    known, needed = getattr(spec.text, "classes", 0), getattr(source, "classes", 0)
    if known and needed > known:
        raise UserError(
            f"the data set has label {needed - 1}, and config.text.pooled_width = {known} allows 0 to {known - 1}: set "
            f"it to {needed} or more"
        )


def check_fields(source: data.Source, encoders: tuple[Encoder, ...], spec: RunSpec) -> None:
    """Raises UserError if what these encoders read of a data set does not have the shapes that the config says."""
    stage = EncodeStage(encoders, ())
    batch, _ = data.load(source, [0], stage.prepare, stage.names(source))
    example = getattr(spec.codec, "example", spec.codec.shape)
    wanted = {name: example for name in ("image", "latent") if name in spec.codec.reads}
    wanted |= {"context": spec.inputs.cond.context.shape, "pooled": spec.inputs.cond.pooled.shape}
    for name, shape in wanted.items():
        if name in batch and tuple(batch[name].shape[1:]) != tuple(shape):
            found = tuple(batch[name].shape[1:])
            raise UserError(f"'{name}' of the data set has shape {found}, but the config says {tuple(shape)}")
