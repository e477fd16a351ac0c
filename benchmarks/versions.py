"""Is this checkout as fast as another? Whole runs of both by the command line, in turn, and each round's ratio.

    python -m benchmarks.versions OTHER_CHECKOUT [--rounds=5] [--depth=2] [--steps=60] [--config.KEY=VALUE ...]

A round trains one rung of configs/scaling.py in each checkout, each in a process of its own and in a new work folder;
the one that went first goes second in the next round. The first round fills each checkout's own compilation cache and
does not count. Everything is read from what the runs write, so older versions can take part: the seconds of a step from
metrics.jsonl, between the first line of training and the last, and the seconds by activity from sessions.jsonl (or
sittings.jsonl). Prints medians with the smallest and the largest, and this checkout's over the other's. A flag
`--config.KEY=VALUE` goes to both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import page
from benchmarks.race import say, spread
from benchmarks.same_bits import old_name

HERE = Path(__file__).parents[1]
SESSIONS = ("sessions.jsonl", "sittings.jsonl")
STEP, PROCESS, REST = "a training step, ms", "the process", "all but training"
TRAINING = ("training", "data")  # activities that the steps' seconds are charged to
Spent = dict[str, float]  # what -> seconds


def run(checkout: Path, cache: Path, given: argparse.Namespace, flags: Sequence[str]) -> Spent:
    """Trains the rung in a checkout, and returns what it took.

    Raises:
        RuntimeError: if it fails, with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "study"
        settings = {
            "workdir": folder,
            "study.axes.model.depth": repr((given.depth,)),
            "training.steps": given.steps,
            "training.log_every": given.line,
            "training.validate_every": 0,
        }
        own = [f"--config.{key}={value}" for key, value in settings.items()]
        if not (checkout / "rfjax" / "evaluation" / "sampler.py").exists():  # a version before
            flags = [old_name(flag) for flag in flags]
        command = [sys.executable, "-m", "rfjax.main", f"--config={checkout / 'configs' / 'scaling.py'}", *own, *flags]
        environment = {**os.environ, "PYTHONPATH": str(checkout), "JAX_COMPILATION_CACHE_DIR": str(cache)}
        began = time.perf_counter()
        done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - began
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}"
            )
        return read(folder, wall)


def read(folder: Path, wall: float) -> Spent:
    """What the files of a study of one run say, with the seconds of its process."""
    (metrics,) = folder.glob("runs/*/metrics.jsonl")
    lines = [line for line in records(metrics) if line["kind"] == "train"]
    first, last = lines[0], lines[-1]
    found = {STEP: (last["seconds"] - first["seconds"]) / max(last["step"] - first["step"], 1)}
    for session in (line for name in SESSIONS if (folder / name).exists() for line in records(folder / name)):
        for activity, seconds in session["split"].items():
            found[activity] = found.get(activity, 0.0) + seconds
    found[REST] = wall - sum(found.get(name, 0.0) for name in TRAINING)
    found[PROCESS] = wall
    return found


def records(path: Path) -> list[dict]:
    """The lines of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(ours: Sequence[Spent], theirs: Sequence[Spent]) -> list[str]:
    """The rows: what each took in both checkouts, and the ratio of the rounds."""
    known = dict.fromkeys(name for one in (*ours, *theirs) for name in one)
    names = [STEP, *(name for name in known if name not in (STEP, REST, PROCESS)), REST, PROCESS]
    rows = []
    for name in names:
        here, there = ([one.get(name, 0.0) for one in side] for side in (ours, theirs))
        unit, digits = (1e-3, 1) if name == STEP else (1, 2)
        both = [(a, b) for a, b in zip(here, there, strict=True) if b]
        rows.append(
            [name, spread(here, unit, digits), spread(there, unit, digits), spread([a / b for a, b in both], 1, 3)]
        )
    return page.table(("seconds", "this checkout", "the other", "this over the other"), rows)


def main(words: Sequence[str] | None = None) -> None:
    """Runs both, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, help="the folder of the other checkout")
    parser.add_argument("--rounds", type=int, default=5, help="that count")
    parser.add_argument("--depth", type=int, default=2, help="of the rung")
    parser.add_argument("--steps", type=int, default=60, help="updates of a run")
    parser.add_argument("--line", type=int, default=10, help="updates between two lines of metrics")
    given, flags = parser.parse_known_args(words)
    if wrong := [flag for flag in flags if not flag.startswith("--config.")]:
        parser.error(f"unknown: {' '.join(wrong)}")
    sides = {"this": HERE, "other": given.other.resolve()}
    found: dict[str, list[Spent]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as caches:
        for number in range(given.rounds + 1):
            for name in sorted(sides, reverse=number % 2 == 1):
                spent = run(sides[name], Path(caches) / name, given, flags)
                if number:
                    found[name].append(spent)
            steps = {
                name: f"{1e3 * statistics.median(s[STEP] for s in side):.1f} ms" for name, side in found.items() if side
            }
            say(f"round {number} of {given.rounds}: {steps or 'fills the caches'}")
    print("\n".join([f"Depth {given.depth}, {given.steps} steps, {given.rounds} rounds; {page.machine()}", ""]))
    print("\n".join(table(found["this"], found["other"])), flush=True)


if __name__ == "__main__":
    main()
