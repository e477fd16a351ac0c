"""How two results of the parity suite are compared, and what of them is recorded (tests/parity/recorded). No torch."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from parity_cases import Result, uniform

TOLERANCE = 1e-5  # relative, of every output and every gradient
# A tensor whose gradient is small because its terms cancel (a key's bias in self-attention has none at all: softmax
# does not see a constant added to all keys) keeps rounding errors of the size of its terms. So a difference is measured
# against the tensor's own largest gradient, but never against less than this fraction of the largest of all: 1e-5 of
# that is five roundings (2^-24) of the largest gradient.
SMALL = 1 / 32
RECORDED = Path(__file__).parent / "parity" / "recorded"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The largest relative differences of two results, of the output and of the gradients, and the worst gradient."""

    output: float
    gradient: float
    worst: str

    @property
    def within(self) -> bool:
        return max(self.output, self.gradient) <= TOLERANCE


def compare(found: Result, expected: Result) -> Difference:
    """max |difference| / max |expected| of each array, as SMALL says. Names and shapes must agree, values be finite."""
    assert sorted(found) == sorted(expected), sorted(set(found) ^ set(expected))
    for name, value in found.items():
        assert value.shape == expected[name].shape and np.isfinite(value).all(), name
    gradients = [name for name in found if name != "output"]
    sizes = {name: np.abs(expected[name]).max(initial=0.0) for name in found}
    whole = max((sizes[name] for name in gradients), default=0.0)
    away = {n: np.abs(found[n].astype(np.float64) - expected[n]).max(initial=0.0) for n in found}
    relative = {name: float(away[name] / max(sizes[name], SMALL * whole)) for name in gradients}
    worst = max(relative, key=relative.__getitem__, default="")
    return Difference(float(away["output"] / sizes["output"]), relative.get(worst, 0.0), worst)


def summarise(result: Result) -> Result:
    """The part that is recorded: of a weight's gradient, its norm and its product with a fixed random vector."""
    small = {name: value for name, value in result.items() if not name.startswith("grad/weight/")}
    names = [name for name in sorted(result) if name.startswith("grad/weight/")]
    wide = [result[name].astype(np.float64) for name in names]
    products = [np.vdot(value, uniform(name, value.shape, 0)) for name, value in zip(names, wide, strict=True)]
    small["names"] = np.array([name.removeprefix("grad/weight/") for name in names])
    small["norms"] = np.array([np.linalg.norm(value) for value in wide])
    return small | {"products": np.array(products)}


def compare_summaries(found: Result, expected: Result) -> Difference:
    """As `compare`, of two summaries. A product with unit noise differs by as much as the gradient does by its norm."""
    assert found["names"].tolist() == expected["names"].tolist()
    keep = [name for name in expected if name in ("output",) or name.startswith("grad/")]
    first = compare({name: found[name] for name in keep}, {name: expected[name] for name in keep})
    scale = np.maximum(expected["norms"], SMALL * expected["norms"].max(initial=0.0))
    away = np.maximum(abs(found["norms"] - expected["norms"]), abs(found["products"] - expected["products"])) / scale
    if away.max(initial=0.0) <= first.gradient:
        return first
    return Difference(first.output, float(away.max()), str(expected["names"][away.argmax()]))


def record(name: str, result: Result, shapes: Iterable[tuple[str, tuple[int, ...]]]) -> None:
    """Writes a result's summary, with the shapes of all tensors, of which the light suite makes the weights."""
    table = json.dumps(dict(shapes), separators=(",", ":"))
    RECORDED.mkdir(exist_ok=True)
    narrow = {n: v.astype(np.float32) if v.dtype == np.float64 and v.ndim > 1 else v for n, v in result.items()}
    entries = {n.replace("/", "|"): v for n, v in narrow.items()}
    np.savez_compressed(RECORDED / f"{name}.npz", shapes=np.array(table), **entries)


def recorded(name: str) -> tuple[dict[str, tuple[int, ...]], Result]:
    """(shapes, summary) of what was recorded."""
    with np.load(RECORDED / f"{name}.npz") as found:
        result = {key.replace("|", "/"): found[key] for key in found.files if key != "shapes"}
        return {key: tuple(shape) for key, shape in json.loads(str(found["shapes"])).items()}, result
