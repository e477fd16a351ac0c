"""Looks at a study's folder: after a kill, whether every file is whole; at the end, whether two are the same."""

import csv
import functools
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from kills import config as study_config
from kills.killing import SAVING, STEP
from PIL import Image
from tensorboardX.proto import event_pb2

from rfjax import config as configs
from rfjax import files
from rfjax.study import records
from rfjax.training import mesh
from rfjax.training.checkpoints import Checkpoints, Damaged
from rfjax.training.spec import make_run_spec
from rfjax.training.step import State, abstract_state

# What is not compared, for it depends on seconds, dates and folders: keys and columns of any file, and whole files.
SECONDS = {"seconds", "split_seconds", "examples_per_second"}
FACTS = {"date", "command", "commit", "workdir"}
HISTORY = {"sessions.jsonl", "report/index.html"}  # they tell of the sessions: when they were, how long, how many
READ = {"metrics.jsonl"}  # steps done twice stand there twice: compared as `rfjax.study.records` reads them


def png(path: Path) -> None:
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        image.load()


def table(path: Path) -> None:
    with path.open(newline="") as file:
        widths = {len(row) for row in csv.reader(file)}
    assert len(widths) == 1, widths
    assert path.read_bytes().endswith(b"\r\n")


def page(path: Path) -> None:
    assert path.read_text().endswith("</body></html>\n")


def lines(path: Path) -> None:
    """All lines but the last must be whole; the last may be cut where a kill came in the midst of a large one."""
    whole, _, rest = path.read_text().rpartition("\n")
    assert all(isinstance(json.loads(line), dict) for line in whole.splitlines())
    assert not rest or rest.startswith("{")


def text(path: Path) -> None:
    assert path.read_text().endswith("\n")


WHOLE: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: json.loads(path.read_text()),
    ".jsonl": lines, ".png": png, ".csv": table, ".html": page, ".txt": text,
}  # fmt: skip


def check_whole(study: Path) -> list[str]:
    """Looks at every file of a study that was just killed; returns what is left under temporary names.

    What has its final name must be whole. Of the checkpoints, the newest `keep_checkpoints` must be whole; older ones
    are there only because the kill came before they were removed, or in the midst of that.
    """
    left = []
    for path in sorted(study.rglob("*")):
        inner = path.relative_to(study).parts
        if "checkpoints" in inner[:-2] or (path.is_dir() and not SAVING.fullmatch(path.name)):
            continue  # inside of a checkpoint: read as a whole below
        if "checkpoints" in inner and path.is_file():
            continue
        if files.PARTIAL.fullmatch(path.name) or SAVING.fullmatch(path.name) or path.name.startswith(".lock.json."):
            left.append("/".join(inner))
        elif inner[0] == "runs" and "tensorboard" in inner:
            events(path)
        else:
            assert path.suffix in WHOLE, f"{path}: what is this?"
            try:
                WHOLE[path.suffix](path)
            except Exception as error:
                raise AssertionError(f"{path} is not whole: {error!r}") from error
    for name, config in run_configs().items():
        folder = study / "runs" / name / "checkpoints"
        for step in checkpoint_steps(folder)[-config.training.keep_checkpoints :]:
            try:
                read(folder, step, config)
            except Damaged as error:
                raise AssertionError(f"{folder / str(step)} is not whole") from error
    return left


def checkpoint_steps(folder: Path) -> list[int]:
    """What looks like a finished checkpoint."""
    return sorted(int(path.name) for path in folder.glob("*") if STEP.fullmatch(path.name))


@functools.cache
def run_configs() -> dict[str, configs.Config]:
    """Name -> config of the runs of the study."""
    return dict(configs.runs(configs.parse(study_config.get_config())))


@functools.cache
def _abstract(depth: int) -> State:
    config = next(c for c in run_configs().values() if c.model.depth == depth)
    return abstract_state(make_run_spec(config), mesh.make_mesh(config.mesh))


def read(folder: Path, step: int, config: configs.Config) -> State:
    """A checkpoint, read as the run itself reads it: its fingerprint must fit."""
    saved = Checkpoints(folder, config.training.keep_checkpoints, writes=False)
    try:
        return saved.restore(_abstract(config.model.depth), step)[0]
    finally:
        saved.close()


