"""Do two checkouts train to the same bits? Losses, gradients' norms, states and exported weights of the first steps.

    python -m benchmarks.same_bits OTHER_CHECKOUT [--steps=4]

Each case is a small run, trained by the command line of both checkouts with a checkpoint after every step. Compared are
the loss and the norm of the gradient at each step, every array of every checkpoint (the weights, their average, and
Adam's moments, of which the first is a multiple of the first gradient), and the tensors of an export where another
project has a place for the network. Exit code 1 if anything differs.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SECTIONS = {"sampling": "samples", "sampling.schedule": "samples.grid"}  # new name -> the one before
STATE = {"average": "ema_params", "moments": "opt_state"}  # the names before -> new ones
TINY = ("--config.training.batch=16", "--config.validation.examples=16", "--config.validation.batch=16",
        "--config.sampling.count=0", "--config.optimizer.warmup=1")  # fmt: skip
CASES: dict[str, tuple[str, ...]] = {
    "mmdit": ("--config.model.backbone=mmdit",),
    "mmdit, dual blocks, QK-norm": ("--config.model.dual_blocks=2", "--config.model.qk_norm=True"),
    "mmdit3, two vocabularies": ("--config.model.backbone=mmdit3", "--config.text.vocabularies=2"),
    "dit on text": ("--config.model.backbone=dit",),
    "sit on labels of digits": ("--config.model.backbone=sit", "--config.text.encoder=labels",
                                "--config.model.time=1-t",
                                "--config.data.name=digits", "--config.text.pooled_width=10",
                                "--config.data.image_size=8", "--config.data.channels=1"),
    "crossdit": ("--config.model.backbone=crossdit",),
    "uvit": ("--config.model.backbone=uvit",),
    "edm, remat, accumulate": ("--config.flow.formulation=edm(-1.2,1.2)", "--config.model.remat=full",
                               "--config.training.accumulate=2"),
    "eps/linear, bfloat16, plain AdamW": ("--config.flow.formulation=eps/linear", "--config.model.precision=bfloat16",
                                          "--config.optimizer.flatten=False"),
}  # fmt: skip
EXPORTS = {"mmdit": "sd3", "mmdit, dual blocks, QK-norm": "sd3"}


def main() -> int:
    """Compares this checkout with another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--steps", type=int, default=4, help="updates of each run")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    given = parser.parse_args()
    here, different = Path(__file__).parents[1], 0
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in CASES.items():
            if given.only not in name:
                continue
            sides = [
                record(
                    checkout,
                    Path(folder) / f"{side}-{name.replace(' ', '_')}".replace(",", ""),
                    name,
                    flags,
                    given.steps,
                )
                for side, checkout in (("here", here), ("there", given.other.resolve()))
            ]
            unequal = [key for key in sides[0] | sides[1] if sides[0].get(key) != sides[1].get(key)]
            different += bool(unequal)
            said = f"differ: {', '.join(unequal[:4])} ({len(unequal)} in all)" if unequal else "equal"
            print(f"{name}: {len(sides[0])} arrays and numbers {said}", flush=True)
    return int(different > 0)


def record(checkout: Path, folder: Path, name: str, flags: tuple[str, ...], steps: int) -> dict[str, Any]:
    """Trains a case with a checkout, and returns what it left, by name."""
    depth = '--config.study.axes.model.depth="(3,)"'.replace('"', "")
    every = [f"--config.training.{key}=1" for key in ("log_every", "checkpoint_every")]
    kept = [
        f"--config.training.keep_checkpoints={steps}",
        f"--config.training.steps={steps}",
        "--config.training.validate_every=0",
    ]
    old = not (checkout / "rfjax" / "training" / "state.py").exists()
    words = [old_name(flag) if old else flag for flag in (*TINY, *flags)]
    run_in(
        checkout,
        "rfjax.main",
        "--config=configs/scaling.py",
        f"--config.workdir={folder}",
        depth,
        *every,
        *kept,
        *words,
    )
    (run,) = (folder / "runs").iterdir()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    found: dict[str, Any] = {}
    for line in lines:
        if line["kind"] == "train":
            found |= {f"step {line['step']}: {key}": line[key] for key in ("loss", "grad_norm")}
        if line["kind"] == "validation":
            found[f"validation {line['weights']}"] = line["loss"]
    for step in range(1, steps + 1):
        found |= arrays(run / "checkpoints" / str(step), step)
    if layout := EXPORTS.get(name):
        target = folder / "export"
        run_in(checkout, "rfjax.interop", "export", str(run), str(target), f"--layout={layout}")
        found |= {f"export {file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in target.iterdir()}
    return found


def old_name(flag: str) -> str:
    """A flag under the name of the version before."""
    for new, old in SECTIONS.items():
        flag = flag.replace(f"--config.{new}.", f"--config.{old}.")
    return flag


def run_in(checkout: Path, module: str, *arguments: str) -> None:
    """Runs a module of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=checkout, env=environment, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{checkout}: {' '.join(arguments)}\n{done.stdout.decode()}\n{done.stderr.decode()}")


def arrays(path: Path, step: int) -> dict[str, str]:
    """The hash of each array of a checkpoint's state, by its name of today."""
    import jax
    from orbax.checkpoint import v1 as ocp

    state = ocp.load_checkpointables(path.absolute())["run"]["state"]
    if "loss_sum" in state:
        state = {STATE.get(name, name): tree for name, tree in state.items() if name != "loss_sum"} | {
            "sums": {"loss": state["loss_sum"]}
        }
    found = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(keys, simple=True, separator="/")
        array = np.ascontiguousarray(np.asarray(leaf))
        found[f"step {step}: {name}"] = hashlib.sha256(array.tobytes()).hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
