"""One run from its config: trains, measures, draws, and writes everything down; goes on where it was stopped."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from clu import parameter_overview
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rfjax import data, models
from rfjax.config import Config, differences
from rfjax.data import pixels
from rfjax.errors import UserError
from rfjax.evaluation import pictures, validation
from rfjax.models.counting import abstract_parameters
from rfjax.training import mesh as meshes
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.compiling import quick_options
from rfjax.training.logs import Clock, Metrics, write_json
from rfjax.training.parts import Parts, make_parts
from rfjax.training.step import State, abstract_state, initial_state, jit_draw, jit_update, recipe
from rfjax.training.stop import Interrupted, Stop


@runtime_checkable
class Display(Protocol):
    """What a run tells the person who waits."""

    def update(self, step: int, loss: float, examples_per_second: float, flops_per_second: float) -> None: ...

    def say(self, activity: str) -> None: ...


class Diverged(Exception):
    """The loss is not a number any more."""


@dataclass(frozen=True)
class Run:
    """One run of a study: its name, its config and its folder."""

    name: str
    config: Config
    folder: Path

    def result(self) -> dict[str, Any] | None:
        """What a complete run has written, or None.

        Raises:
            UserError: if the folder holds a run of another config.
        """
        path = self.folder / "config.json"
        if path.exists() and (found := differences(self.config.to_dict(), json.loads(path.read_text()))):
            raise UserError(
                f"{self.folder} holds a run of another config: {'; '.join(found[:3])}; choose another config.workdir"
            )
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.exists() else None


def train(run: Run, display: Display, stop: Stop) -> dict[str, Any]:
    """Trains a run to its end, from its newest checkpoint where there is one, and returns its result.

    Raises:
        UserError: for what the user can mend. Interrupted: after a checkpoint, if `stop` is wished.
        Diverged: if the loss is not finite.
    """
    clock = Clock()
    with clock("setup"):
        config = run.config
        mesh = meshes.make_mesh(config.mesh)
        meshes.check_batch("training.batch", config.training.batch, mesh)
        meshes.check_batch("validation.batch", config.validation.batch, mesh)
        parts = make_parts(config)
        size = models.measure(parts.model, parts.inputs)
        work = _Work(run, parts, mesh, clock, size, jax.jit(parts.model.apply, compiler_options=quick_options()))
        sources = {split: data.open_source(config.data, split) for split in ("train", "validation")}
        check_shapes(sources["train"], config, parts)
        if jax.process_index() == 0:
            write_json(run.folder / "config.json", config.to_dict())
            shapes = abstract_parameters(parts.model, parts.inputs)
            table = parameter_overview.get_parameter_overview(shapes, include_stats=False)
            (run.folder / "parameters.txt").write_text(f"{table}\n")
        saved = Checkpoints(run.folder / "checkpoints", config.training.keep_checkpoints)
    try:
        state, seconds = work.fit(sources, saved, display, stop)
        result = work.finish(state, seconds, sources["validation"], display)
    finally:
        saved.close()
    if jax.process_index() == 0:
        write_json(run.folder / "result.json", result)
    return result


def check_shapes(source: data.Source, config: Config, parts: Parts) -> None:
    """Raises UserError if the data set's examples do not have the shapes that the config says."""
    batch, _ = data.load(source, parts.encoder, [0])
    for name, found, wanted in (
        ("image", batch["image"].shape[1:], parts.inputs.image),
        ("context", batch["context"].shape[1:], parts.inputs.text),
        ("pooled", batch["pooled"].shape[1:], (parts.inputs.pooled_width,)),
    ):
        if tuple(found) != tuple(wanted):
            raise UserError(f"'{name}' of the data set has shape {tuple(found)}, but the config says {tuple(wanted)}")


