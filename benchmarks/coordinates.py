"""The coordinate check: do activations, and what updates change of them, keep their size over width and depth?

    python -m benchmarks.coordinates [--backbone=mmdit] [--axes=width,depth] [--most=1024,32] [--seeds=2] [--out=FOLDER]

A parameterisation is right if the mean |activation| of each layer, and the mean |change| that the first updates bring
to it, do not depend on the size (arXiv 2203.03466, 2505.15270). With gates and final layer at zero nothing but the
final layer moves at first, so the slopes are read after the last of the steps. Written are BACKBONE.csv (every number)
and BACKBONE.png; printed are tables of slopes of log size against log width, or depth, over all sizes.

Random images, noise and text, the same batch at each step; a constant learning rate without warm-up or clipping.
Parameterisations and seeds of a size share one compiled program, which has all factors as arguments.
"""

import argparse
import csv
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import page
from rfjax import files, lookup
from rfjax.compiling import quick_options
from rfjax.config import Optimizer
from rfjax.models import Inputs, build
from rfjax.models.parameterisation import PARAMETERISATIONS, STANDARD, Factors, Scaling
from rfjax.models.stacking import INTERMEDIATES
from rfjax.training.optimizer import scheduled_optimizer
from rfjax.training.state import scaled_start

STEPS, RATE, BATCH = 5, 2.0**-8, 8
BASE, HEAD, DEPTH = 64, 16, 2  # width of the base, width of a head, depth of the base
SIZES = {"width": (64, 128, 256, 512, 1024), "depth": (2, 4, 8, 16, 32)}
INPUTS = Inputs.of_text((8, 8, 3), (4, 32), 32)
_IN = r"^(blocks|last_block)/(image|stream)/"
LAYERS = {
    "patch embedding": r"^patch_embed/", "text embedding": r"^context_embed/", "time vector": r"^time_embed/__call__",
    "modulation": _IN + "modulation/linear/", "q, k, v": _IN + "qkv/linear/", "attention's output": _IN + "out/",
    "MLP's hidden": _IN + "mlp/fc1/", "MLP's output": _IN + "mlp/fc2/",
    "residual stream": r"^(last_block|blocks)/__call", "prediction": "^final/",
    "final modulation": "^final_modulation/linear/",
}  # fmt: skip
MODULES = {"patch_embed", "context_embed", "time_embed", "linear", "out", "fc1", "fc2", "final", "blocks", "last_block"}
Layers = dict[str, float]  # layer -> a mean |number|


class Point(NamedTuple):
    """One network after one step.

    Attributes:
        sizes: the mean |activation| of each layer.
        changes: the mean |change| of it since the start.
    """

    sizes: Layers
    changes: Layers


@functools.cache
def _programs(backbone: str, width: int, depth: int) -> tuple[Any, Any]:
    """(key -> weights and moments), and (weights, moments, factors, z, t, cond, target) -> (both, activations)."""
    model = build(backbone, depth, 0, patch=4, width=width, heads=width // HEAD)
    settings = Optimizer(clip=0.0, b2=0.99, flatten=True)
    shape = Scaling(STANDARD, 1.0, 1.0)
    optimizer = lambda factors: scheduled_optimizer(settings, lambda _: RATE, shape, factors)  # noqa: E731
    wanted = lambda module, method: method == "__call__" and module.name in MODULES  # noqa: E731

    def start(key: Any) -> Any:
        inputs = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), INPUTS.abstract(1))
        params = model.init(key, *inputs)["params"]
        return params, optimizer(shape.factors()).init(params)

    def loss(params: Any, z: Any, t: Any, cond: Any, target: Any) -> Any:
        capture = {"capture_intermediates": wanted, "mutable": [INTERMEDIATES]}
        out, kept = model.apply({"params": params}, z, t, cond, **capture)
        return ((out - target) ** 2).mean(), kept[INTERMEDIATES]

    def step(params: Any, moments: Any, factors: Factors, *rows: Any) -> Any:
        grads, kept = jax.grad(loss, has_aux=True)(params, *rows)
        changes, moments = optimizer(factors).update(grads, moments, params)
        return optax.apply_updates(params, changes), moments, kept

    return tuple(jax.jit(each, compiler_options=quick_options()) for each in (start, step))


def record(name: str, backbone: str, width: int, depth: int, seed: int = 0) -> list[Point]:
    """A network of one parameterisation and size at the start and after each of STEPS updates."""
    table = lookup.find(name, PARAMETERISATIONS, "model.parameterisation")
    scaling = Scaling(table, width / BASE, depth / DEPTH)
    start, step = _programs(backbone, width, depth)
    params, moments = start(jax.random.key(seed))
    params, first, points = scaled_start(scaling, params), None, []
    for _ in range(STEPS + 1):
        params, moments, kept = step(params, moments, scaling.factors(), *_rows(seed))
        now = _by_layer(jax.device_get(kept))
        first = first or now
        sizes = {layer: float(np.mean([np.abs(x).mean() for x in found])) for layer, found in now.items()}
        pairs = {layer: zip(found, first[layer], strict=True) for layer, found in now.items()}
        points.append(Point(sizes, {k: float(np.mean([np.abs(a - b).mean() for a, b in p])) for k, p in pairs.items()}))
    return points


