"""Files of reference statistics of other projects. None names its network: it is taken by width, and that is said.

ADM                         .npz: mu, sigma, mu_s, sigma_s beside the pictures arr_0, which are not read
pytorch-fid, U-ViT, EDM,
MAR, clean-fid              .npz: mu, sigma; clean-fid's *_kid.npz: feats
iMF                         .npz: ref_mu, ref_sigma
EDM2, diffuse_nnx           .pkl: {"num_images": n, "fid": {mu, sigma}, "fd_dinov2": {mu, sigma}}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from rfjax import untrusted
from rfjax.errors import UserError, one_line
from rfjax.evaluation.statistics import npz
from rfjax.evaluation.statistics.frechet import Gaussian, fit_gaussian
from rfjax.evaluation.statistics.validity import checked, checked_features
from rfjax.tensors import numpy_pickle

PAIRS = (("mu", "sigma"), ("ref_mu", "ref_sigma"), ("mu_s", "sigma_s"))
FEATURES = "feats"
PICTURES = "arr_0"
FAMILIES = {"fid": "inception", "fd_dinov2": "dinov2"}  # EDM2's names -> how names of ours begin
LARGEST_PICKLE = 2**28  # bytes; EDM2's have 42 MB


class Found(NamedTuple):
    """What `references.Reference` needs of a file."""

    gaussians: dict[str, Gaussian]
    features: dict[str, Shaped[np.ndarray, "..."]]
    notes: tuple[str, ...]


def read_npz(path: Path, held: Mapping[str, npz.Member], name: str, outputs: Mapping[str, int]) -> Found:
    """The statistics of a file without `about`.

    Raises:
        UserError: if it has none, they are of another width, or not valid.
    """
    pairs = [pair for pair in PAIRS if set(pair) <= set(held)]
    gaussians: dict[str, Gaussian] = {}
    for mu, sigma in pairs:
        width = held[mu].shape[-1] if held[mu].shape else 0
        output = next((one for one, size in outputs.items() if size == width and one not in gaussians), None)
        if output is not None:
            values = npz.read(path, mu), npz.read(path, sigma)
            gaussians[output] = checked(path, output, values, outputs[output], 0)
    features = {}
    if FEATURES in held and len(held[FEATURES].shape) == 2:
        output = next((one for one, size in outputs.items() if size == held[FEATURES].shape[1]), None)
        if output is not None:
            features[output] = checked_features(path, npz.read(path, FEATURES), outputs[output])
            gaussians.setdefault(output, fit_gaussian(features[output]))
    if not gaussians:
        raise UserError(_nothing(path, held, pairs, name, outputs))
    return Found(gaussians, features, _notes(path, name, gaussians))


def read_pickle(path: Path, name: str, outputs: Mapping[str, int]) -> Found:
    """The statistics of a pickle of EDM2's form, or {mu, sigma}; nothing in it is run.

    Raises:
        UserError: if it is missing or damaged, or has none of this network.
    """
    data = untrusted.read_bytes(path, limit=LARGEST_PICKLE)
    if data is None:
        raise UserError(f"{path} does not exist")
    held = numpy_pickle.load(data, str(path))
    if not isinstance(held, dict):
        raise UserError(f"{path} holds a {type(held).__name__}, and statistics are a dict with mu and sigma")
    family = next((key for key, start in FAMILIES.items() if name.startswith(start)), None)
    nested = {key: value for key, value in held.items() if isinstance(value, dict)}
    found = held if not nested else nested.get(family, {})
    mu, sigma = (np.asarray(found.get(key, np.zeros(0))) for key in ("mu", "sigma"))
    if not mu.size:
        has = ", ".join(one_line(str(key)) for key in held)
        raise UserError(f"{path} holds {has or 'nothing'}, and no {family or 'mu and sigma'} for {name}")
    count = _count(held.get("num_images"))
    output = next((one for one, size in outputs.items() if (size,) == mu.shape), next(iter(outputs)))
    gaussians = {output: checked(path, output, (mu, sigma), outputs[output], count)}
    return Found(gaussians, {}, _notes(path, name, gaussians))


def _count(value: Any) -> int:
    """A number of pictures, or 0."""
    return int(value) if isinstance(value, int | np.integer) and 2 <= int(value) < 2**40 else 0


def _notes(path: Path, name: str, gaussians: Mapping[str, Gaussian]) -> tuple[str, ...]:
    taken = " and ".join(f"{len(one.mean):,} features as its {output}" for output, one in gaussians.items())
    unknown = "" if all(one.count for one in gaussians.values()) else ", nor how many pictures they are of"
    return (f"{path.name} does not say by which network its statistics are{unknown}: taken as {name}'s, {taken}.",)


def _nothing(
    path: Path, held: Mapping[str, npz.Member], pairs: list[tuple[str, str]], name: str, outputs: Mapping[str, int]
) -> str:
    if pairs or FEATURES in held:
        shapes = ", ".join(str(held[key].shape) for key in [mu for mu, _ in pairs] or [FEATURES])
        has = ", ".join(f"{output} of {size:,}" for output, size in outputs.items())
        return f"{path} holds statistics of shape {shapes}, and {name} has {has}: they are of another network"
    if PICTURES in held:
        return f"{path} holds pictures ({PICTURES}) and no statistics: give it as a source of pictures instead"
    names = ", ".join(map(one_line, list(held)[:10])) or "no arrays of numbers"
    return f"{path} holds {names}, and statistics are mu and sigma"
