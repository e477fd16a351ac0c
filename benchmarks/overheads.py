"""What a run pays besides its training steps: for checkpoints, for starting again, and for the loop itself.

    python -m benchmarks.overheads [checkpoints] [starts] [loop]  by default all three: 10 to 15 minutes on two cores

Three figures, each from one call with its rounds interleaved, as medians with the smallest and the largest:

- checkpoints: seconds of a run that saves every 100 steps against one that saves at the end alone; and directly, how
  long a save keeps the loop, how much slower the steps beside it are, and, as a bound, how long a save takes to its
  end where nothing is beside it. Expect less than 3 %.
- starts: seconds from the start of a process to the end of its first step, going on from a checkpoint over beginning
  afresh, both with a warm compilation cache. Expect less than 1.5.
- loop: seconds of the loop a step less those of the compiled step alone, on a tiny model, and what each part takes.
  Expect less than 1 ms.
"""

import contextlib
import dataclasses
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.race import spread
from rfjax import config as configs
from rfjax import data, main
from rfjax.training import loop
from rfjax.training import mesh as meshes
from rfjax.training.checkpoints import Checkpoints, Progress
from rfjax.training.context import RunContext, open_context
from rfjax.training.log import Metrics, TrainingLog
from rfjax.training.run import Run
from rfjax.training.spec import make_run_spec
from rfjax.training.state import initial_state
from rfjax.training.step import jit_update
from rfjax.training.stop import Stop

ROOT = Path(__file__).parents[1]
RUNG = f"--config={ROOT / 'configs' / 'scaling.py'}"
CHECKPOINTS, STARTS, LOOPS, SAVES = 3, 5, 7, 10  # rounds
STEPS, EVERY, LINE, WINDOW = 300, 100, 5, 4  # of the runs with checkpoints; lines after a save that may be slower
TINY_STEPS, TINY_LINE, WARM_LINES = 400, 20, 3
LIMITS = {"checkpoints": 0.03, "starts": 1.5, "loop": 1e-3}


class Lines:
    """A display that notes when each line of metrics came, and ends the process at the first if it is asked to."""

    def __init__(self, began: float = 0.0) -> None:
        """began: `time.time()` when this process was started, to print how long that is ago, and end."""
        self.times: list[float] = []
        self._began = began

    def update(self, step: int, loss: float, examples_per_second: float, flops_per_second: float) -> None:
        if self._began:
            print(time.time() - self._began, flush=True)
            os._exit(0)
        self.times.append(time.perf_counter())

    def say(self, activity: str) -> None:
        pass

    def warn(self, sentence: str) -> None:
        print(sentence, file=sys.stderr)

    def intervals(self) -> list[float]:
        """Seconds from each line to the next."""
        return [b - a for a, b in zip(self.times, self.times[1:], strict=False)]


def rung(depth: int, **training: Any) -> configs.Config:
    """A rung of the first command, without what is measured between its steps."""
    study = dict(configs.runs(main.read_flags([RUNG])))[f"d{depth}"]
    return dataclasses.replace(
        study,
        training=dataclasses.replace(study.training, validate_every=0, **training),
        validation=dataclasses.replace(study.validation, examples=32),
        sampling=dataclasses.replace(study.sampling, count=0),
    )


def tiny(**training: Any) -> configs.Config:
    """A run whose steps take about a millisecond, on pictures of 8 x 8 from memory."""
    c = configs.default()
    c.data.update(name="digits", image_size=8, channels=1)
    c.text.update(length=8, width=8, pooled_width=8)
    c.model.update(depth=2, width_per_depth=8, patch=4)
    c.optimizer.update(flatten=True)
    c.training.update(batch=8, steps=TINY_STEPS, log_every=TINY_LINE, checkpoint_every=TINY_STEPS, **training)
    c.validation.update(examples=16, batch=8)
    c.sampling.count = 0
    return configs.parse(c)


