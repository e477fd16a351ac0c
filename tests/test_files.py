import errno
import os
import re
import subprocess
import sys
import time

import pytest

from rfjax import files, ownership
from rfjax.errors import UserError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def dead_pid():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_reader_sees_the_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "a" / "x.json"
    files.write(path, "old")
    with files.atomic(path) as partial:
        assert partial.parent == path.parent
        partial.write_text("half")
        assert path.read_text() == "old"
        partial.write_text("new")
    assert path.read_text() == "new"
    with pytest.raises(ZeroDivisionError), files.atomic(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "new"
    assert names(path.parent) == ["x.json"]


def test_a_kill_in_the_midst_of_a_file_leaves_the_old_one_and_what_is_left_is_removed(tmp_path):
    path = tmp_path / "x.json"
    files.write(path, "old")
    code = (
        "import os, signal, sys; from pathlib import Path; from rfjax import files\n"
        "with files.atomic(Path(sys.argv[1])) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    files.clean(tmp_path, tmp_path / "nowhere")
    assert names(tmp_path) == ["x.json"]


def test_cleaning_leaves_what_a_living_process_writes(tmp_path):
    ours = files.partial_name(tmp_path / "ours")
    pid = str(os.getpid())
    parent = ours.with_name(ours.name.replace(pid, str(os.getppid())))
    dead = ours.with_name(ours.name.replace(pid, str(dead_pid())))
    place = files.PARTIAL.fullmatch(ours.name)["place"]
    fresh, old = (tmp_path / f".{name}.{place}-elsewhere.7.partial" for name in ("fresh", "old"))
    kept, other = tmp_path / "mine.partial", tmp_path / ".hidden"
    for path in (ours, parent, dead, fresh, old, kept, other):
        path.write_text("x")
    os.utime(old, (0, time.time() - 3700))
    with files.atomic(tmp_path / "open") as partial:
        partial.write_text("x")
        files.clean(tmp_path)
        assert set(tmp_path.iterdir()) == {parent, fresh, kept, other, partial}


def test_lines_are_whole_and_a_cut_one_is_taken_off(tmp_path):
    path = tmp_path / "a" / "lines.jsonl"
    for line in ("1", "2"):
        files.append_line(path, line)
    long = "x" * (3 * files.BLOCK)
    path.write_text(f"1\n{long}\n{long}")
    file = files.Growing(path)
    file.append("3\n")
    file.close()
    file.close()
    assert path.read_text() == f"1\n{long}\n3\n"
    path.write_text(long)
    files.append_line(path, "4")
    assert path.read_text() == "4\n"


def test_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "lines").symlink_to("/dev/full")
    with pytest.raises(files.FullDisk, match=r"no room to write .*lines \(.* free in .*\): free some space") as error:
        files.append_line(tmp_path / "lines", "1")
    assert "\n" not in str(error.value)
    path = tmp_path / "x.json"
    files.write(path, "old")
    files.partial_name(path).symlink_to("/dev/full")
    with pytest.raises(files.FullDisk):
        files.write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["lines", "x.json"]


def test_a_piece_that_fits_in_part_is_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    file = files.Growing(path)
    file.append("1\n")
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    with pytest.raises(files.FullDisk):
        file.append("22222\n")
    monkeypatch.undo()
    assert path.read_text() == "1\n"
    file.append("3\n")
    file.close()
    assert path.read_text() == "1\n3\n"


def test_room_in_a_real_file_system_runs_out(tmp_path):
    """A limit on the size of files stands in for a small disk: the system itself takes a part of the line only."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from rfjax import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "file = files.Growing(Path(sys.argv[1]))\n"
        "try:\n    [file.append('x' * 299 + '\\n') for _ in range(4)]\n"
        "except files.FullDisk: sys.exit(3)"
    )
    path = tmp_path / "lines"
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == 3
    assert path.read_text() == ("x" * 299 + "\n") * 3


def fail(error, cause=None, context=None):
    if context is None:
        raise error from cause
    try:
        raise context
    except OSError:
        raise error  # noqa: B904  (libraries may forget the cause)


@pytest.mark.parametrize(
    ("error", "cause", "context"),
    [
        (OSError(errno.ENOSPC, "x"), None, None),
        (OSError(errno.EDQUOT, "x"), None, None),
        (ValueError("INTERNAL: Error writing local file [OS error 28: ENOSPC No space left on device]"), None, None),
        (RuntimeError("RESOURCE_EXHAUSTED: disk quota exceeded"), None, None),
        (RuntimeError("can't save"), OSError(errno.ENOSPC, "x"), None),
        (RuntimeError("can't save"), None, OSError(errno.EDQUOT, "x")),
        (ExceptionGroup("several", [ValueError("x"), OSError(errno.ENOSPC, "x")]), None, None),
    ],
)
def test_a_full_disk_is_seen_through_what_libraries_raise(tmp_path, error, cause, context):
    with pytest.raises(UserError, match=f"no room to write {re.escape(str(tmp_path))}"), files.full_disk(tmp_path):
        fail(error, cause, context)


def test_other_errors_pass(tmp_path):
    for error in (UserError("No space left on device"), OSError(errno.EIO, "x"), ValueError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, files.full_disk(tmp_path):
            raise error
        assert raised.value is error


def test_a_process_is_known_by_its_start(tmp_path):
    assert files.started(os.getpid()) == files.started(os.getpid())
    assert files.started(dead_pid()) is None
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert files.started(child.pid) not in (None, files.started(os.getpid()))
    child.kill()
    time.sleep(0.1)
    assert files.started(child.pid) is None  # a zombie is gone too
    child.communicate()


def test_what_has_the_place_of_a_file_or_of_its_folder_is_named(tmp_path):
    (tmp_path / "x.json").mkdir()
    (tmp_path / "file").write_text("")
    for act in (lambda: files.write(tmp_path / "x.json", "1"), lambda: files.append_line(tmp_path / "x.json", "1")):
        with pytest.raises(UserError, match=r"x.json is a folder, but must be a file: move it away"):
            act()
    for act in (files.write, files.append_line):
        with pytest.raises(UserError, match=r"file is a file, but must be a folder: move it away"):
            act(tmp_path / "file" / "a" / "x.json", "1")
    assert names(tmp_path) == ["file", "x.json"]


def test_what_must_last_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """First the file, then the rename, then the folder: whatever a power cut leaves is whole."""
    done, real = [], os.fsync
    kind = lambda file: "folder" if os.path.isdir(f"/proc/self/fd/{file}") else "file"  # noqa: E731
    monkeypatch.setattr(os, "fsync", lambda file: done.append(kind(file)) or real(file))
    monkeypatch.setattr(os, "replace", lambda old, new, real=os.replace: done.append("rename") or real(old, new))
    files.write(tmp_path / "x.json", "1", lasting=True)
    assert done == ["file", "rename", "folder"]
    files.write(tmp_path / "x.json", "2")
    assert done[3:] == ["rename"]


def test_each_write_below_an_owned_folder_asks_first(tmp_path):
    def check():
        raise ownership.FolderTaken("another has it")

    lines = files.Growing(tmp_path / "ours" / "lines")
    files.write(tmp_path / "ours" / "x", "old")
    with ownership.owned(tmp_path / "ours", check):
        for act in (lambda: files.write(tmp_path / "ours" / "x", "new"), lambda: lines.append("1\n")):
            with pytest.raises(ownership.FolderTaken):
                act()
        files.write(tmp_path / "other", "1")
    assert (tmp_path / "ours" / "x").read_text() == "old"
    assert lines.empty()
    lines.append("1\n")
    lines.close()
