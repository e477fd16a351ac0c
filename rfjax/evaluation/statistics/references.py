"""Reference statistics: made once of true pictures, kept in a file with all that makes them comparable, and read back.

The file is an .npz: `about`, a JSON object as bytes (UTF-8), and for each output of the embedder its mean, covariance
and perhaps features, under the names that `about` gives. The first output's are `mu` and `sigma`, as pytorch-fid's
and ADM's code read them, those of "spatial" are `mu_s` and `sigma_s`. Other projects' files say no network; see
`foreign`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from rfjax import files, untrusted
from rfjax.errors import UserError, one_line
from rfjax.evaluation.statistics import foreign, npz
from rfjax.evaluation.statistics.frechet import Gaussian, fit_gaussian
from rfjax.evaluation.statistics.moments import Moments
from rfjax.evaluation.statistics.validity import checked, checked_features

FORMAT = "rfjax reference 1"
ABOUT = "about"
UNCOMPARED = ("file", "data", "source", "made")  # what may differ between two who measure alike


@dataclass(frozen=True)
class Reference:
    """Statistics of true pictures by one embedder.

    Attributes:
        name: of the embedder, `Embedder.name`.
        about: `Embedder.about()`, and what the maker adds, such as "data", a fingerprint of the pictures.
        gaussians: output -> mean and covariance.
        features: output -> features of the pictures, or of some of them; precision, KID and CMMD need them.
        notes: sentences that a page should show beside every number that uses this.
    """

    name: str
    about: Mapping[str, str]
    gaussians: Mapping[str, Gaussian]
    features: Mapping[str, Shaped[np.ndarray, "..."]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def make(
    name: str,
    about: Mapping[str, str],
    moments: Mapping[str, Moments],
    features: Mapping[str, Float[np.ndarray, "n F"]] | None = None,
) -> Reference:
    """The reference of an embedder's outputs.

    Args:
        name: the embedder's.
        about: the embedder's `about()`, with "data" for a fingerprint of the pictures.
        moments: output -> its moments over all pictures.
        features: output -> features to keep.

    Raises:
        UserError: for fewer than two pictures.
    """
    return Reference(name, dict(about), {key: fit_gaussian(value) for key, value in moments.items()}, features or {})


def write(path: Path, reference: Reference) -> None:
    """Writes a reference under its name when it is complete; features as float32.

    Raises:
        UserError: if the path is a folder, or the disk is full.
    """
    arrays: dict[str, np.ndarray] = {}
    outputs: dict[str, dict[str, Any]] = {}
    for place, (output, gaussian) in enumerate(reference.gaussians.items()):
        suffix = "" if place == 0 else {"spatial": "_s"}.get(output, f"_{output}")
        entry = {"mean": f"mu{suffix}", "covariance": f"sigma{suffix}", "count": gaussian.count}
        arrays |= {entry["mean"]: gaussian.mean, entry["covariance"]: gaussian.covariance}
        if output in reference.features:
            entry["features"] = f"features{suffix}"
            arrays[entry["features"]] = reference.features[output].astype(np.float32)
        outputs[output] = entry
    about = {"format": FORMAT, "name": reference.name, "about": dict(reference.about), "outputs": outputs}
    arrays[ABOUT] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with files.atomic(path) as partial, partial.open("wb") as partial_file:  # by name, numpy adds an ending
        np.savez(partial_file, **arrays)


def read(path: Path, name: str, about: Mapping[str, str], outputs: Mapping[str, int]) -> Reference:
    """Reads a file of statistics, ours or another project's, for an embedder.

    Args:
        path: .npz or .pkl.
        name: the embedder's name, which must be the file's where that has one.
        about: the embedder's `about()`: network, weights and preprocessing must be the file's.
        outputs: output -> its number of features.

    Raises:
        UserError: if the file is missing, damaged, of another network or preprocessing, or holds no statistics.
    """
    if path.suffix in (".pkl", ".pickle"):
        return Reference(name, dict(about), *foreign.read_pickle(path, name, outputs))
    if ABOUT in (held := npz.members(path)):
        return _ours(path, name, about, outputs)
    return Reference(name, dict(about), *foreign.read_npz(path, held, name, outputs))


def _ours(path: Path, name: str, about: Mapping[str, str], outputs: Mapping[str, int]) -> Reference:
    said = untrusted.parse_json(npz.read(path, ABOUT).astype(np.uint8).tobytes(), f"{path}: {ABOUT}")
    entries, kept = said.get("outputs"), said.get("about")
    plain = isinstance(kept, dict) and all(isinstance(value, str) for value in kept.values())
    if said.get("format") != FORMAT or not isinstance(entries, dict) or not plain:
        raise UserError(f"{path} is no file of statistics of this version ('{FORMAT}'): make it again")
    _check_same(path, str(said.get("name")), kept, name, about)
    gaussians, features = {}, {}
    for output in outputs:
        entry = entries.get(output)
        if not isinstance(entry, dict):
            continue
        count, keys = entry.get("count"), [entry.get(key) for key in ("mean", "covariance")]
        if not all(isinstance(key, str) for key in keys) or type(count) is not int or count < 2:
            raise UserError(f"{path} says no names or no count of '{output}': make it again")
        values = npz.read(path, keys[0]), npz.read(path, keys[1])
        gaussians[output] = checked(path, output, values, outputs[output], count)
        if isinstance(entry.get("features"), str):
            features[output] = checked_features(path, npz.read(path, entry["features"]), outputs[output])
    if not gaussians:
        raise UserError(f"{path} holds statistics of {', '.join(map(one_line, entries))}, and none of {name}'s outputs")
    return Reference(name, {key: one_line(value) for key, value in kept.items()}, gaussians, features)


def _check_same(path: Path, found: str, kept: Mapping[str, str], name: str, about: Mapping[str, str]) -> None:
    """Raises UserError for statistics of another embedder, or of other weights."""
    fix = "numbers of the two can't be compared: make statistics with this one"
    if found != name:
        raise UserError(f"{path} holds statistics of '{one_line(found)}', and the metric's network is '{name}': {fix}")
    for key in about:
        if key not in UNCOMPARED and key in kept and kept[key] != about[key]:
            raise UserError(
                f"{path} holds statistics with {key} '{one_line(kept[key])}', and {name} has '{about[key]}': {fix}"
            )
