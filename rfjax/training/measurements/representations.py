"""CKNNA with frozen encoders, and a linear probe, of every block's hidden states (REPA Figs. 2 and 3)."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32, Int64

from rfjax import config as configs
from rfjax import data
from rfjax.analysis.cknna import Neighbours, check_examples, compare, neighbours, normalised
from rfjax.data import Source
from rfjax.encoders.features import FeatureEncoder, make_feature_encoder
from rfjax.errors import UserError
from rfjax.evaluation import hidden_states as hidden
from rfjax.evaluation.probe import Settings, probe
from rfjax.training import mesh as meshes
from rfjax.training.context import RunContext
from rfjax.training.encode import EncodeStage
from rfjax.training.measurements import LAST, At, Line
from rfjax.training.state import State, weights_of

KIND = "representations"
LABEL = "label"  # the field of a data set that the probe finds
LABELS_AT_ONCE = 1024


class Representations:
    """Lines of kind "representations", one for each kind of weights and noise level.

    The pictures of CKNNA are the first of the validation split, on which the probe is tested, too; it learns from the
    first of the training split. What encoders say of them is kept, for it is the same at each step.
    """

    at_end: ClassVar[str] = LAST
    from_start: ClassVar[bool] = True

    def __init__(self) -> None:
        """Knows no encoder's neighbours yet."""
        self._known: dict[str, Neighbours] = {}

    def every(self, config: configs.Config) -> int:
        """Along the run only as `representations@STEPS`."""
        return 0

    def check(self, config: configs.Config, sources: dict[str, Source]) -> None:
        """Refuses what can't be measured, before anything is compiled.

        Raises:
            UserError: if there are too few pictures, no labels for the probe, an encoder that can't be made, or nothing
                to measure.
        """
        asked = config.representations
        meshes.check_batch("representations.batch", asked.batch, meshes.make_mesh(config.mesh))
        encoders = make_encoders(config)
        if not encoders and asked.probe == "none":
            raise UserError("config.representations has no encoders and no probe: there is nothing to measure")
        wanted = {"validation": ("examples", asked.examples)}
        if encoders:
            check_examples(asked.examples, asked.k)
        if asked.probe != "none":
            wanted["train"] = ("probe_examples", asked.probe_examples)
            if LABEL not in sources["train"].fields:
                raise UserError(
                    f"the linear probe needs the field '{LABEL}', and this data set has "
                    f"{', '.join(sources['train'].fields)}: set config.representations.probe = 'none'"
                )
        for split, (key, count) in wanted.items():
            if (there := len(sources[split])) < count:
                raise UserError(
                    f"the {split} split has {there:,} examples, fewer than config.representations.{key} = {count:,}"
                )
        for one in encoders.values():
            _check_reads(one, sources["validation"])

    def run(self, context: RunContext, state: State, at: At) -> Iterator[Line]:
        """Measures the kinds of weights that the config names."""
        for weights in kinds_of_weights(context.config):
            params = weights_of(context.spec, state, ema=weights == "ema")
            for values in self.measure(context, params):
                yield KIND, {**at.progress, "weights": weights, **values}

    def result(self, lines: Sequence[Line]) -> dict[str, Any]:
        """Nothing: the lines have it."""
        return {}

    def measure(self, context: RunContext, params: Any, levels: Sequence[float] = ()) -> Iterator[dict[str, Any]]:
        """What a network's weights show at each noise level: the values of a line.

        Args:
            context: the run's.
            params: the weights, as `model.apply` takes them.
            levels: of the noise; none: the config's.
        """
        asked = context.config.representations
        with context.clock(KIND):
            encoded = {
                name: self._neighbours(context, name, one) for name, one in make_encoders(context.config).items()
            }
        for t in levels or asked.levels:
            with context.clock(KIND):
                states = self._states(context, params, "validation", asked.examples, t)
                found: dict[str, Any] = {
                    "setting": setting_of(t),
                    "t": t,
                    "count": asked.examples,
                    "k": asked.k,
                    "variant": asked.kind,
                    "cknna": alignments(states, encoded, asked),
                }
                if asked.probe != "none":
                    train = self._states(context, params, "train", asked.probe_examples, t)
                    found |= _probe(context, train, states)
            yield found

    def _states(
        self, context: RunContext, params: Any, split: str, examples: int, t: float
    ) -> Float32[np.ndarray, "d n D"]:
        codec = EncodeStage(context.spec.encoders[:1], context.encode.weights[:1])
        return hidden.hidden_states(
            context.spec.model,
            params,
            _loader(context, split, codec),
            formulation=context.everywhere(context.formulation.arrays),
            cond=context.spec.inputs.cond,
            t=t,
            examples=examples,
            batch=context.config.representations.batch,
            place=context.place,
            full=context.spec.full_opt,
            null=self._null(context),
        )

    def _null(self, context: RunContext) -> Any:
        """No text, where that is the empty prompt of an encoder; else None."""
        if getattr(context.spec.inputs.cond, "empty", None) is None:
            return None
        empty = context.spec.text.prompts([""] * context.config.representations.batch)
        return context.encode.condition({name: context.place(x) for name, x in empty.items()}).null()

    def _neighbours(self, context: RunContext, name: str, encoder: FeatureEncoder) -> Neighbours:
        if name not in self._known:
            asked, stage = context.config.representations, EncodeStage.place((encoder,), context.mesh)
            found = hidden.stream(
                lambda batch: hidden.pooled(batch[encoder.name]),
                _loader(context, "validation", stage),
                asked.examples,
                asked.batch,
            )
            self._known[name] = neighbours(normalised(found), asked.k)
        return self._known[name]


