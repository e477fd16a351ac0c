"""Generated pictures and their scores."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from rfjax import config as configs
from rfjax.evaluation import generation, montage
from rfjax.evaluation.metrics import make_metrics
from rfjax.evaluation.sampler import Sampleable, all_settings
from rfjax.training.context import RunContext
from rfjax.training.measurements import SELECTED, At, Line
from rfjax.training.state import State, weights_of


class Samples:
    """Lines of kind "scores", one for each kind of weights and setting of the sampler, and one of kind "samples".

    All runs generate for the same captions, from the same noise; with `sampling.seeds`, those of the first seeds alone.
    Along the run it takes the averaged weights at the first setting, and only where there are metrics; at the end the
    weights and settings that the config names, and it saves the first pictures.
    """

    at_end: ClassVar[str] = SELECTED
    from_start: ClassVar[bool] = False

    def every(self, config: configs.Config) -> int:
        """Each validation, with `sampling.along`."""
        return config.training.validate_every if config.sampling.along else 0

    def run(self, context: RunContext, state: State, at: At) -> Iterator[Line]:
        """Generates and scores."""
        config, spec = context.config.sampling, context.spec
        metrics = make_metrics(context.config)
        repeated = 0 < config.seeds <= context.config.training.seed
        if repeated or not config.count or not (metrics or at.final):
            return

        def place(values: Any) -> jax.Array:
            context.pause("drawing samples")
            return context.place(values)

        with context.clock("samples"):
            prompts = generation.first_prompts(context.sources["validation"], spec.encoders, config.count)
        settings = all_settings(config)
        wanted = config.weights if at.final else "ema"
        for weights in [kind for kind in ("raw", "ema") if wanted in ("both", kind)]:
            network = Sampleable(
                spec.model,
                weights_of(spec, state, ema=weights == "ema"),
                context.formulation,
                spec.codec,
                context.encode.weights[0],
                context.size.forward_flops,
            )
            for number, (name, one) in enumerate(list(settings.items())[: None if at.final else 1]):
                with context.clock("samples"):
                    made = generation.generate(
                        network,
                        prompts,
                        one,
                        config.batch,
                        encode=context.encode.condition,
                        place=place,
                        metrics=metrics,
                        keep=config.shown if at.final and number == 0 else 0,
                    )
                    found = generation.record(made, config.count, one, metrics)
                    if at.final and number == 0:
                        true = generation.true_pictures(network, prompts, config.shown, place)
                        save_pictures(context.run.folder / "samples", weights, made, prompts.texts, true)
                yield "scores", {"weights": weights, "setting": name, **found}
        if at.final:
            first = next(iter(settings.values()))
            shown = {"sampler": first.sampler, "steps": first.steps, "guidance": float(first.guidance.scale)}
            yield "samples", {"captions": list(prompts.texts[: config.shown]), **shown}

    def result(self, lines: Sequence[Line]) -> dict[str, Any]:
        """{"scores": {"WEIGHTS SETTING": what was found}}."""
        scores = {}
        for values in (values for kind, values in lines if kind == "scores"):
            found = {key: value for key, value in values.items() if key not in ("weights", "setting")}
            scores[f"{values['weights']} {values['setting']}"] = found
        return {"scores": scores}


def save_pictures(
    folder: Path, name: str, made: generation.Generated, texts: Sequence[str], true: np.ndarray | None = None
) -> None:
    """Saves the pictures that were kept and, beside them, the true ones of their captions; latents are no pictures."""
    if not len(made.z) or made.images is None or jax.process_index() != 0:
        return
    montage.save(folder, name, made.images, texts[: len(made.images)])
    if true is not None:
        montage.save(folder, "data", true[: len(made.images)], texts[: len(made.images)])
