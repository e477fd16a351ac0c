"""What is measured of a run's weights: validation loss, samples and their scores, attention."""

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rfjax import data, flow, models
from rfjax.compiling import quick_options
from rfjax.config import Config
from rfjax.evaluation import pictures, sampling, scorers, validation
from rfjax.models.blocks import ATTENTION, STACKS
from rfjax.training import mesh as meshes
from rfjax.training.logs import Clock, Metrics
from rfjax.training.run import Run
from rfjax.training.spec import RunSpec
from rfjax.training.step import Draws, State, jit_network
from rfjax.training.stop import Interrupted, Stop
from rfjax.training.watchdog import Watchdog

LAST_BLOCKS = 5  # SD3's Fig. 5 averages over these


@dataclass(frozen=True)
class Work:
    """What the phases of a run share."""

    run: Run
    parts: RunSpec
    formulation: flow.Formulation
    mesh: Mesh
    clock: Clock
    size: models.Size
    stop: Stop
    watchdog: Watchdog

    @property
    def config(self) -> Config:
        return self.run.config

    def everywhere(self, tree: Any) -> Any:
        """Puts small values whole on every device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def place(self, values: Any) -> jax.Array:
        """Spreads rows over the mesh."""
        return meshes.place(values, self.mesh)

    def progress(self, step: int, seconds: float) -> dict[str, Any]:
        """What each line of metrics says."""
        examples = step * self.config.training.batch
        return {"examples": examples, "flops": examples * self.size.train_flops, "seconds": seconds}

    def pause(self, doing: str) -> None:
        """A place between two pieces of a long measurement: a sign of life, and a chance to stop.

        Raises:
            Interrupted: if that is wished; the loop saves first.
        """
        self.watchdog.beat(doing)
        if self.stop.granted():
            raise Interrupted(f"stopped while {doing}", self.stop.code)


def validate(
    work: Work, state: State, seconds: float, source: data.Source, metrics: Metrics, *, examples: bool = False
) -> dict[str, Any]:
    """Measures raw and averaged weights; `examples` also writes the loss of each triple down."""
    config, step, found = work.config.validation, int(state.step), {}

    def load(indices: list[int]) -> dict[str, jax.Array]:
        work.pause("measuring the validation loss")
        rows = meshes.rows_here(len(indices), work.mesh)
        batch, _ = data.load(source, work.parts.encoder, [indices[row] for row in rows])
        own = {**batch, "slot": np.asarray(indices, np.int32)[rows]}
        return meshes.put_rows(own, len(indices), work.mesh)

    with work.clock("validation"):
        floors = validation.known_floors(work.formulation, config.levels)
        for weights, params in (("raw", state.params), ("ema", state.average)):
            result = validation.measure(
                _network(work, params),
                load,
                formulation=work.everywhere(work.formulation.arrays),
                grid=config.levels,
                examples=config.examples,
                batch=config.batch,
                floors=floors,
            )
            found[weights] = result.record()
            metrics.write("validation", step, **work.progress(step, seconds), weights=weights, **found[weights])
            if examples:
                rounded = [round(float(loss), 7) for loss in result.examples]
                metrics.write("examples", step, weights=weights, grid=config.levels, losses=rounded)
    return found


def _network(work: Work, params: Any) -> Callable[..., jax.Array]:
    """(z, time, context, pooled) -> prediction, jitted; its inputs are spread alike first, wherever from."""
    apply = jit_network(work.parts.model, work.parts.full_opt)

    def network(*inputs: jax.Array) -> jax.Array:
        return apply({"params": params}, *map(work.place, inputs))

    return network


def draw(
    work: Work, state: State, source: data.Source, metrics: Metrics, whole: bool = True
) -> dict[str, dict[str, Any]]:
    """Draws and scores the first validation captions, from the same noise in every run and at every setting.

    `whole`: raw and averaged weights at every setting, with pictures; else averaged weights at the first setting.
    """
    config, facts, kept = work.config.sampling, work.config.data, {}
    scorer = scorers.scorer(facts.name, facts.image_size, facts.channels)
    if not config.count or (scorer is None and not whole):
        return kept

    def place(values: Any) -> jax.Array:
        work.pause("drawing samples")
        return work.place(values)

    with work.clock("samples"):
        asked = sampling.captions(source, work.parts.encoder, config.count)
        chosen = sampling.settings(config)
        wanted = config.weights if whole else "ema"
        for weights, params in (("raw", state.params), ("ema", state.average)):
            if wanted not in ("both", weights):
                continue
            trained = pictures.Trained(
                work.parts.model, params, work.formulation, work.parts.inputs.image, work.size.forward_flops
            )
            for number, (name, settings) in enumerate(list(chosen.items())[: None if whole else 1]):
                drawn = sampling.draw(trained, asked, settings, config.batch, place)
                with work.clock("scores"):
                    found = sampling.record(drawn, asked.texts, settings, scorer)
                metrics.write("scores", int(state.step), weights=weights, setting=name, **found)
                kept[f"{weights} {name}"] = found
                if whole and number == 0:
                    _show(work, weights, drawn, asked)
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


def _show(work: Work, weights: str, drawn: sampling.Drawn, asked: sampling.Captions) -> None:
    """Saves the first pictures, and the true images of their captions; latents are no pictures."""
    shown, folder = work.config.sampling.shown, work.run.folder / "samples"
    if not shown or work.parts.inputs.image[-1] not in pictures.PIXELS or jax.process_index() != 0:
        return
    texts = asked.texts[:shown]
    pictures.save(folder, weights, pictures.to_show(drawn.images[:shown]), texts)
    true = asked.images[:shown]
    pictures.save(folder, "data", true if true.dtype == np.uint8 else pictures.to_show(true), texts)


def attention(work: Work, params: Any, batch: Any, draws: Draws) -> dict[str, Any]:
    """The largest attention logit and the mean entropy of each block, from the first, on a batch of training."""
    with work.clock("attention"):
        found = jax.device_get(_jit_attention(work.parts)(params, batch, draws))
    values: dict[str, Any] = {}
    for name in ("largest_logit", "entropy"):
        blocks = [float(value) for stack in found for value in np.atleast_1d(stack[name])]
        values |= {name: blocks, f"{name}_last_{LAST_BLOCKS}": float(np.mean(blocks[-LAST_BLOCKS:]))}
    return values


@functools.cache
def _jit_attention(parts: RunSpec) -> Callable[..., list[dict[str, jax.Array]]]:
    def measure(params: Any, batch: Any, draws: Draws) -> list[dict[str, jax.Array]]:
        x0 = data.pixels.to_network(batch["image"])
        context, pooled = flow.drop_text(draws.keep, batch["context"], batch["pooled"], parts.encoder.parts)
        shown, _ = flow.noised(draws.at, x0, draws.eps)
        inputs = (shown, draws.at.time, context, pooled)
        _, kept = parts.model.apply({"params": params}, *inputs, mutable=[ATTENTION])
        found = kept.get(ATTENTION, {})
        return [found[name] for name in sorted(found, key=_place_of)]

    return jax.jit(measure, compiler_options=quick_options())


def _place_of(stack: str) -> int:
    return STACKS.index(stack)


def facts(work: Work) -> dict[str, Any]:
    """The line that a session begins with."""
    return {
        "name": work.run.name,
        "size": asdict(work.size) | {"train_flops": work.size.train_flops},
        "steps": work.config.training.steps,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "device": jax.devices()[0].device_kind,
        "mesh": dict(work.mesh.shape),
    }
