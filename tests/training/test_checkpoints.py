"""Nothing is removed before a checkpoint has been read or written whole, and nothing is begun anew without a word."""

import os
import shutil
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from rfjax import ownership
from rfjax.errors import UserError
from rfjax.training.checkpoints import Checkpoints, Damaged, Progress
from rfjax.training.state import State


def small(step):
    """A state of three weights."""
    w = {"w": jnp.arange(3.0) + step}
    return State(jnp.int32(step), w, {}, w, {}, {"loss": jnp.float32(0)}, {})


ABSTRACT = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), small(0))


def saved_at(folder, *steps, keep=2, every=0):
    saved = Checkpoints(folder, keep, every)
    for step in steps:
        saved.save(small(step), Progress(1.0))
    saved.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def reopened(folder, keep=2, every=0):
    """What a run that goes on finds: its step, what it is told, and the checkpoints as they were opened."""
    saved, said = Checkpoints(folder, keep, every), []
    found = saved.newest(ABSTRACT, said.append)
    return (found and int(found[0].step)), said, saved


def empty(folder, name):
    (folder / name).mkdir()


def a_file(folder, name):
    (folder / name).write_text("x")


def foreign(folder, name):
    (folder / name).mkdir()
    (folder / name / "notes.txt").write_text("mine")


def half_written(folder, name):
    shutil.copytree(folder / "4", folder / name)
    (folder / name / "_CHECKPOINT_METADATA").unlink()


def renamed(folder, name):
    shutil.copytree(folder / "4", folder / name)


def dangling(folder, name):
    (folder / name).symlink_to("nowhere")


@pytest.mark.parametrize("junk", [empty, a_file, foreign, half_written, renamed, dangling])
def test_what_is_no_checkpoint_takes_no_good_one_away(tmp_path, junk):
    folder = tmp_path / "checkpoints"
    saved_at(folder, 2, 4)
    junk(folder, "90")
    junk(folder, "99")
    step, said, saved = reopened(folder)
    assert step == 4
    assert len(said) == 2
    assert all("put aside" in sentence for sentence in said)
    assert names(folder) == ["2", "4"]
    assert names(tmp_path / "checkpoints.damaged") == ["90", "99"]
    junk(folder, "8")  # while it trains: neither counted among the latest nor overwritten
    saved.save(small(6), Progress(1.0))
    saved.save(small(8), Progress(1.0))
    saved.close()
    assert names(folder) == ["6", "8"]
    assert "8" in names(tmp_path / "checkpoints.damaged")
    assert reopened(folder)[0] == 8


def test_what_has_no_number_for_its_name_is_left_alone(tmp_path):
    saved_at(tmp_path, 2)
    for name in ("best", "007", "1e3", "9" * 40, ".DS_Store", "\u0663"):
        (tmp_path / name).mkdir()
    step, said, saved = reopened(tmp_path)
    saved.close()
    assert (step, said) == (2, [])
    assert len(names(tmp_path)) == 7


def test_where_no_checkpoint_can_be_read_nothing_is_begun_anew(tmp_path):
    folder = tmp_path / "checkpoints"
    saved_at(folder, 2, 4)
    (folder / "2" / "_CHECKPOINT_METADATA").unlink()
    shutil.rmtree(folder / "4" / "run")
    for _ in range(2):  # the same the second time: nothing was moved away
        with pytest.raises(UserError, match=r"none of the 2 checkpoints in .*checkpoints can be read .*moving .* away"):
            reopened(folder)
        assert names(folder) == ["2", "4"]
    assert names(tmp_path) == ["checkpoints"]
    assert reopened(tmp_path / "none")[0] is None


def test_what_was_put_aside_before_stays(tmp_path):
    folder = tmp_path / "checkpoints"
    saved_at(folder, 2)
    for _ in range(2):
        empty(folder, "7")
        reopened(folder)
    assert names(tmp_path / "checkpoints.damaged") == ["7", "7_2"]


@pytest.mark.parametrize(("every", "kept"), [(0, ["6", "8"]), (4, ["4", "6", "8"])])
def test_old_checkpoints_are_removed_once_a_newer_one_has_been_read_though_a_kill_came_in_between(
    tmp_path, every, kept
):
    saved_at(tmp_path, 2, 4, 6, 8, keep=4)
    (tmp_path / "1.removed").mkdir()
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    reader = Checkpoints(tmp_path, 2, every, writes=False)
    assert int(reader.restore(ABSTRACT)[0].step) == 8
    reader.close()
    assert len(names(tmp_path)) == 6, "a reader removes nothing"
    opened = Checkpoints(tmp_path, 2, every)
    assert names(tmp_path) == ["2", "4", "6", "8"], "nor does the run, before it has read one"
    opened.close()
    step, _, saved = reopened(tmp_path, 2, every)
    saved.close()
    assert (step, names(tmp_path)) == (8, kept)


def test_a_job_that_has_lost_its_lock_neither_saves_nor_removes(tmp_path):
    taken = SimpleNamespace(by_another=False)

    def check():
        if taken.by_another:
            raise ownership.FolderTaken("another has it")

    folder = tmp_path / "checkpoints"
    saved_at(folder, 2, 4)
    with ownership.owned(tmp_path, check):
        _, _, saved = reopened(folder, keep=1)
        saved.save(small(6), Progress(1.0))
        taken.by_another = True
        with pytest.raises(ownership.FolderTaken):
            saved.save(small(8), Progress(1.0))
        saved.close()
    assert names(folder) == ["2", "4", "6"]  # what was being written came to its end; nothing was removed


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file is no folder, and checkpoints go there"):
        Checkpoints(tmp_path / "file", 2)
    with pytest.raises(UserError, match="no checkpoint yet"):
        Checkpoints(tmp_path / "new", 2).restore(ABSTRACT)


def test_a_damaged_one_is_named(tmp_path):
    saved_at(tmp_path, 2)
    renamed_to = tmp_path / "4"
    (tmp_path / "2").rename(renamed_to)
    with pytest.raises(Damaged, match=r"4 is of step 2, so its name is not its own"):
        Checkpoints(tmp_path, 2).restore(ABSTRACT)


def test_no_save_leaves_a_descriptor_or_a_thread_behind(tmp_path):
    counts, saved = {}, Checkpoints(tmp_path, 1)
    for step in range(1, 16):
        saved.save(small(step), Progress(1.0))
        saved.wait()
        counts[step] = len(os.listdir("/proc/self/fd")), threading.active_count()
    saved.close()
    assert counts[15] == counts[4]