@dataclass(frozen=True)
class _Work:
    """What the phases of a run share."""

    run: Run
    parts: Parts
    mesh: Mesh
    clock: Clock
    size: models.Size
    apply: Callable[..., jax.Array]

    def fit(
        self, sources: dict[str, data.Source], saved: Checkpoints, display: Display, stop: Stop
    ) -> tuple[State, float]:
        """The loop; returns the final state and the seconds of training over all sittings."""
        config, clock, training = self.run.config, self.clock, self.run.config.training
        share = data.Share(jax.process_index(), jax.process_count())
        batches = data.batches(
            sources["train"],
            self.parts.encoder,
            batch=training.batch,
            seed=training.seed,
            flip=config.data.flip,
            share=share,
        )
        earlier, start = 0.0, saved.latest or 0
        with clock("setup"):
            if saved.latest is None:
                display.say("drawing the initial weights")
                state = initial_state(self.parts, self.mesh, training.seed)
            else:
                display.say(f"reading the checkpoint of step {start}")
                state, earlier = saved.restore(abstract_state(self.parts, self.mesh), batches)
        metrics = Metrics(self.run.folder, active=jax.process_index() == 0, start=start)
        metrics.write("start", start, **self._facts())
        draw = jit_draw(recipe(self.parts, config), self.mesh)
        logged = start
        spent = lambda: earlier + clock.total().get("training", 0.0) + clock.seconds.get("data", 0.0)  # noqa: E731
        before = spent()
        with clock("training"):
            for step in range(start + 1, training.steps + 1):
                with clock("data"):
                    batch = meshes.put_batch(next(batches), self.mesh)
                if step == start + 1:
                    display.say("compiling the training step")
                    with clock("compilation"):
                        draws = draw(state.step, batch["slot"])
                        update = jit_update(self.parts, config, self.mesh).lower(state, batch, draws).compile()
                with jax.transfer_guard("disallow"):
                    state, measured = update(state, batch, draw(state.step, batch["slot"]))
                last = step == training.steps
                if step % training.log_every == 0 or last:
                    values = {name: float(value) for name, value in jax.device_get(measured).items()}
                    rate = (step - logged) * training.batch / max(spent() - before, 1e-9)
                    values["examples_per_second"] = rate
                    metrics.write("train", step, **self._progress(step, spent()), **values)
                    display.update(step, values["loss"], rate, rate * self.size.train_flops)
                    logged, before = step, spent()
                    if not np.isfinite(values["loss"]):
                        raise Diverged(f"the loss is not finite at step {step}: lower config.optimizer.learning_rate")
                if training.validate_every and step % training.validate_every == 0 and not last:
                    jax.block_until_ready(state)
                    self._validate(state, spent(), sources["validation"], metrics)
                stopping = stop.granted(step) and not last
                if step % training.checkpoint_every == 0 or last or stopping:
                    jax.block_until_ready(state)
                    with clock("checkpoints"):
                        saved.save(state, batches, spent())
                if stopping:
                    metrics.close()
                    raise Interrupted(f"stopped at step {step} of {training.steps}")
        metrics.close()
        return state, spent()

    def finish(self, state: State, seconds: float, source: data.Source, display: Display) -> dict[str, Any]:
        """Validation and samples of the final weights, and the run's result."""
        step = int(state.step)
        metrics = Metrics(self.run.folder, active=jax.process_index() == 0, start=step)
        display.say("measuring the validation loss")
        losses = self._validate(state, seconds, source, metrics, examples=True)
        display.say("drawing samples")
        with self.clock("samples"):
            self._draw(state, source, metrics)
        metrics.close()
        return {
            "name": self.run.name,
            "status": "complete",
            "step": step,
            "depth": self.run.config.model.depth,
            "size": asdict(self.size) | {"train_flops": self.size.train_flops},
            **self._progress(step, seconds),
            "validation": losses,
            "split_seconds": self.clock.total(),
        }

    def _facts(self) -> dict[str, Any]:
        device = jax.devices()[0]
        return {
            "name": self.run.name,
            "size": asdict(self.size) | {"train_flops": self.size.train_flops},
            "steps": self.run.config.training.steps,
            "devices": jax.device_count(),
            "device": device.device_kind,
            "mesh": dict(self.mesh.shape),
        }

    def _progress(self, step: int, seconds: float) -> dict[str, Any]:
        examples = step * self.run.config.training.batch
        return {"examples": examples, "flops": examples * self.size.train_flops, "seconds": seconds}

    def _network(self, params: Any) -> Callable[..., jax.Array]:
        """(z, t, context, pooled) -> prediction, jitted; its inputs are spread alike first, wherever they come from."""

        def network(*inputs: jax.Array) -> jax.Array:
            return self.apply({"params": params}, *map(self._place, inputs))

        return network

    def _place(self, values: Any) -> jax.Array:
        """Spreads a batch over the mesh where the mesh divides it, else puts it whole on every device.

        `values` is a global array, or one that every process has whole.
        """
        sharding = NamedSharding(self.mesh, meshes.BATCH if len(values) % self.mesh.size == 0 else PartitionSpec())
        if jax.process_count() == 1 or not getattr(values, "is_fully_addressable", True):
            return jax.device_put(values, sharding)
        whole = np.asarray(values)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    def _validate(
        self, state: State, seconds: float, source: data.Source, metrics: Metrics, examples: bool = False
    ) -> dict[str, Any]:
        """Measures raw and averaged weights; `examples` also writes the loss of each triple down."""
        config, step = self.run.config.validation, int(state.step)
        found = {}
        with self.clock("validation"):
            for weights, params in (("raw", state.params), ("ema", state.average)):
                result = validation.measure(
                    self._network(params),
                    lambda indices: self._triples(source, indices),
                    formulation=self.parts.flow.name,
                    grid=config.grid,
                    examples=config.examples,
                    batch=config.batch,
                )
                found[weights] = result.record()
                metrics.write("validation", step, **self._progress(step, seconds), weights=weights, **found[weights])
                if examples:
                    rounded = [round(float(loss), 7) for loss in result.examples]
                    metrics.write("examples", step, weights=weights, grid=config.grid, losses=rounded)
        return found

    def _triples(self, source: data.Source, indices: list[int]) -> dict[str, jax.Array]:
        batch, _ = data.load(source, self.parts.encoder, indices)
        return {name: self._place(value) for name, value in {**batch, "slot": np.asarray(indices, np.int32)}.items()}

    def _draw(self, state: State, source: data.Source, metrics: Metrics) -> None:
        """Draws the first validation captions with raw and averaged weights, from the same noise in every run."""
        config = self.run.config.samples
        if not config.count:
            return
        batch, captions = data.load(source, self.parts.encoder, list(range(config.count)))
        start = self._place(pictures.noise(config.count, self.parts.inputs.image))
        text = (self._place(batch["context"]), self._place(batch["pooled"]))
        settings = pictures.Settings(config.sampler, config.steps, config.guidance)
        folder = self.run.folder / "samples"
        visible = self.parts.inputs.image[-1] in (1, 3) and jax.process_index() == 0  # latents are no pictures
        for weights, params in (("raw", state.params), ("ema", state.average)):
            drawn = pictures.draw(self._network(params), self.parts.flow, start, text, settings)
            drawn = pixels.to_pixels(validation.gather(drawn))
            if visible:
                pictures.save(folder, weights, drawn, captions)
        if visible:
            pictures.save(folder, "data", batch["image"], captions)
        metrics.write("samples", int(state.step), captions=captions, **asdict(settings))
