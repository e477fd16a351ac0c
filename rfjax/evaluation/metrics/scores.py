"""The papers' numbers of generated pictures, each for the vectors of one network: which, and computed how.

The functions behind them say whose code computes them so (`rfjax.evaluation.statistics`); the networks say what is done
to a picture (`rfjax.encoders.embedding`). Labels name both, for the same letters stand for different numbers elsewhere.
"""

from collections.abc import Mapping

from rfjax.evaluation.metrics.embedded import Score, Vectors
from rfjax.evaluation.quantity import Quantity
from rfjax.evaluation.statistics import (
    Estimate,
    extrapolation,
    frechet,
    inception_score,
    kernels,
    means,
    neighbours,
    prdc,
)


def _quantity(key: str, label: str, better: str) -> Quantity:
    return Quantity(key, label, better, error=f"{key}_stderr")


def distance(key: str, label: str, embedder: str, output: str) -> Score:
    """A Fréchet distance of one output of a network."""

    def compute(vectors: Vectors) -> Mapping[str, Estimate]:
        assert vectors.reference
        return {key: frechet.frechet(vectors.own[output], vectors.reference.gaussians[output])}

    return Score(embedder, (output,), (_quantity(key, label, "lower"),), compute, "moments")


FID = distance("fid", "FID", "inception", "pool")
SFID = distance("sfid", "sFID", "inception", "spatial")
CLIP_FID = distance("clip_fid", "CLIP-FID", "clip", "projected")
FD_DINOV2 = distance("fd_dinov2", "FD-DINOv2", "dinov2", "cls")
FD_EFFICIENTNET = distance("fd_efficientnet", "FD EfficientNet-Lite0", "efficientnet", "pool")


def _fid_infinity(vectors: Vectors) -> Mapping[str, Estimate]:
    assert vectors.reference
    return {"fid_infinity": extrapolation.frechet_infinity(vectors.own["pool"], vectors.reference.gaussians["pool"])}


FID_INFINITY = Score(
    "inception", ("pool",), (_quantity("fid_infinity", "FID of infinitely many", "lower"),), _fid_infinity, "moments"
)


def _inception_score(vectors: Vectors) -> Mapping[str, Estimate]:
    return {"inception_score": inception_score.inception_score(vectors.own["logits"])}


INCEPTION_SCORE = Score("inception", ("logits",), (_quantity("inception_score", "IS", "higher"),), _inception_score)


def _precision_recall(vectors: Vectors) -> Mapping[str, Estimate]:
    assert vectors.reference
    precision, recall = neighbours.precision_recall(
        vectors.reference.features["pool"], vectors.own["pool"], protocol="adm"
    )
    return {"precision": precision, "recall": recall}


PRECISION_RECALL = Score(
    "inception",
    ("pool",),
    (_quantity("precision", "precision", "higher"), _quantity("recall", "recall", "higher")),
    _precision_recall,
    "features",
)


def _density_coverage(vectors: Vectors) -> Mapping[str, Estimate]:
    assert vectors.reference
    density, coverage = prdc.density_coverage(vectors.reference.features["pool"], vectors.own["pool"])
    return {"density": density, "coverage": coverage}


DENSITY_COVERAGE = Score(
    "inception",
    ("pool",),
    (_quantity("density", "density", "higher"), _quantity("coverage", "coverage", "higher")),
    _density_coverage,
    "features",
)


def _kid(vectors: Vectors) -> Mapping[str, Estimate]:
    assert vectors.reference
    return {"kid": kernels.kid(vectors.reference.features["pool"], vectors.own["pool"])}


KID = Score("inception", ("pool",), (_quantity("kid", "KID", "lower"),), _kid, "features")


def _cmmd(vectors: Vectors) -> Mapping[str, Estimate]:
    assert vectors.reference
    return {"cmmd": kernels.cmmd(vectors.reference.features["projected"], vectors.own["projected"])}


CMMD = Score("clip336", ("projected",), (_quantity("cmmd", "CMMD", "lower"),), _cmmd, "features")


def agreement(key: str, label: str, embedder: str) -> Score:
    """The mean of what a network thinks of a picture and its text; its error is clustered by text."""

    def compute(vectors: Vectors) -> Mapping[str, Estimate]:
        assert vectors.texts is not None
        return {key: means.mean_cosine(vectors.own["projected"], vectors.texts, vectors.captions, vectors.scale)}

    return Score(embedder, ("projected",), (_quantity(key, label, "higher"),), compute, texts=True)


CLIP_SCORE = agreement("clip_score", "CLIP score", "clip")
PICKSCORE = agreement("pickscore", "PickScore", "pickscore")
HPS = agreement("hps", "HPS", "hps")
