"""What alignment costs a training step: with stored features over vanilla, and with the encoder on the fly.

    python -m benchmarks.alignment [--depth=6] [--rounds=7] [--vision=FOLDER]

Each round times a few steps of every variant in turn, so that what else the machine does meets all of them; the ratio
is the median over rounds of a variant's time to vanilla's in the same round. `stored` finds the features in the batch;
`fly` runs the encoder of `shapes`, or the one of --vision, before each step.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from rfjax import config as configs
from rfjax import data, flow
from rfjax.training import mesh as meshes
from rfjax.training.encode import EncodeStage
from rfjax.training.spec import make_run_spec
from rfjax.training.state import initial_state
from rfjax.training.step import jit_noise, jit_update


def main() -> int:
    """Prints a table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=6, help="of the network; its width is 64 a block")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image", type=int, default=16, help="side of a picture in pixels")
    parser.add_argument("--steps", type=int, default=3, help="timed in each round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--vision", default="", help="folder of a pretrained Vision Transformer")
    given = parser.parse_args()
    encoder = f"vision@{given.vision}" if given.vision else "shapes"
    variants = {
        "vanilla": prepared(given, (), stored=False),
        "stored": prepared(given, (encoder,), stored=True),
        "fly": prepared(given, (encoder,), stored=False),
    }
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.rounds + 1):  # the first compiles
        for name, run in variants.items():
            start = time.perf_counter()
            run(given.steps)
            times[name].append((time.perf_counter() - start) / given.steps)
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds[1:], times["vanilla"][1:], strict=True)]
        print(
            f"{name:>8}  {statistics.median(seconds[1:]):8.4f} s a step  {statistics.median(ratios):.3f} of vanilla "
            f"({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )
    return 0


def prepared(given: argparse.Namespace, encoders: tuple[str, ...], *, stored: bool) -> Callable[[int], None]:
    """Compiles a variant; the result trains so many steps."""
    c = configs.default()
    c.data.image_size = given.image
    c.model.update(depth=given.depth, width_per_depth=64, precision=given.precision)
    # The projector's hidden layers are 4 D wide, as the benchmark of the step's cost is defined.
    c.alignment.update(encoders=encoders, projector_width=4 * 64 * given.depth, tokens="resample")
    c.training.batch = given.batch
    config = configs.parse(c)
    spec, mesh = make_run_spec(config), meshes.make_mesh(config.mesh)
    stage = EncodeStage.place((*spec.encoders, *spec.features), mesh)
    source = data.open_source(config.data, "train")
    rows, _ = data.load(source, range(given.batch), stage.prepare, stage.names(source))
    rows, seed = meshes.put_rows(rows, given.batch, mesh), np.uint32(0)
    formulation = flow.formulation(config.flow.formulation, config.flow.shift).arrays
    sample, update = jit_noise(spec.objective, spec.inputs, mesh), jit_update(spec, mesh)
    held = {"state": initial_state(spec, mesh, 0), "batch": stage(rows, seed, np.int32(0))}

    def run(steps: int) -> None:
        for _ in range(steps):
            state = held["state"]
            batch = held["batch"] if stored or not encoders else stage(rows, seed, state.step)
            noise = sample(formulation, seed, state.step, batch["slot"])
            held["state"], _ = update(state, batch, noise)
        jax.block_until_ready(held["state"])

    return run


if __name__ == "__main__":
    raise SystemExit(main())