def _rows(seed: int) -> tuple[Any, ...]:
    """z, t, cond and the velocity of random images and noise."""
    draw = np.random.default_rng(seed)
    normal = lambda leaf: draw.standard_normal((BATCH, *leaf.shape)).astype(np.float32)  # noqa: E731
    image, noise = draw.standard_normal((2, BATCH, *INPUTS.shape)).astype(np.float32)
    t = np.linspace(0.05, 0.95, BATCH, dtype=np.float32)
    z = (1 - t[:, None, None, None]) * image + t[:, None, None, None] * noise
    return z, t, jax.tree.map(normal, INPUTS.cond), noise - image


def _by_layer(kept: Any) -> dict[str, list[np.ndarray]]:
    """The outputs of each of LAYERS; of the residual stream, what the last block returns of the image."""
    found: dict[str, list[np.ndarray]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for layer, pattern in LAYERS.items():
            if re.search(pattern, name):
                found.setdefault(layer, []).append(np.asarray(leaf))
    stream = found["residual stream"]  # of `blocks` first, each (depth, B, N, D); of the MM-DiT the image's and text's
    last = [x for x in stream if x.ndim == 3]
    return found | {"residual stream": [last[0] if last else stream[0][-1]]}


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Of log value against log size, by least squares; NaN where a value is 0."""
    if min(values) <= 0:
        return float("nan")
    return float(np.polyfit(np.log2(sizes), np.log2(values), 1)[0])


Found = dict[tuple[str, int], Point]  # (parameterisation, size) -> the mean over seeds after the last step


def check(backbone: str, axis: str, sizes: Sequence[int], names: Sequence[str], seeds: int = 1) -> Found:
    """Each parameterisation at each size."""
    found = {}
    for size in sizes:
        shape = {"width": BASE, "depth": DEPTH} | {axis: size}
        for name in names:
            points = [record(name, backbone, **shape, seed=seed)[-1] for seed in range(seeds)]
            mean = lambda which: {  # noqa: E731
                layer: float(np.mean([getattr(one, which)[layer] for one in points]))  # noqa: B023
                for layer in points[0].sizes  # noqa: B023
            }
            found[name, size] = Point(mean("sizes"), mean("changes"))
            print(
                f"{axis} {size} {name}: residual stream {found[name, size].changes['residual stream']:.3g}", flush=True
            )
    return found


def slopes(found: Mapping[tuple[str, int], Point], name: str, which: str) -> Layers:
    """Layer -> slope of its "sizes" or "changes" over all sizes of a parameterisation."""
    sizes = sorted(size for each, size in found if each == name)
    of = lambda layer: [getattr(found[name, size], which)[layer] for size in sizes]  # noqa: E731
    return {layer: slope(sizes, of(layer)) for layer in found[name, sizes[0]].sizes}


def _table(found: Found, axis: str) -> list[str]:
    names = list(dict.fromkeys(name for name, _ in found))
    head = ["layer", *(f"{name}: {what}" for what in ("size", "change") for name in names)]
    columns = [slopes(found, name, which) for which in ("sizes", "changes") for name in names]
    rows = [[layer, *(f"{column[layer]:+.2f}" for column in columns)] for layer in columns[0]]
    sizes = sorted({size for _, size in found})
    lines = ["", f"Slope of log2 against log2 {axis}, {sizes[0]} to {sizes[-1]}, after {STEPS} steps", ""]
    return [*lines, *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))]


def _draw(all_found: Mapping[str, Found], path: Path) -> None:
    from rfjax.study.reports import drawing

    names = list(dict.fromkeys(name for found in all_found.values() for name, _ in found))
    with drawing.style():
        figure, axes = drawing.plt.subplots(
            len(all_found), len(names), figsize=(4.2 * len(names), 3.4 * len(all_found)), sharey="row", squeeze=False
        )
        for row, (axis, found) in zip(axes, all_found.items(), strict=True):
            sizes = sorted({size for _, size in found})
            for panel, name in zip(row, names, strict=True):
                for layer, colour in drawing.colours(list(LAYERS)).items():
                    values = [found[name, size].changes[layer] for size in sizes]
                    panel.plot(sizes, values, "o-", color=colour, label=layer, markersize=3, linewidth=1)
                panel.set(title=name, xlabel=axis, xscale="log", yscale="log")
                panel.set_xticks(sizes, [str(size) for size in sizes], minor=False)
                panel.minorticks_off()
            row[0].set_ylabel("mean |change|")
        axes[0][-1].legend(fontsize=6, loc="upper left", bbox_to_anchor=(1, 1))
        with files.atomic(path) as partial:
            figure.savefig(partial, format="png")


def main() -> None:
    """Checks the axes that the command asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="mmdit")
    parser.add_argument("--axes", default="width,depth")
    parser.add_argument("--most", default="1024,32", help="the largest width, and the largest depth")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("work/coordinates"))
    given = parser.parse_args()
    most = dict(zip(SIZES, map(int, given.most.split(",")), strict=True))
    given.out.mkdir(parents=True, exist_ok=True)
    all_found, lines = {}, []
    for axis in given.axes.split(","):
        sizes = [size for size in SIZES[axis] if size <= most[axis]]
        all_found[axis] = check(given.backbone, axis, sizes, list(PARAMETERISATIONS), given.seeds)
        lines += _table(all_found[axis], axis)
        print("\n".join(_table(all_found[axis], axis)), flush=True)
    with (given.out / f"{given.backbone}.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("axis", "size", "parameterisation", "layer", "mean_size", "mean_change"))
        for axis, found in all_found.items():
            for (name, size), point in found.items():
                rows.writerows((axis, size, name, k, v, point.changes[k]) for k, v in point.sizes.items())
    _draw(all_found, given.out / f"{given.backbone}.png")
    page.show("coordinates", lines)


if __name__ == "__main__":
    main()