def events(path: Path, *, whole: bool = False) -> list[event_pb2.Event]:
    """The records of a TensorBoard file; the last may be cut by a kill, unless it must be whole."""
    data, place, found = path.read_bytes(), 0, []
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        if place + 16 + length > len(data):
            break
        found.append(event_pb2.Event.FromString(data[place + 12 : place + 12 + length]))
        place += 16 + length
    assert place == len(data) or not whole, f"{path} has a part of a record at its end"
    return found


def check_same(study: Path, reference: Path) -> None:
    """Compares a finished study with an uninterrupted one, to the bit, but for what is named above."""
    assert names(study) == names(reference)
    for name in sorted(names(reference)):
        if name not in HISTORY and Path(name).name not in READ and (reference / name).is_file():
            assert content(study / name) == content(reference / name), name
    page(study / "report" / "index.html")
    for name, config in run_configs().items():
        ours, theirs = study / "runs" / name, reference / "runs" / name
        for step in checkpoint_steps(theirs / "checkpoints"):
            pair = read(ours / "checkpoints", step, config), read(theirs / "checkpoints", step, config)
            leaves = [jax.tree_util.tree_leaves_with_path(state) for state in pair]
            assert len(leaves[0]) == len(leaves[1]) > 3
            for (path, one), (_, other) in zip(*leaves, strict=True):
                same = np.asarray(one).tobytes() == np.asarray(other).tobytes() and one.dtype == other.dtype
                assert same, f"{name}, step {step}: {jax.tree_util.keystr(path)}"
        assert dict(numbers(ours / "tensorboard")) == dict(numbers(theirs / "tensorboard"))
    check_same_records(study, reference)


def content(path: Path) -> Any:
    """What is compared of a file: its bytes, but for tables, and what says when and where a run was."""
    if path.suffix == ".csv":
        return columns(path)
    if path.name in ("result.json", "config.json", "study.json", "data.json"):
        return untimed(json.loads(path.read_text()))
    return path.read_bytes()


def check_same_records(study: Path, reference: Path) -> None:
    """All that a report is made of, as `rfjax.study.records` reads it."""
    ours, theirs = records.read(study), records.read(reference)
    assert ours.failures == theirs.failures == {}
    assert len(ours.runs) == len(theirs.runs) > 0
    for one, other in zip(ours.runs, theirs.runs, strict=True):
        assert one.skipped == other.skipped == 0
        assert (one.state, one.name, one.size, one.steps) == ("complete", other.name, other.size, other.steps)
        for kind in ("train", "validation", "samples", "scores"):
            assert untimed(getattr(one, kind)) == untimed(getattr(other, kind)), f"{one.name}: {kind}"
        assert one.examples.keys() == other.examples.keys()
        for weights, losses in one.examples.items():
            assert losses.tobytes() == other.examples[weights].tobytes()


def names(study: Path) -> set[str]:
    """All files, but for the inside of checkpoints and for TensorBoard's, which have a process's number in theirs."""
    found = set()
    for path in study.rglob("*"):
        inner = path.relative_to(study)
        if "tensorboard" in inner.parts[:-1] or "checkpoints" in inner.parts[:-2]:
            continue
        found.add(str(inner))
    return found


def untimed(value: Any) -> Any:
    """Without what depends on time and place."""
    if isinstance(value, dict):
        return {key: untimed(item) for key, item in value.items() if key not in SECONDS | FACTS}
    return [untimed(item) for item in value] if isinstance(value, list | tuple) else value


def columns(path: Path) -> list[list[str]]:
    """The columns of a table, without those of times."""
    with path.open(newline="") as file:
        return [list(column) for column in zip(*csv.reader(file), strict=True) if column[0] not in SECONDS]


def numbers(folder: Path) -> Iterator[tuple[tuple[str, int], float]]:
    """TensorBoard's numbers, ((tag, step), value), the last written last, without those that depend on time."""
    found = [event for path in folder.glob("events.*") for event in events(path, whole=True)]
    for event in sorted(found, key=lambda event: event.wall_time):
        for value in event.summary.value:
            if value.tag.split("/")[-1] not in SECONDS:
                yield (value.tag, event.step), value.simple_value
