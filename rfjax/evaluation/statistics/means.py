"""Means over pictures, some of which share a prompt: the CLIP score and everything else that is a number a picture."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from rfjax.errors import UserError
from rfjax.evaluation.statistics import Estimate, check_pair


def mean_of(values: Float[np.ndarray, " n"], groups: Sequence[Hashable] | None = None) -> Estimate:
    """The mean of a number a picture, its standard error clustered by group.

    Pictures of one prompt are more alike than others, so an error that takes them as independent is too small. The
    clustered one takes only groups as independent: the sum over groups of the squared sum of deviations, over n^2,
    times G / (G - 1) for G groups (Liang & Zeger 1986). NaN where there is one group only.

    Args:
        values: one a picture.
        groups: what the pictures share, such as their prompts; None where each stands alone.

    Raises:
        UserError: for no picture, NaN, or another number of groups.
    """
    if not len(values):
        raise UserError("A mean needs at least one image.")
    if not np.isfinite(values).all():
        raise UserError(f"{int((~np.isfinite(values)).sum())} of {len(values)} images have no finite value.")
    if groups is not None and len(groups) != len(values):
        raise UserError(f"There are {len(values)} images and {len(groups)} prompts: each image needs one.")
    values = values.astype(np.float64)
    codes: dict[Hashable, int] = {}
    places = np.arange(len(values)) if groups is None else [codes.setdefault(group, len(codes)) for group in groups]
    mean = values.mean()
    sums = np.bincount(places, weights=values - mean)
    count = len(sums)
    stderr = math.sqrt(count / (count - 1) * (sums**2).sum()) / len(values) if count > 1 else math.nan
    extras = {"count": float(len(values)), "groups": float(count), "std": float(values.std())}
    return Estimate(float(mean), stderr, extras)


def mean_cosine(
    images: Float[np.ndarray, "n F"],
    texts: Float[np.ndarray, "m E"],
    prompts: Sequence[Hashable] | None = None,
    scale: float = 1.0,
) -> Estimate:
    """The mean cosine of each picture's vector and its text's: the CLIP score as SD3 and T2I-CompBench print it.

    Others differ: torchmetrics takes max(100 mean, 0), CLIPScore (Hessel et al. 2021) 2.5 times the mean of
    max(cosine, 0), with a prefix before each text. Nothing is clipped here.

    Args:
        images: vectors of the pictures; any norm.
        texts: of each picture's own text.
        prompts: what pictures share: see `mean_of`.
        scale: what multiplies a cosine; PickScore's is its network's.

    Raises:
        UserError: for NaN, vectors of zeros, different widths or numbers.
    """
    check_pair(images, texts, 1, "A mean cosine")
    if len(images) != len(texts):
        raise UserError(f"There are {len(images)} images and {len(texts)} texts: each image needs one.")
    images, texts = images.astype(np.float64), texts.astype(np.float64)
    norms = np.linalg.norm(images, axis=1) * np.linalg.norm(texts, axis=1)
    if not norms.all():
        raise UserError(f"{int((norms == 0).sum())} of {len(norms)} images or texts have a vector of zeros.")
    return mean_of(scale * np.einsum("nf,nf->n", images, texts) / norms, prompts)
