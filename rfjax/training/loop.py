"""One run from its config: trains, measures, draws, and writes everything down; goes on where it was stopped."""

import functools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from clu import parameter_overview
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rfjax import data, flow, models
from rfjax.config import Config, differences
from rfjax.errors import UserError
from rfjax.evaluation import pictures, sampling, scorers, validation
from rfjax.models.counting import abstract_parameters
from rfjax.training import mesh as meshes
from rfjax.training import weights as stored
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.logs import Clock, Metrics, read_lines, write_json
from rfjax.training.parts import Parts, make_parts
from rfjax.training.step import State, abstract_state, compile_update, initial_state, jit_draw, jit_network, recipe
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
        work = _Work(run, parts, flow.formulation(config.flow.formulation, config.flow.shift), mesh, clock, size)
        sources = {split: data.open_source(config.data, split) for split in ("train", "validation")}
        check_shapes(sources["train"], config, parts)
        if jax.process_index() == 0:
            write_json(run.folder / "config.json", config.to_dict())
            shapes = abstract_parameters(parts.model, parts.inputs)
            table = parameter_overview.get_parameter_overview(shapes, include_stats=False)
            (run.folder / "parameters.txt").write_text(f"{table}\n")
        every = config.training.validate_every if config.training.select == "best" else 0
        saved = Checkpoints(run.folder / "checkpoints", config.training.keep_checkpoints, every)
    try:
        state, seconds = work.fit(sources, saved, display, stop)
        result = work.finish(state, seconds, sources["validation"], saved, display)
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
    formulation: flow.Formulation
    mesh: Mesh
    clock: Clock
    size: models.Size

    def fit(
        self, sources: dict[str, data.Source], saved: Checkpoints, display: Display, stop: Stop
    ) -> tuple[State, float]:
        """The loop; returns the final state and the seconds of training over all sittings."""
        config, clock, training = self.run.config, self.clock, self.run.config.training
        batches = self._batches(sources["train"])
        with clock("setup"):
            state, earlier = self._begin(saved, batches, display)
        start = saved.latest or 0
        metrics = Metrics(self.run.folder, active=jax.process_index() == 0, start=start)
        metrics.write("start", start, **self._facts())
        draw = functools.partial(
            jit_draw(recipe(self.parts, config), self.mesh), self._everywhere(self.formulation.numbers), self._seed()
        )
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
                        update = compile_update(self.parts, self.mesh, state, batch, draw(state.step, batch["slot"]))
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
                    if config.samples.along:
                        self._draw(state, sources["validation"], metrics, whole=False)
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

    def _begin(self, saved: Checkpoints, batches: Any, display: Display) -> tuple[State, float]:
        """The newest checkpoint's state and seconds, or fresh weights."""
        if saved.latest is None:
            display.say("drawing the initial weights")
            config = self.run.config
            state = initial_state(self.parts, self.mesh, config.training.seed)
            start = config.training.start_from
            return (stored.start_from(Path(start), state, config) if start else state), 0.0
        display.say(f"reading the checkpoint of step {saved.latest}")
        return saved.restore(abstract_state(self.parts, self.mesh), batches)

    def _batches(self, source: data.Source) -> Any:
        config = self.run.config
        return data.batches(
            source,
            self.parts.encoder,
            batch=config.training.batch,
            seed=config.training.seed,
            flip=config.data.flip,
            share=data.Share(jax.process_index(), jax.process_count()),
        )

    def finish(
        self, state: State, seconds: float, source: data.Source, saved: Checkpoints, display: Display
    ) -> dict[str, Any]:
        """Validation of the final weights, samples of the selected ones, and the run's result."""
        step = int(state.step)
        metrics = Metrics(self.run.folder, active=jax.process_index() == 0, start=step)
        display.say("measuring the validation loss")
        losses = self._validate(state, seconds, source, metrics, examples=True)
        if self.run.config.training.select == "best":
            best = self._best_step(step, losses["ema"]["loss"])
            if best != step:
                state = saved.restore(abstract_state(self.parts, self.mesh), None, best)[0]
        display.say("drawing samples")
        scores = self._draw(state, source, metrics)
        metrics.close()
        return {
            "name": self.run.name,
            "status": "complete",
            "step": step,
            "depth": self.run.config.model.depth,
            "size": asdict(self.size) | {"train_flops": self.size.train_flops},
            **self._progress(step, seconds),
            "validation": losses,
            "selected_step": int(state.step),
            "scores": scores,
            "split_seconds": self.clock.total(),
        }

    def _best_step(self, last: int, loss: float) -> int:
        """The step of the lowest validation loss of the averaged weights so far (SD3 App. B.3)."""
        lines, _ = read_lines(self.run.folder / "metrics.jsonl")
        losses = {
            line["step"]: line["loss"]
            for line in lines
            if line["kind"] == "validation" and line["weights"] == "ema" and line["loss"] is not None
        } | {last: loss}
        best = min(losses, key=losses.__getitem__)
        return int(multihost_utils.broadcast_one_to_all(np.int32(best))) if jax.process_count() > 1 else best

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
        """(z, time, context, pooled) -> prediction, jitted; its inputs are spread alike first, wherever from."""
        apply = jit_network(self.parts.model)

        def network(*inputs: jax.Array) -> jax.Array:
            return apply({"params": params}, *map(self._place, inputs))

        return network

    def _everywhere(self, tree: Any) -> Any:
        """Puts small values whole on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def _seed(self) -> jax.Array:
        return self._everywhere(np.uint32(self.run.config.training.seed))

    def _place(self, values: Any) -> jax.Array:
        return meshes.place(values, self.mesh)

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
                    formulation=self._everywhere(self.formulation.numbers),
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

    def _draw(
        self, state: State, source: data.Source, metrics: Metrics, whole: bool = True
    ) -> dict[str, dict[str, Any]]:
        """Draws and scores the first validation captions, from the same noise in every run and at every setting.

        `whole`: raw and averaged weights at every setting, with pictures; else averaged weights at the first setting.
        """
        config, facts, kept = self.run.config.samples, self.run.config.data, {}
        scorer = scorers.scorer(facts.name, facts.image_size, facts.channels)
        if not config.count or (scorer is None and not whole):
            return kept
        with self.clock("samples"):
            asked = sampling.captions(source, self.parts.encoder, config.count)
            chosen = sampling.settings(config)
            wanted = config.weights if whole else "ema"
            for weights, params in (("raw", state.params), ("ema", state.average)):
                if wanted not in ("both", weights):
                    continue
                trained = pictures.Trained(self.parts.model, params, self.formulation, self.parts.inputs.image)
                for number, (name, settings) in enumerate(list(chosen.items())[: None if whole else 1]):
                    drawn = sampling.draw(trained, asked, settings, config.batch, self._place)
                    with self.clock("scores"):
                        found = sampling.record(drawn, asked.texts, settings, scorer)
                    metrics.write("scores", int(state.step), weights=weights, setting=name, **found)
                    kept[f"{weights} {name}"] = found
                    if whole and number == 0:
                        self._show(weights, drawn, asked)
            if whole:
                first = next(iter(chosen.values()))
                metrics.write(
                    "samples",
                    int(state.step),
                    captions=list(asked.texts[: config.shown]),
                    sampler=first.sampler,
                    steps=first.steps,
                    guidance=float(first.guidance.scale),
                )
        return kept

    def _show(self, weights: str, drawn: sampling.Drawn, asked: sampling.Captions) -> None:
        """Saves the first pictures, and the true images of their captions; latents are no pictures."""
        shown, folder = self.run.config.samples.shown, self.run.folder / "samples"
        if not shown or self.parts.inputs.image[-1] not in pictures.PIXELS or jax.process_index() != 0:
            return
        texts = asked.texts[:shown]
        pictures.save(folder, weights, pictures.to_show(drawn.images[:shown]), texts)
        pictures.save(folder, "data", asked.images[:shown], texts)