def setting_of(t: float) -> str:
    """What tells lines of one step apart."""
    return f"t={t:g}"


def kinds_of_weights(config: configs.Config) -> tuple[str, ...]:
    """The weights that the config names: "raw", "ema" or both."""
    asked = config.representations.weights
    return ("raw", "ema") if asked == "both" else (asked,)


def make_encoders(config: configs.Config) -> dict[str, FeatureEncoder]:
    """The encoders that hidden states are compared with, by the names that the config gives them.

    Raises:
        UserError: if one can't be made.
    """
    key = "representations" if config.representations.encoders else "alignment"
    names = getattr(config, key).encoders
    return {name: make_feature_encoder(name, config, f"{key}.encoders") for name in names}


def _check_reads(encoder: FeatureEncoder, source: Source) -> None:
    """Raises UserError if an encoder can't read a data set's first example."""
    stage = EncodeStage((encoder,), ())
    try:
        data.load(source, [0], stage.prepare, stage.names(source))
    except KeyError as error:
        raise UserError(
            f"config.representations.encoders: '{encoder.name}' reads {error}, and this data set has "
            f"{', '.join(source.fields)}"
        ) from error


def alignments(
    states: Float32[np.ndarray, "d n D"], encoded: dict[str, Neighbours], asked: configs.Representations
) -> dict[str, list[float]]:
    """CKNNA of each block with each encoder, of normalised states; NaN for states that are not finite."""
    found: dict[str, list[float]] = {name: [] for name in encoded}
    for block in states if encoded else ():
        if not np.isfinite(block).all():
            for values in found.values():
                values.append(float("nan"))
            continue
        own = neighbours(normalised(block), asked.k)
        for name, other in encoded.items():
            found[name].append(compare(own, other, asked.kind))
    return found


def _probe(
    context: RunContext, train: Float32[np.ndarray, "d m D"], test: Float32[np.ndarray, "d n D"]
) -> dict[str, Any]:
    """The probe's part of a line; NaN for states that are not finite."""
    asked = context.config.representations
    settings = Settings(asked.probe, asked.probe_epochs, asked.probe_batch, asked.probe_seed, asked.classes)
    labels = [_labels(context, split, len(x[0])) for split, x in (("train", train), ("validation", test))]
    about = {"probe": asked.probe, "trained_on": len(labels[0])}
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        return about | {"accuracy": [float("nan")] * len(test), "classes": asked.classes}
    found = probe(train, labels[0], test, labels[1], settings)
    return about | {"accuracy": found.accuracy.tolist(), "classes": found.classes}


def _labels(context: RunContext, split: str, count: int) -> Int64[np.ndarray, " n"]:
    """The labels of the first examples, whole on every process."""
    found = []
    for start in range(0, count, LABELS_AT_ONCE):
        context.pause("reading labels")
        indices = range(start, min(start + LABELS_AT_ONCE, count))
        found.append(data.take(context.sources[split], indices, [LABEL]).arrays[LABEL])
    return np.concatenate(found).astype(np.int64)


def _loader(context: RunContext, split: str, stage: EncodeStage) -> hidden.Load:
    """Reads a split's examples batch by batch; each is a chance to stop."""

    def load(indices: list[int]) -> hidden.Batch:
        context.pause("reading hidden states")
        return context.load(split, indices, stage)

    return load
