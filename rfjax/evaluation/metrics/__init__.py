"""Metrics of generated pictures: each takes them batch by batch, as they are made, and never holds them all.

A metric is made for one run and one set of pictures: `init`, then `update` for each batch, then `result`. On several
processes all of them call it alike, with pictures that are spread over the mesh.
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, UInt8

from rfjax import config as configs
from rfjax import lookup
from rfjax.evaluation.metrics import reference_sets
from rfjax.evaluation.metrics.embedded import EmbeddedMetric, Score, opened
from rfjax.evaluation.quantity import Quantity

OWN = "own"  # the data set's own scores, where it has any
METRICS = {
    "shapes": "rfjax.evaluation.metrics.shapes:make",
    "shapes@geneval": "rfjax.evaluation.metrics.shapes_geneval:make",
    "digits": "rfjax.evaluation.metrics.digits:make",
    **{
        name: f"rfjax.evaluation.metrics.scores:{name.upper()}"
        for name in (
            "fid",
            "sfid",
            "fid_infinity",
            "inception_score",
            "precision_recall",
            "density_coverage",
            "kid",
            "clip_score",
            "clip_fid",
            "cmmd",
            "fd_dinov2",
            "fd_efficientnet",
            "pickscore",
            "hps",
        )
    },
}


@runtime_checkable
class Metric(Protocol):
    """The contract.

    Attributes:
        quantities: what `result` holds that reports should show, with labels and directions.
    """

    quantities: tuple[Quantity, ...]

    def init(self) -> Any:
        """The state before the first batch."""
        ...

    def update(self, state: Any, images: UInt8[Array, "B H W C"], captions: Sequence[str]) -> Any:
        """The state after one more batch.

        Args:
            state: of `init` or of the batch before.
            images: pictures on the mesh.
            captions: what they should show, B of them.

        Raises:
            UserError: for pictures or captions that the metric is not for.
        """
        ...

    def result(self, state: Any) -> dict[str, Any]:
        """Plain values for a line of metrics, among them those of `quantities` with their errors."""
        ...


def make_metrics(config: configs.Config) -> tuple[Metric, ...]:
    """The metrics that `config.sampling.metrics` names; "own" stands for the data set's own, or for none.

    Scores of one network become one metric, so that it runs once over the pictures. Its weights are read here.

    Raises:
        UserError: if there is no metric of a name, or a network's file can't be read.
    """
    own = (config.data.name,) if config.data.name in METRICS else ()
    names = [one for name in config.sampling.metrics for one in (own if name == OWN else (name,))]
    found = [lookup.find(name, METRICS, "sampling.metrics") for name in dict.fromkeys(names)]
    if any(isinstance(one, Score) and one.compares != "nothing" for one in found):
        reference_sets.check(config)
    networks = dict.fromkeys(one.embedder for one in found if isinstance(one, Score))
    embedded = [
        EmbeddedMetric(
            opened(network, config),
            tuple(one for one in found if isinstance(one, Score) and one.embedder == network),
            functools.partial(reference_sets.reference, config),
        )
        for network in networks
    ]
    for one in embedded:
        compares = {score.compares for score in one.scores}
        if compares != {"nothing"}:
            reference_sets.check_statistics(config, one.opened, "features" in compares)
    return (*(make(config) for make in found if not isinstance(make, Score)), *embedded)
