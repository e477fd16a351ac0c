"""The validation loss of the last and of the averaged weights."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from rfjax import config as configs
from rfjax.evaluation import validation
from rfjax.training.context import RunContext
from rfjax.training.measurements import LAST, At, Line
from rfjax.training.run import not_finite
from rfjax.training.state import State, weights_of

KINDS = ("raw", "ema")  # of weights


class NotFinite(Exception):
    """A finished run's validation loss is no number: the run has failed."""


class Validation:
    """Lines of kind "validation", and at the end of kind "examples": the loss of each triple."""

    at_end: ClassVar[str] = LAST
    from_start: ClassVar[bool] = False

    def every(self, config: configs.Config) -> int:
        return config.training.validate_every

    def run(self, context: RunContext, state: State, at: At) -> Iterator[Line]:
        """Measures all triples of both kinds of weights, or along the run what `validation.along` leaves of them.

        Raises:
            NotFinite: at the end of the run, for a loss that is not finite.
        """
        config, losses = context.config.validation, {}
        short = 0 if at.final else config.fewer

        def load(indices: list[int]) -> dict[str, Any]:
            context.pause("measuring the validation loss")
            return context.load("validation", indices)

        for weights in along_kinds(context.config) if short else KINDS:
            with context.clock("validation"):
                found = validation.measure(
                    context.network(weights_of(context.spec, state, ema=weights == "ema")),
                    load,
                    formulation=context.everywhere(context.formulation.arrays),
                    levels=config.levels,
                    examples=short or config.examples,
                    batch=config.batch,
                    floors=validation.known_floors(context.formulation, config.levels),
                    first=config.fewer if at.final else 0,
                )
            losses[weights] = found.loss
            yield "validation", {**at.progress, "weights": weights, **found.record()}
            if at.final:
                rounded = [round(float(loss), 7) for loss in found.examples]
                yield "examples", {"weights": weights, "grid": config.levels, "losses": rounded}
        if bad := not_finite(losses, at.step):
            if at.final:
                raise NotFinite(f"{bad}: lower config.optimizer.learning_rate, or look at the data")
            context.display.warn(f"{context.run.name}: {bad}: it is left out of the run's curve")

    def result(self, lines: Sequence[Line]) -> dict[str, Any]:
        """{"validation": {weights: loss and levels}}."""
        found = {values["weights"]: values for kind, values in lines if kind == "validation"}
        keys = ("grid", "loss", "stderr", "levels", "floors", "floors_drawn")
        return {"validation": {weights: {key: values[key] for key in keys} for weights, values in found.items()}}


def along_kinds(config: configs.Config) -> tuple[str, ...]:
    """The kinds of weights that are read along a run: the fitted one, and the average if it chooses the best step."""
    read = {config.study.weights, *(("ema",) if config.training.select == "best" else ())}
    return tuple(kind for kind in KINDS if kind in read)


def averaged_loss(lines: Sequence[Line]) -> float:
    """The validation loss of the averaged weights among lines, of the triples that are measured along the run.

    Infinite where it is not finite or not there.
    """
    found = [values for kind, values in lines if kind == "validation" and values["weights"] == "ema"]
    losses = [values.get("along", values)["loss"] for values in found]
    return min((loss for loss in losses if math.isfinite(loss)), default=math.inf)
