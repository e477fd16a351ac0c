"""The Inception score: exp of the mean KL divergence of each picture's classes from all pictures' (Salimans 2016)."""

import math
from typing import Literal, get_args

import numpy as np
import scipy.special
from jaxtyping import Float, Float64

from rfjax.errors import UserError, nearest
from rfjax.evaluation.statistics import Estimate, check_features, jackknife

Protocol = Literal["adm", "torch-fidelity"]
ADM_SPLIT = 5000  # pictures
FIDELITY_SPLITS, FIDELITY_SEED = 10, 2020


def inception_score(logits: Float[np.ndarray, "n C"], protocol: Protocol = "adm") -> Estimate:
    """The mean score of splits of n pictures; 1 at least, the number of classes at most.

    "adm": consecutive splits of 5000 pictures, the last one with what is left; order matters. ADM computes softmax in
    float32. "torch-fidelity": 10 splits of pictures shuffled by RandomState(2020), in float64. Both are in float64
    here, and both take all 1008 logits without the bias; with it the score is another. The score grows with the size
    of a split, so compare equal numbers only.

    The standard error is the exact jackknife of this mean: each picture is left out of its split. The deviation of the
    splits' scores, which torch-fidelity prints, is `extras["std"]`: it is about sqrt(splits) times larger.

    Args:
        logits: without bias, in the pictures' order.

    Raises:
        UserError: for fewer than 3 pictures in a split, NaN, or an unknown protocol.
    """
    check_features(logits, 3, "An Inception score")
    n = len(logits)
    if protocol == "adm":
        order, ends = np.arange(n), [*range(ADM_SPLIT, n, ADM_SPLIT), n]
    elif protocol == "torch-fidelity":
        order = np.random.RandomState(FIDELITY_SEED).permutation(n)
        ends = [(i + 1) * n // FIDELITY_SPLITS for i in range(FIDELITY_SPLITS)]
    else:
        raise UserError(f"An Inception score has no protocol '{protocol}'{nearest(protocol, get_args(Protocol))}.")
    splits = [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if min(map(len, splits)) < 3:
        raise UserError(f"An Inception score by {protocol} needs 3 images in each split, and {n} images give fewer.")
    scores, errors = np.array([_score(logits[rows]) for rows in splits]).T
    stderr = math.sqrt((errors**2).sum()) / len(splits)
    uneven = protocol == "adm" and n % ADM_SPLIT and len(splits) > 1
    notes = (f"The last of {len(splits)} splits has {len(splits[-1])} images, and the same weight.",) if uneven else ()
    extras = {"std": float(scores.std()), "splits": float(len(splits)), "count": float(n)}
    return Estimate(float(scores.mean()), stderr, extras, notes)


def _score(logits: Float[np.ndarray, "n C"]) -> tuple[float, float]:
    """Of one split, with its error: leaving out picture i changes both means, and both changes are known exactly."""
    logs = scipy.special.log_softmax(logits.astype(np.float64), axis=1)
    classes = np.exp(logs)
    own, total, n = (classes * logs).sum(axis=1), classes.sum(axis=0), len(logs)
    whole = own.mean() + float(_entropy((total / n)[None])[0])
    others = np.concatenate([_entropy((total - part) / (n - 1)) for part in np.array_split(classes, n // 512 + 1)])
    without = np.exp((own.sum() - own) / (n - 1) + others)
    return float(np.exp(whole)), jackknife(without)


def _entropy(classes: Float64[np.ndarray, "n C"]) -> Float64[np.ndarray, " n"]:
    """In nats; a difference of sums may be below 0 by rounding."""
    return scipy.special.entr(np.maximum(classes, 0)).sum(axis=-1)