def train(config: configs.Config, display: Any, folder: Path | None = None) -> dict[str, Any]:
    """Trains a run, by default in a folder that is deleted at the end."""
    if folder:
        return loop.train(Run("run", config, folder), display, Stop())
    with tempfile.TemporaryDirectory() as temporary:
        return train(config, display, Path(temporary))


def verdict(name: str, value: float) -> str:
    return "within the limit" if value <= LIMITS[name] else "OVER THE LIMIT"


def checkpoints(depth: int = 4) -> None:
    """Runs with and without checkpoints on the way, in turn; then saves with no steps beside them."""
    whole: dict[int, list[float]] = {EVERY: [], STEPS: []}
    charged: dict[int, list[float]] = {EVERY: [], STEPS: []}
    saves: list[float] = []
    train(rung(depth, steps=LINE, log_every=LINE), Lines())  # compiles
    quiet: list[float] = []
    for _ in range(CHECKPOINTS):
        for every, found in whole.items():
            lines = Lines()
            split = train(rung(depth, steps=STEPS, log_every=LINE, checkpoint_every=every), lines)["split_seconds"]
            found.append(sum(split[name] for name in ("training", "data", "checkpoints")))
            charged[every].append(split["checkpoints"])
            intervals = lines.intervals()
            quiet.append(statistics.median(intervals) / LINE)
            if every == EVERY:
                saves += beside_saves(intervals)
    step = statistics.median(quiet)
    ratios = [a / b - 1 for a, b in zip(whole[EVERY], whole[STEPS], strict=True)]
    each = [(a - b) / (STEPS // EVERY - 1) for a, b in zip(charged[EVERY], charged[STEPS], strict=True)]
    alone = to_their_end(depth)
    share, most = (statistics.median(values) / (EVERY * step) for values in (saves, alone))
    print(f"checkpoints of depth {depth}: {STEPS} steps of {spread(quiet, 1e-3, 0)} ms, {CHECKPOINTS} rounds")
    print(f"  a run that saves every {EVERY} steps         {spread(whole[EVERY])} s")
    print(f"  and one that saves at the end alone    {spread(whole[STEPS])} s")
    print(f"  more, a pair of runs                   {spread(ratios, 0.01)} %")
    print(f"  a save keeps the loop from its steps   {spread(each, 1e-3, 0)} ms")
    print(f"  and with the slower steps beside it    {spread(saves, 1e-3, 0)} ms")
    print(
        f"  that is, one every {EVERY} steps             {share:.2%} of the time, lost in the noise on a busy machine"
    )
    print(f"  a save with no steps beside it         {spread(alone, 1e-3, 0)} ms to its end")
    print(f"  one every {EVERY} steps takes {most:.2%} of the time at most: {verdict('checkpoints', most)}", flush=True)


def beside_saves(intervals: Sequence[float]) -> list[float]:
    """Seconds that each save on the way takes from the loop, by the lines after it against their neighbours."""
    taken = []
    for step in range(EVERY, STEPS, EVERY):
        first = step // LINE - 1  # interval i goes from line i to line i + 1; a save comes right after its line
        last = first + WINDOW
        near = [*intervals[first - WINDOW : first], *intervals[last : last + WINDOW]]
        taken.append(sum(intervals[first:last]) - WINDOW * statistics.median(near))
    return taken


def to_their_end(depth: int) -> list[float]:
    """Seconds of saves, waited for: what they would cost if their thread had no core of its own."""
    config, found = rung(depth), []
    spec, mesh = make_run_spec(config), meshes.make_mesh(config.mesh)
    state = jax.block_until_ready(initial_state(spec, mesh, 0))
    with tempfile.TemporaryDirectory() as temporary:
        saved = Checkpoints(Path(temporary) / "checkpoints", 2)
        for step in range(SAVES + 2):
            began = time.perf_counter()
            saved.save(state.replace(step=jax.numpy.int32(step)), Progress(1.0))
            saved.wait()
            found.append(time.perf_counter() - began)
        saved.close()
    return found[2:]


def start(folder: str, depth: str, began: str) -> None:
    """In a process of its own: one step of a run, then how long the process was alive."""
    train(rung(int(depth), log_every=1, steps=1000), Lines(float(began)), Path(folder))


def seconds_to_step(folder: Path, depth: int) -> float:
    """Of a new process, from before its start to the end of its first training step."""
    command = [sys.executable, "-m", "benchmarks.overheads", "--start", str(folder), str(depth), str(time.time())]
    return float(subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout)


def starts(depth: int = 4) -> None:
    """New processes that begin, and that go on from step 8, in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        begun, fresh = Path(temporary) / "begun", Path(temporary) / "fresh"
        # The same run, for a checkpoint of step 8: programs of other settings would not be in the cache.
        config = rung(depth, log_every=1, steps=1000)
        spec, mesh = make_run_spec(config), meshes.make_mesh(config.mesh)
        saved = Checkpoints(begun / "checkpoints", 2)
        saved.save(initial_state(spec, mesh, 0).replace(step=jax.numpy.int32(8)), Progress(1.0))
        saved.close()
        kinds = {"begins afresh": [fresh / str(i) for i in range(STARTS + 1)], "goes on": [begun] * (STARTS + 1)}
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for i in range(STARTS + 1):
            for kind, folders in kinds.items():
                spent = seconds_to_step(folders[i], depth)
                if i:  # the first of each compiles
                    found[kind].append(spent)
    first, again = found.values()
    ratio = statistics.median(again) / statistics.median(first)
    print(f"starts of depth {depth}: from the start of a process to the end of its first step, {STARTS} rounds")
    for kind, values in found.items():
        print(f"  a run that {kind:13}  {spread(values)} s")
    each = spread([b / a for a, b in zip(first, again, strict=True)])
    print(f"  going on takes {ratio:.2f} times as long, a pair {each}: {verdict('starts', ratio)}", flush=True)


@contextlib.contextmanager
def prepared(config: configs.Config, folder: Path) -> Iterator[RunContext]:
    """What the loop has of a run, for the time of a `with`."""
    with open_context(Run("run", config, folder), Lines(), Stop()) as context:
        yield context


def stream(context: RunContext) -> Iterator[Any]:
    """The batches of a run, as the loop has them from the pipeline."""
    source, encode, config = context.sources["train"], context.encode, context.config.training
    return data.batches(source, encode.prepare, data.Order(config.batch, config.seed), names=encode.names(source))


def ahead(context: RunContext, count: int) -> list[Any]:
    """The first batches of a run, on the devices and encoded."""
    size, batches = context.config.training.batch, stream(context)
    how = context.everywhere((np.uint32(0), np.int32(0)))
    return [context.encode(meshes.put_rows(next(batches), size, context.mesh), *how) for _ in range(count)]


def bare(context: RunContext, batches: Sequence[Any]) -> list[float]:
    """Seconds a step of the compiled programs of noise and update alone, between two looks at the loss."""
    state, sample_noise = initial_state(context.spec, context.mesh, 0), context.noise()
    update, times = jit_update(context.spec, context.mesh), []
    for step in range(TINY_STEPS):
        batch = batches[step % len(batches)]
        state, measured = update(state, batch, sample_noise(state.step, batch["slot"]))
        if (step + 1) % TINY_LINE == 0:
            jax.device_get(measured)
            times.append(time.perf_counter())
    return [(b - a) / TINY_LINE for a, b in zip(times[WARM_LINES:], times[WARM_LINES + 1 :], strict=False)]


def loops() -> None:
    """The loop and the compiled step alone, in turn."""
    config = tiny()
    with tempfile.TemporaryDirectory() as temporary, prepared(config, Path(temporary)) as context:
        batches = ahead(context, 32)
        bare(context, batches)
        train(config, Lines())
        alone, looped, waited = [], [], []
        for _ in range(LOOPS):
            alone.append(statistics.median(bare(context, batches)))
            lines = Lines()
            split = train(config, lines)["split_seconds"]
            looped.append(statistics.median(lines.intervals()[WARM_LINES:]) / TINY_LINE)
            waited.append(split["data"] / TINY_STEPS)
        more = [a - b for a, b in zip(looped, alone, strict=True)]
        print(f"the loop: {TINY_STEPS} steps of a tiny model, a line of metrics every {TINY_LINE}, {LOOPS} rounds")
        print(f"  the loop, a step                 {spread(looped, 1e-3, 3)} ms")
        print(f"  the compiled programs alone      {spread(alone, 1e-3, 3)} ms")
        print(f"  charged to `data`                {spread(waited, 1e-3, 3)} ms, with the pipeline's start")
        result = statistics.median(more)
        print(f"  everything but the step          {spread(more, 1e-3, 3)} ms: {verdict('loop', result)}", flush=True)
        print("  its parts, each alone, in microseconds a step")
        for name, values in parts_of_the_loop(context, batches):
            print(f"    {name:44} {spread(values, 1e-6, 1)}", flush=True)


def parts_of_the_loop(context: RunContext, batches: Sequence[Any]) -> Iterator[tuple[str, list[float]]]:
    """(what, seconds a step) of all that the loop calls besides the compiled step."""
    size, source, encode = context.config.training.batch, context.sources["train"], context.encode
    waiting, names, sample_noise = stream(context), encode.names(source), context.noise()
    own, seed, batch = next(waiting), context.everywhere(np.uint32(0)), batches[0]
    state = initial_state(context.spec, context.mesh, 0)
    update = jit_update(context.spec, context.mesh)
    state, measured = update(state, batch, sample_noise(state.step, batch["slot"]))
    placed = meshes.put_rows(own, size, context.mesh)
    metrics = Metrics(context.run.folder, active=True)
    lines = TrainingLog(metrics, context.config, context.size, context.clock, Lines())
    context.watchdog.beat("measuring")

    def guard() -> None:
        with jax.transfer_guard("disallow"):
            pass

    def clock() -> None:
        with context.clock("data"):
            pass

    def look() -> None:
        for step in range(1, TINY_LINE + 1):
            lines.look(step, measured, False)

    def beats() -> None:
        context.watchdog.beat(f"waiting for the batch of step {7}")
        context.watchdog.beat(f"at training step {7}")

    ready = jax.block_until_ready
    yield "making a batch, in the pipeline's thread", timed(lambda: data.load(source, range(8), encode.prepare, names))
    yield "next(batches), as fast as they come", timed(lambda: next(waiting))
    yield "put_rows", timed(lambda: ready(meshes.put_rows(own, size, context.mesh)))
    yield "encode, dispatched and computed", timed(lambda: ready(encode(placed, seed, state.step)))
    yield (
        "noise, dispatched (and computed: in the step)",
        timed(lambda: ready(sample_noise(state.step, batch["slot"]))),
    )
    yield "clock(data)", timed(clock)
    yield "two transfer guards", [2 * s for s in timed(guard)]
    yield "two beats of the watchdog", timed(beats)
    yield "stop.granted", timed(context.stop.granted)
    yield f"lines, one every {TINY_LINE} steps", [s / TINY_LINE for s in timed(look, 20)]
    metrics.close()


def timed(call: Callable[[], Any], count: int = 200, rounds: int = 9) -> list[float]:
    """Seconds of a call, as the mean of many, some rounds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(count):
            call()
        found.append((time.perf_counter() - began) / count)
    return found


FIGURES = {"checkpoints": checkpoints, "starts": starts, "loop": loops}


def run(arguments: list[str]) -> None:
    """Prints the figures that are asked for."""
    if arguments[:1] == ["--start"]:
        start(*arguments[1:])
    for name in arguments or FIGURES:
        FIGURES[name]()


if __name__ == "__main__":
    run(sys.argv[1:])
