import json
import math
import os
import struct
import time

import pytest
import tensorboardX
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from rfjax.errors import UserError
from rfjax.jsonl import read_lines, write_json
from rfjax.training.clock import Clock
from rfjax.training.log import Metrics
from rfjax.training.tensorboard import cut_records


def test_lines_are_strict_json_and_survive_a_cut(tmp_path):
    done = {"examples": 8, "flops": 10, "seconds": 0.5}
    metrics = Metrics(tmp_path, active=True)
    metrics.write("train", 1, **done, loss=0.5, grad_norm=math.inf)
    metrics.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"kind": "tra')
    metrics = Metrics(tmp_path, active=True, start=1)
    metrics.write("train", 2, **done, loss=float("nan"))
    metrics.close()
    assert [json.loads(line, parse_constant=None)["loss"] for line in path.read_text().splitlines()] == [0.5, "NaN"]
    (first, second), skipped = read_lines(path)
    assert first == {"kind": "train", "step": 1, **done, "loss": 0.5, "grad_norm": "Infinity"}
    assert second["step"] == 2
    assert math.isnan(second["loss"])
    assert skipped == 0
    path.write_text('{"kind": "x", "step": 1}\n{"x": ')  # as a reader may find it while the run goes on
    assert read_lines(path) == ([{"kind": "x", "step": 1}], 1)


def records(path):
    """The events of a TensorBoard file, every checksum checked."""
    data, found = path.read_bytes(), []
    while data:
        length = struct.unpack("<Q", data[:8])[0]
        for piece, end in ((data[:8], 12), (data[12 : 12 + length], 16 + length)):
            assert masked_crc32c(piece) == struct.unpack("<I", data[end - 4 : end])[0]
        found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def test_tensorboard_gets_each_number_at_once_and_forgets_what_is_done_again(tmp_path):
    metrics = Metrics(tmp_path, active=True)
    metrics.write("train", 1, loss=0.5, grad_norm=math.inf)
    metrics.write("validation", 1, loss=0.25, weights="ema", grid="k/8")
    metrics.write("samples", 1, captions=["a"])
    (path,) = (tmp_path / "tensorboard").iterdir()
    first, *events = records(path)  # before it is closed: a kill loses nothing
    assert (first.file_version, len(events)) == ("brain.Event:2", 2)
    values = {value.tag: value.simple_value for event in events for value in event.summary.value}
    assert values == {"train/loss": 0.5, "train/grad_norm": math.inf, "validation/ema/loss": 0.25}
    assert all(event.step == 1 and abs(event.wall_time - time.time()) < 60 for event in events)
    metrics.close()
    path.rename(path.with_name("events.out.tfevents.1.earlier"))
    metrics = Metrics(tmp_path, active=True, start=4)
    metrics.close()
    (path,) = (tmp_path / "tensorboard").glob(f"*{os.getpid()}")
    _, begin = records(path)
    assert (begin.step, begin.session_log.status) == (5, event_pb2.SessionLog.START)


def test_a_record_cut_short_is_taken_off(tmp_path):
    writer = tensorboardX.SummaryWriter(str(tmp_path))
    for step in range(3):
        writer.add_scalar("loss", 0.5, step)
    writer.close()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    cut_records(path)
    assert path.read_bytes() == whole
    kept = len(records(path))
    for cut in (1, 11, 12, 20):  # in the length, its checksum, the data
        path.write_bytes(whole + whole[:cut])
        cut_records(path)
        assert path.read_bytes() == whole
    path.write_bytes(whole[:-1])
    cut_records(path)
    assert len(records(path)) == kept - 1
    path.write_bytes(whole + b"\0" * 30)  # as a machine that went down may leave it
    cut_records(path)
    assert path.read_bytes() == whole
    path.write_bytes(b"")
    cut_records(path)


def test_a_full_disk_stops_a_run_with_a_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    metrics = Metrics(tmp_path, active=True)
    with pytest.raises(UserError, match=r"no room to write .*metrics.jsonl"):
        metrics.write("train", 1, loss=0.5)


def test_other_processes_write_nothing(tmp_path):
    metrics = Metrics(tmp_path / "run", active=False)
    metrics.write("train", 1, loss=0.5)
    metrics.close()
    assert not (tmp_path / "run").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_json(tmp_path / "a" / "result.json", {"x": 1, "y": (float("nan"),)})
    assert json.loads((tmp_path / "a" / "result.json").read_text()) == {"x": 1, "y": ["NaN"]}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a" / "result.json", {"x": object()})
    assert json.loads((tmp_path / "a" / "result.json").read_text())["x"] == 1
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_inner_activities_pause_outer_ones():
    clock = Clock()
    start = time.perf_counter()
    with clock("training"):
        time.sleep(0.02)
        with clock("data"):
            time.sleep(0.03)
        time.sleep(0.02)
    charged, whole = sum(clock.total().values()), time.perf_counter() - start
    assert clock.seconds["data"] >= 0.03
    assert clock.seconds["training"] >= 0.04
    assert clock.seconds["training"] <= whole - 0.03  # what was inside is not charged twice
    assert charged <= whole


def test_what_is_moved_changes_no_sum():
    clock = Clock()
    with clock("training"), clock("data"):
        time.sleep(0.01)
    data, whole = clock.seconds["data"], sum(clock.seconds.values())
    clock.move(data, "data", "training")
    assert clock.spent("data") == 0
    assert clock.spent("training") == pytest.approx(whole)
