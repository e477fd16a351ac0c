"""Where a study's wall time goes, from the study's own records: with an empty compilation cache, and with it warm.

    python -m benchmarks.study [RUNG ...] [KEY=VALUE ...] [rounds=N] [--record]    by default d1 d2 d3: 5 minutes

Each round runs these rungs of configs/scaling.py twice, each time in a process of its own and in a new work folder:
first with an empty compilation cache of its own, then with the cache that this filled, as JAX fills it by default.
KEY=VALUE sets a key of the config, such as training.steps=40. Prints seconds and shares by activity, as medians with
the smallest and the largest; "the rest" is the process's time from its start to its end less all that the study has
accounted for: the start of Python, what is between activities, and the end. Below, the programs compiled, or fetched
from the cache, and the seconds of that, which are parts of the activities that needed them.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import page
from benchmarks.race import rounds_of, spread
from rfjax.study import records

ROOT = Path(__file__).parents[1]
RUNGS, ROUNDS, SLOWEST = ("d1", "d2", "d3"), 2, 5
SIDES = ("cold cache", "warm cache")
ACTIVITIES = {  # of the records -> of the table, in the order in which they come; others stand as they are called
    "start-up": "start-up: imports, checks of the config",
    "setup": "setup: weights, data sets, folders",
    "compilation": "compilation of the training step",
    "training": "training steps",
    "data": "waiting for data",
    "validation": "validation",
    "samples": "samples",
    "scores": "scores of samples",
    "checkpoints": "checkpoints",
    "report": "report",
}
REST = "the rest"


@dataclass(frozen=True)
class Spent:
    """What a study cost: its process's seconds, those by activity, and of programs by name (how many, seconds)."""

    wall: float
    split: dict[str, float]
    programs: dict[str, tuple[int, float]]

    @property
    def rest(self) -> float:
        return self.wall - sum(self.split.values())


def study(folder: Path, cache: Path, rungs: Sequence[str], settings: Sequence[str]) -> Spent:
    """Runs rungs of the first command into a new folder.

    Raises:
        RuntimeError: if it fails, with the end of what it said.
    """
    depths = tuple(int(name.removeprefix("d")) for name in rungs)
    command = [sys.executable, "-m", "rfjax.main", "--config=configs/scaling.py", f"--config.workdir={folder}"]
    command += [f"--config.study.axes.model.depth={depths!r}", *(f"--config.{setting}" for setting in settings)]
    began = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return spent(folder, wall)


def spent(folder: Path, wall: float) -> Spent:
    """What the records of a study say, with the seconds that its process took."""
    split: dict[str, float] = {}
    programs: dict[str, tuple[int, float]] = {}
    for session in records.read(folder).sessions():
        for name, seconds in session["split"].items():
            split[name] = split.get(name, 0.0) + seconds
        for name, found in session["compilations"].items():
            count, seconds = programs.get(name, (0, 0.0))
            programs[name] = (count + found["count"], seconds + found["seconds"])
    return Spent(wall, split, programs)


def table(found: dict[str, list[Spent]]) -> list[str]:
    """The lines of the section: activities by seconds and shares, and the programs."""
    known = {name for rounds in found.values() for one in rounds for name in one.split}
    names = [name for name in ACTIVITIES if name in known] + sorted(known - set(ACTIVITIES))
    rows = [
        [ACTIVITIES.get(name, name), *_cells(found, lambda one, name=name: one.split.get(name, 0.0))] for name in names
    ]
    rows += [[REST, *_cells(found, lambda one: one.rest)], ["all", *_cells(found, lambda one: one.wall)]]
    lines = page.table(["activity", *(cell for side in found for cell in (f"{side}, s", "share"))], rows)
    programs = "; ".join(f"{side} {_programs([one.programs for one in rounds])}" for side, rounds in found.items())
    return [*lines, "", f"Programs compiled, or fetched from the cache, in all activities: {programs}."]


def _cells(found: dict[str, list[Spent]], seconds: Callable[[Spent], float]) -> list[str]:
    cells = []
    for rounds in found.values():
        share = statistics.median(seconds(one) / one.wall for one in rounds)
        cells += [spread([seconds(one) for one in rounds], digits=1), f"{share:.1%}"]
    return cells


def _programs(rounds: Sequence[dict[str, tuple[int, float]]]) -> str:
    """How many, in how many seconds, and the slowest of them in the first round."""
    whole = statistics.median(sum(seconds for _, seconds in programs.values()) for programs in rounds)
    slowest = sorted(rounds[0].items(), key=lambda item: -item[1][1])[:SLOWEST]
    named = ", ".join(f"{name} {seconds:.1f} s" for name, (_, seconds) in slowest)
    return f"{sum(count for count, _ in rounds[0].values())} in {whole:.1f} s ({named})"


def main(words: Sequence[str]) -> None:
    """Runs the rounds and prints the table."""
    settings = [word for word in words if "=" in word and not word.startswith(("rounds=", "-"))]
    rungs = [word for word in words if "=" not in word and not word.startswith("-")] or RUNGS
    rounds = rounds_of(words, ROUNDS)
    found: dict[str, list[Spent]] = {side: [] for side in SIDES}
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as temporary:
            for side in SIDES:
                one = study(Path(temporary) / side.split()[0], Path(temporary) / "cache", rungs, settings)
                found[side].append(one)
                said = json.dumps({name: round(seconds, 1) for name, seconds in one.split.items()})
                print(f"round {number + 1} of {rounds}, {side}: {one.wall:.1f} s {said}", file=sys.stderr, flush=True)
    title = f"{', '.join(rungs)} of configs/scaling.py{''.join(f', {s}' for s in settings)}; {rounds} rounds:"
    page.show("study", [title, "", *table(found)])


if __name__ == "__main__":
    main(sys.argv[1:])
