import contextlib
import os

import pytest

from rfjax import files, ownership
from rfjax.buckets import mirror, sync
from rfjax.buckets.sync import Mirror
from rfjax.errors import UserError


@pytest.fixture
def pair(memory, tmp_path):
    """The mirrors of two jobs; a third one is a reader's."""
    made = [Mirror(memory / "study", tmp_path / name) for name in ("one", "two")]
    yield made
    for one in made:
        one._over.set()


def names(place):
    return [entry.name for entry in place.entries()]


def read(place):
    return {name: (place / name).look().data.decode() for name in names(place)}


def test_files_go_up_whole_and_oldest_first(pair, memory, monkeypatch):
    one, two = pair
    files.write(one.folder / "runs/d1/result.json", "done")
    files.append_line(one.folder / "runs/d1/metrics.jsonl", "1")
    os.utime(one.folder / "runs/d1/metrics.jsonl", ns=(0, 1))
    sent = []
    monkeypatch.setattr(one, "_send", lambda name, stamp, real=one._send: sent.append(name) or real(name, stamp))
    with files.atomic(one.folder / "half") as partial:
        partial.write_text("half")
        one.publish()
    assert sent == ["runs/d1/metrics.jsonl", "runs/d1/result.json"]
    assert read(memory / "study") == {"runs/d1/metrics.jsonl": "1\n", "runs/d1/result.json": "done"}
    one.publish()
    assert sent[2:] == ["half"]
    two.refresh(two.folder / "runs")
    assert (two.folder / "runs/d1/metrics.jsonl").read_text() == "1\n"
    assert not (two.folder / "half").exists()


def test_a_job_writes_only_what_it_has_changed(pair, memory):
    one, two = pair
    files.write(one.folder / "a", "1")
    files.write(one.folder / "b", "1")
    one.publish()
    two.refresh(two.folder)
    files.write(one.folder / "a", "2")
    files.write(two.folder / "b", "2")
    one.publish()
    two.publish()
    assert read(memory / "study") == {"a": "2", "b": "2"}
    files.write(one.folder / "b", "ours, not sent yet")
    one.refresh(one.folder)
    two.refresh(two.folder)
    assert (one.folder / "b").read_text() == "ours, not sent yet"
    assert (two.folder / "a").read_text() == "2"


def test_what_is_removed_here_is_removed_there_and_the_other_way_round(pair, memory):
    one, two = pair
    files.write(one.folder / "runs/a", "1")
    files.write(one.folder / "runs/b", "1")
    one.publish()
    two.refresh(two.folder)
    (one.folder / "runs/a").unlink()
    one.refresh(one.folder)  # does not bring it back
    assert not (one.folder / "runs/a").exists()
    one.publish()
    assert names(memory / "study") == ["runs/b"]
    files.write(two.folder / "runs/b", "changed")
    two.refresh(two.folder)
    assert not (two.folder / "runs/a").exists()
    assert (two.folder / "runs/b").read_text() == "changed"


def test_lines_of_several_jobs_are_all_kept(pair, memory):
    one, two = pair
    for number in range(3):
        for name, job in (("one", one), ("two", two)):
            files.append_line(job.folder / "sessions.jsonl", f"{name}{number}")
            job.publish()
    lines = (memory / "study/sessions.jsonl").look().data.decode().split()
    assert lines == ["one0", "two0", "one1", "two1", "one2", "two2"]
    one.refresh(one.folder)
    assert (one.folder / "sessions.jsonl").read_text().split() == lines


def test_a_folder_that_another_job_has_taken_is_not_written(pair, memory):
    one, two = pair

    def check():
        raise ownership.FolderTaken("another has it")

    for name in ("runs/d1/x", "runs/d1/y", "runs/d2/x"):
        files.write(one.folder / name, "1")
    one.publish()
    two.refresh(two.folder)
    files.write(two.folder / "runs/d1/x", "by the job that has it now")
    two.publish()
    for name in ("runs/d1/x", "runs/d1/z", "runs/d2/x"):
        files.write(one.folder / name, "late")
    (one.folder / "runs/d1/y").unlink()
    with ownership.owned(one.folder / "runs/d1", check):
        one.publish()
    one.publish()  # later, when nothing says any more that the folder was taken
    there = {"runs/d1/x": "by the job that has it now", "runs/d1/y": "1", "runs/d2/x": "late"}
    assert read(memory / "study") == there
    one.refresh(one.folder)
    assert {name: (one.folder / name).read_text() for name in there} == there


def test_arrays_and_locks_are_no_part_of_it_and_what_is_sent_once_is_not_kept(pair, memory):
    one, two = pair
    for name in ("checkpoints/3/t.part", "lock.json"):
        (memory / "study" / name).write(b"1")
    files.write(one.folder / "train/latents_00000.npy", "numbers")
    one.publish()
    two.refresh(two.folder)
    for job in pair:
        assert not any(path.is_file() for path in job.folder.rglob("*"))
        job.publish()
    assert len(names(memory / "study")) == 3


def test_a_store_that_fails_is_one_sentence_and_nothing_is_lost(pair, memory, monkeypatch):
    one, _ = pair
    files.write(one.folder / "a", "1")

    def fail(*_):
        raise UserError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(type(memory), "write", fail)
        with pytest.raises(UserError, match="no answer"):
            one.publish()
    one.publish()
    assert read(memory / "study") == {"a": "1"}


def test_a_work_folder_is_mirrored_while_it_is_open(memory, tmp_path):
    with mirror.opened("memory://bucket/study", "config.workdir", writes=True) as folder:
        path = files.Path(folder) / "runs" / "x"
        files.write(path, "1")
        assert str(mirror.place_of(path)) == "memory://bucket/study/runs/x"
        assert mirror.named(f"see {path}") == "see memory://bucket/study/runs/x"
    assert read(memory) == {"study/runs/x": "1"}
    assert list((tmp_path / "cache").rglob("*vm*")) == []
    assert mirror.place_of(path) is None
    with mirror.opened(str(tmp_path), "config.workdir", writes=True) as folder:
        assert folder == str(tmp_path)
    with pytest.raises(ZeroDivisionError), mirror.opened("memory://bucket/study", "x", writes=True) as folder:
        assert (files.Path(folder) / "runs/x").read_text() == "1"
        files.write(files.Path(folder) / "y", "2")
        raise ZeroDivisionError
    assert read(memory) == {"study/runs/x": "1", "study/y": "2"}


def test_changes_go_up_by_themselves(memory, tmp_path, monkeypatch):
    monkeypatch.setattr(sync, "EVERY", 0.01)
    with mirror.opened("memory://bucket/study", "x", writes=True) as folder:
        files.write(files.Path(folder) / "x", "1")
        for _ in range(500):
            if names(memory):
                break
            files.time.sleep(0.01)
        assert read(memory) == {"study/x": "1"}


def test_the_folder_of_a_killed_process_is_removed(memory, tmp_path):
    with mirror.opened("memory://bucket/study", "x", writes=True) as folder:
        mine = files.Path(folder)
    dead = mine.parent.with_name(mine.parent.name.replace(str(os.getpid()), "999999999"))
    elsewhere = dead.with_name("elsewhere-12345678.7")
    for left in (dead, elsewhere):
        files.write(left / "1" / "x", "left")
    with contextlib.closing(contextlib.ExitStack()), mirror.opened("memory://bucket/study", "x", writes=True):
        assert not dead.exists()
        assert elsewhere.exists()
