import os

import pytest

from rfjax import untrusted
from rfjax.untrusted import Unreadable, parse_json, read_bytes, read_json, read_text


def test_what_is_whole_is_read_and_what_is_not_there_is_none(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": [1, null]}')  # as some editors begin a text
    assert read_json(tmp_path / "x.json") == {"a": [1, None]}
    assert read_json(tmp_path / "nowhere") is read_bytes(tmp_path / "nowhere") is None
    (tmp_path / "x.txt").write_bytes(b"caf\xe9")
    assert read_text(tmp_path / "x.txt") == "caf\ufffd"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'{"a": ', "is not JSON"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[" * 100_000 + b"]" * 100_000, "more than 64 deep"),
        (b"[" * 65 + b"]" * 65, "more than 64 deep"),
        (b"[1]", "holds a list, not an object"),
        (b"true", "holds True, not an object"),
        (b"1" * 5000, "is not JSON"),
    ],
)
def test_what_is_damaged_is_named_with_what_to_do(tmp_path, content, words):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(Unreadable, match=rf"^{path} .*{words}.*: remove it$"):
        read_json(path, fix="remove it")


def test_only_regular_files_of_limited_size_are_read(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"x" * 11)
    for name, words in (("folder", "is a folder"), ("pipe", "is a FIFO"), ("large", "has 11 bytes, more")):
        with pytest.raises(Unreadable, match=f"{name} {words}"):
            read_bytes(tmp_path / name, limit=10)
    with pytest.raises(Unreadable, match="is a device"):
        read_bytes(untrusted.Path("/dev/zero"))


def test_the_depth_is_the_one_asked_for():
    assert parse_json('{"a": ' * 64 + "1" + "}" * 64, "x")
    with pytest.raises(Unreadable, match="x nests lists or objects more than 2 deep"):
        parse_json('{"a": [[1]]}', "x", depth=2)
    with pytest.raises(Unreadable, match="x holds a text, not an object"):
        parse_json('"2"', "x")


def test_lines_that_can_not_be_read_are_told_apart(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes('{"a": "\u2028"}\n\n[1]\n{"b"\n'.encode() + b"[" * 100_000 + b"\n\xff\n")
    assert list(untrusted.json_lines(path)) == [{"a": "\u2028"}, None, None, None, None]


def test_of_a_users_files_only_regular_ones_are_opened_and_none_above_the_limit(tmp_path):
    file, fifo = tmp_path / "x.bin", tmp_path / "fifo"
    file.write_bytes(b"12345")
    os.mkfifo(fifo)
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "endless").symlink_to("/dev/zero")
    with untrusted.regular(file, 5) as opened, untrusted.regular(tmp_path / "link", 5) as linked:
        assert opened.read() == linked.read() == b"12345"
    for path, reason in (
        (fifo, "is a FIFO"),
        (tmp_path, "is a folder"),
        (tmp_path / "endless", "is a device"),
        (file, "has 5 bytes, more than 4"),
    ):
        open_before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Unreadable, match=reason):
            untrusted.regular(path, 4)
        assert len(os.listdir("/proc/self/fd")) == open_before
    with pytest.raises(FileNotFoundError):
        untrusted.regular(tmp_path / "none", 4)
