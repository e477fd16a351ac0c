import os
import subprocess
import sys
import tarfile

import pytest

from rfjax import buckets, files
from rfjax.buckets import cache
from rfjax.errors import UserError


@pytest.fixture(autouse=True)
def nothing_in_use(monkeypatch):
    monkeypatch.setattr(cache, "_using", set())


def held(tmp_path):
    data = tmp_path / "cache" / "data"
    return {path.relative_to(data / "memory/bucket").as_posix() for path in data.rglob("*") if path.is_file()}


def test_files_and_folders_become_local(memory, tmp_path):
    for name in ("set/a", "set/b/c", "other"):
        (memory / name).write(name.encode())
    (memory / "set/empty").write(b"")
    folder = buckets.local("memory://bucket/set", "config.data.path")
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {"a", "b/c", "empty"}
    assert (folder / "b/c").read_text() == "set/b/c"
    assert buckets.local("memory:/bucket/set/a").read_text() == "set/a"
    assert buckets.local(tmp_path / "x") == tmp_path / "x"
    with pytest.raises(UserError, match=r"there is nothing at config.data.path = 'memory://bucket/none'"):
        buckets.local("memory://bucket/none", "config.data.path")


def test_what_is_there_is_not_read_again_unless_it_changed(memory, monkeypatch):
    (memory / "a").write(b"1")
    fetched = []
    real = cache.fetch
    monkeypatch.setattr(cache, "fetch", lambda place, path: fetched.append(place) or real(place, path))
    for _ in range(2):
        assert buckets.local("memory://bucket/a").read_bytes() == b"1"
    assert len(fetched) == 1
    (memory / "a").write(b"2")
    assert buckets.local("memory://bucket/a").read_bytes() == b"2"
    assert len(fetched) == 2


def test_the_cache_stays_within_its_bound_and_drops_what_was_used_longest_ago(memory, tmp_path, monkeypatch):
    monkeypatch.setenv(cache.SIZE, "0.0000025")  # 2500 bytes
    for name in "abcd":
        (memory / name).write(b"x" * 1000)
    paths = {}
    for number, name in enumerate("ab"):
        paths[name] = buckets.local(f"memory://bucket/{name}")
        buckets.release(paths[name])
        os.utime(tmp_path / "cache/tags/memory/bucket" / name, (number, number))
    buckets.release(buckets.local("memory://bucket/a"))  # used again
    buckets.local("memory://bucket/c")
    assert held(tmp_path) == {"a", "c"}
    buckets.local("memory://bucket/d")
    assert held(tmp_path) == {"c", "d"}
    with pytest.raises(UserError, match=r"x = 'memory://bucket/a' needs 1e-06 GB more .*RFJAX_CACHE_GB.*: raise it"):
        buckets.local("memory://bucket/a", "x")
    assert held(tmp_path) == {"c", "d"}


def test_what_another_living_process_uses_is_kept(memory, tmp_path, monkeypatch):
    monkeypatch.setenv(cache.SIZE, "0.0000015")
    for name in "ab":
        (memory / name).write(b"x" * 1000)
    buckets.release(buckets.local("memory://bucket/a"))
    (mine,) = (tmp_path / "cache/using").iterdir()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        files.write(mine.with_name(mine.name.replace(str(os.getpid()), str(other.pid))), "memory/bucket/a\n")
        with pytest.raises(UserError, match="of files in use"):
            buckets.local("memory://bucket/b")
        other.communicate(b"\n")
    monkeypatch.setattr(cache, "_using", set())
    assert buckets.local("memory://bucket/b").exists()
    assert held(tmp_path) == {"b"}


@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf"])
def test_a_wrong_size_is_one_sentence(text, monkeypatch):
    monkeypatch.setenv(cache.SIZE, text)
    with pytest.raises(UserError, match=f"RFJAX_CACHE_GB = '{text}' in the environment must be a number"):
        cache.limit()


def test_parts_of_a_large_file_are_read_without_the_rest(memory, tmp_path, monkeypatch):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(20):
            (tmp_path / f"{number}.txt").write_bytes(bytes([number]) * 200_000)
            tar.add(tmp_path / f"{number}.txt", f"{number}.txt")
    (memory / "set/x.tar").write(path)
    read = []
    real = buckets.Place.read
    monkeypatch.setattr(buckets.Place, "read", lambda *args: read.append(args[2] - args[1]) or real(*args))
    monkeypatch.setattr(cache, "BUFFER", 4096)
    with buckets.opened("memory://bucket/set/x.tar") as file, tarfile.open(fileobj=file) as tar:
        assert tar.extractfile("19.txt").read() == bytes([19]) * 200_000
    assert sum(read) < 600_000
    with buckets.opened("memory://bucket/set/x.tar") as file:
        file.seek(-3, os.SEEK_END)
        assert len(file.read()) == 3
    with pytest.raises(UserError, match="there is no object at the path"):
        buckets.opened("memory://bucket/set")
    assert buckets.listed("memory://bucket/set", "*.tar") == ["memory://bucket/set/x.tar"]
    assert buckets.listed("memory://bucket", "set/*.tar") == ["memory://bucket/set/x.tar"]
    assert buckets.listed("memory://bucket", "*.tar") == []
    assert buckets.listed(tmp_path, "*.tar") == [str(path)]
    assert held(tmp_path) == set()
