"""The file of votes: what is written is read, no kill spoils it, and other files are left alone."""

import contextlib
import dataclasses
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preference_cases import vote

from rfjax.errors import UserError
from rfjax.preferences import votes as module
from rfjax.preferences.votes import CHOICES, Vote, Votes, VotesFile, read_votes

texts = st.text(max_size=12)
VOTES = st.builds(
    vote,
    time=st.floats(0, 4e9),
    prompt=texts,
    rater=st.sampled_from(["ann", "bob", "é\u2028\ud800"]),
    pair=st.sampled_from(["0", "1", "2"]),
    choice=st.sampled_from([*CHOICES, "undone"]),
    ms=st.integers(0, 10**7),
    repeat=st.booleans(),
)


def expected(votes):
    """By the book: the first vote on a key counts until it is taken back."""
    counted, doubled = [], 0
    for one in votes:
        there = [other for other in counted if other.key == one.key]
        if one.choice == "undone":
            counted = [other for other in counted if other.key != one.key]
        elif there:
            doubled += 1
        else:
            counted.append(one)
    return Votes(tuple(counted), 0, doubled)


def add(path, *votes):
    with contextlib.closing(VotesFile(path)) as file:
        for one in votes:
            file.add(one)
        return file.votes


@given(st.lists(VOTES, max_size=8), st.data())
def test_a_kill_in_the_middle_of_a_vote_costs_at_most_that_vote(tmp_path_factory, votes, data):
    """Cut at any byte, the file has the whole lines before it, and the next vote is not spoilt."""
    path = tmp_path_factory.mktemp("kill") / "votes.jsonl"
    add(path, *votes)
    content = path.read_bytes()
    assert read_votes([path]) == expected(votes)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = votes[: content[:cut].count(b"\n")]
    if cut < len(content) and content[cut : cut + 1] == b"\n":
        whole = votes[: len(whole) + 1]  # all but the end of the line was written
    assert read_votes([path]) == expected(whole)
    more = vote(pair="new")
    assert add(path, more) == expected(whole)
    assert read_votes([path]) == expected([*whole, more])
    assert path.read_bytes().endswith(more.line()) and path.read_bytes().count(b"\n") == len(whole) + 1


def test_a_vote_is_one_write_and_then_waits_for_the_disk(tmp_path, monkeypatch):
    calls = []
    with contextlib.closing(VotesFile(tmp_path / "votes.jsonl")) as file:
        write, sync = os.write, os.fsync
        monkeypatch.setattr(os, "write", lambda fd, data: calls.append("write") or write(fd, data))
        monkeypatch.setattr(os, "fsync", lambda fd: calls.append("sync") or sync(fd))
        file.add(vote())
    assert calls == ["write", "sync"]


def test_a_full_disk_leaves_no_half_vote(tmp_path, monkeypatch):
    path = tmp_path / "votes.jsonl"
    with contextlib.closing(VotesFile(path)) as file:
        file.add(vote())
        write = os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
            with pytest.raises(UserError, match=r"votes.jsonl"):
                file.add(vote(pair="1"))
        file.add(vote(pair="2"))
    assert [one.pair for one in read_votes([path]).counted] == [vote().pair, "2"]


def test_one_process_writes_at_a_time(tmp_path):
    path = tmp_path / "new" / "votes.jsonl"
    with contextlib.closing(VotesFile(path)), pytest.raises(UserError, match="another process writes"):
        VotesFile(path)
    add(path, vote())
    with contextlib.closing(VotesFile(path)) as file:
        file.close()
        with pytest.raises(UserError, match="the server stops"):
            file.add(vote(pair="1"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"my notes on the study", "is no file of votes"),
        (b"my notes\non the study\n", "holds no votes: its first line is 'my notes'"),
        (b'{"version": 2, "pair": "x"}\n', r"line 1, is a vote of version 2, and this rfjax reads 1"),
        (vote().line() + b'{"version": 3}\n' + vote().line(), "line 2, is a vote of version 3"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "holds no votes"),
        (b"{" * 9000, "is no file of votes"),
    ],
)
def test_other_files_are_refused_and_left_as_they_are(tmp_path, content, said):
    path = tmp_path / "votes.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        VotesFile(path)
    assert path.read_bytes() == content


def test_other_kinds_of_files_are_refused(tmp_path):
    for path, said in ((tmp_path, "can't be written"), (tmp_path / "x" / "votes", "can't be written")):
        (tmp_path / "x").write_bytes(b"")
        with pytest.raises(UserError, match=said):
            VotesFile(path)
    with pytest.raises(UserError, match="is not there"):
        read_votes([tmp_path / "nowhere"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="FIFO"):
        VotesFile(tmp_path / "pipe")


@pytest.mark.parametrize(
    "changed",
    [
        {"choice": "both"}, {"ms": -1}, {"ms": True}, {"ms": 1.5}, {"time": "now"}, {"time": True}, {"repeat": 0},
        {"left": "two"}, {"rater": None}, {"pair": 3}, {"version": "1"},
    ],
)  # fmt: skip
def test_a_line_that_is_no_vote_does_not_count(tmp_path, changed):
    record = json.loads(vote().line()) | changed
    (tmp_path / "votes").write_bytes(vote(pair="1").line() + json.dumps(record).encode() + b"\n[]\nx\n\n")
    found = read_votes([tmp_path / "votes"])
    assert ([one.pair for one in found.counted], found.damaged) == (["1"], 3)
    missing = {key: value for key, value in json.loads(vote().line()).items() if key != next(iter(changed))}
    (tmp_path / "votes").write_bytes(vote(pair="1").line() + json.dumps(missing).encode() + b"\n")
    assert read_votes([tmp_path / "votes"]).damaged == 1


@given(st.binary(max_size=200) | st.lists(st.one_of(st.binary(max_size=20), VOTES.map(Vote.line))).map(b"".join))
def test_whatever_a_file_holds_it_is_read_or_refused_in_a_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "votes.jsonl"
    path.write_bytes(content)
    try:
        read = read_votes([path])
        with contextlib.closing(VotesFile(path)) as file:
            file.add(vote(pair="new"))
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        assert path.read_bytes() == content
    else:
        assert read_votes([path]).counted == (*read.counted, vote(pair="new"))


def test_several_files_are_read_as_one(tmp_path):
    add(tmp_path / "ann", vote(), vote(pair="1"))
    add(tmp_path / "bob", vote(rater="bob"), vote())
    found = read_votes([tmp_path / "ann", tmp_path / "bob"])
    assert (len(found.counted), found.doubled) == (3, 1)


def test_the_form_is_the_one_that_is_documented():
    """Other programs read this file: a change of it is a new version."""
    assert json.loads(vote().line()) == {
        "version": 1, "time": 1.5, "pair": "0" * 16, "prompt": "a red cup", "question": "quality", "rater": "ann",
        "left": "one", "right": "two", "choice": "left", "ms": 1200, "repeat": False,
    }  # fmt: skip
    assert vote().line().startswith(module.START) and vote().line().endswith(b"}\n")
    assert [dataclasses.replace(vote(), choice=choice).chosen for choice in CHOICES] == ["one", "two", None, None]
