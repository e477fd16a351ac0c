"""The server over HTTP on the loopback: a rater's way through it, and what it refuses."""

import concurrent.futures
import contextlib
import errno
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from preference_cases import PROMPTS, picture, post, request, serving, sets

from rfjax.errors import UserError
from rfjax.preferences.ballots import Ballots, Plan
from rfjax.preferences.pairs import QUESTIONS, make_pairs
from rfjax.preferences.server import Server
from rfjax.preferences.votes import VotesFile, read_votes

JUST = {"rater": "ann"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(tmp_path):
    with serving(tmp_path) as found:
        yield found


def counted(folder):
    return read_votes([folder / "votes.jsonl"]).counted


def seen(server, showing):
    """Which set's picture is left, by its pixels."""
    status, headers, png = request(server, "GET", showing["left"])
    assert (status, headers["Content-Type"]) == (200, "image/png")
    found = np.asarray(Image.open(io.BytesIO(png)))
    return next(
        name for name, seed in (("one", 0), ("two", 100)) for i in range(3) if (picture(seed + i) == found).all()
    )


def test_a_rater_votes_on_all_pairs_and_the_file_names_what_was_seen(server, tmp_path):
    _, showing = post(server, "/next", JUST)
    assert (showing["done"], showing["total"], showing["undo"]) == (0, 6, False)
    choices, lefts, passes = ("left", "right", "tie", "bad", "left", "right"), [], []
    for number, choice in enumerate(choices):
        assert showing["done"] == number and showing["prompt"] in PROMPTS
        assert showing["question"]["title"] == list(QUESTIONS.values())[number // 3].title
        lefts.append(seen(server, showing))
        passes.append(showing["question"]["pass"])
        status, showing = post(server, "/vote", JUST | {"item": showing["item"], "choice": choice, "ms": 100 + number})
        assert status == 200
    assert showing == {"done": 6, "total": 6, "undo": True, "finished": True}
    votes = counted(tmp_path)
    assert tuple(vote.choice for vote in votes) == choices and [vote.left for vote in votes] == lefts
    assert passes == [1, 1, 1, 2, 2, 2] and [vote.ms for vote in votes] == list(range(100, 106))
    assert {(vote.question, vote.prompt) for vote in votes} == {
        (name, prompt) for name in ("quality", "following") for prompt in PROMPTS
    }


def test_answers_name_no_model_and_no_file(tmp_path):
    with serving(tmp_path, ("secret_d3", "secret_d6")) as server:
        _, showing = post(server, "/next", JUST)
        other = post(server, "/next", {"rater": "bob"})[1]
        answers = [request(server, "GET", shown[side])[2] for shown in (showing, other) for side in ("left", "right")]
        answers += [json.dumps(shown).encode() for shown in (showing, other)]
        assert not any(word in answer for answer in answers for word in (b"secret", b".png", str(tmp_path).encode()))
        assert re.fullmatch(r"/picture/[0-9a-f]{32}", showing["left"]) and showing["left"] != showing["right"]
        assert {other["left"], other["right"], other["item"]}.isdisjoint(map(str, showing.values()))
        post(server, "/vote", JUST | {"item": showing["item"], "choice": "left", "ms": 5})
        assert {counted(tmp_path)[0].left, counted(tmp_path)[0].right} == {"secret_d3", "secret_d6"}


def test_a_vote_that_is_posted_twice_counts_once(server, tmp_path):
    _, showing = post(server, "/next", JUST)
    body = JUST | {"item": showing["item"], "choice": "left", "ms": 5}
    assert post(server, "/vote", body)[0] == 200
    before = (tmp_path / "votes.jsonl").read_bytes()
    status, answer = post(server, "/vote", body)
    assert (status, answer["error"]) == (409, "this vote is in the file already, and counts once")
    assert (tmp_path / "votes.jsonl").read_bytes() == before and len(counted(tmp_path)) == 1


def test_many_posts_at_once_are_one_vote(server, tmp_path):
    _, showing = post(server, "/next", JUST)
    body = JUST | {"item": showing["item"], "choice": "left", "ms": 5}
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = sorted(status for status, _ in pool.map(lambda _: post(server, "/vote", body), range(16)))
    assert found == [200] + [409] * 15 and len(counted(tmp_path)) == 1


def test_a_vote_that_can_t_be_written_is_said_and_can_be_given_again(server, tmp_path, monkeypatch, capsys):
    _, showing = post(server, "/next", JUST)
    body = JUST | {"item": showing["item"], "choice": "left", "ms": 5}
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        status, answer = post(server, "/vote", body)
    assert (status, answer["error"]) == (500, "the vote can't be written: the terminal says why")
    assert "votes.jsonl (Input/output error)" in capsys.readouterr().err
    assert post(server, "/vote", body)[0] == 200 and len(counted(tmp_path)) == 1


def test_it_listens_on_ipv6_too(tmp_path):
    with contextlib.closing(VotesFile(tmp_path / "votes.jsonl")) as file:
        ballots = Ballots(Plan(make_pairs(sets(tmp_path)), ("quality",)), file, b"s" * 32)
        try:
            server = Server(("::1", 0), ballots)
        except UserError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
        with server:
            assert server.address.startswith(f"http://[::1]:{server.port}/#") and not server.open_to_others
            assert server.knows(f"[::1]:{server.port}") and not server.knows(f"[::2]:{server.port}")


def stranger(server, showing):
    """(path, body, headers, status, words of the sentence) of requests that must change nothing."""
    vote = JUST | {"item": showing["item"], "choice": "left", "ms": 5}
    port, long = server.port, b" " * 4097
    return [
        ("/vote", vote, {"X_Token": "wrong"}, 403, "another server"),
        ("/vote", vote, {"X_Token": None}, 403, "another server"),
        ("/vote", vote, {"X_Token": "\u00e9"}, 403, "another server"),
        ("/vote", vote, {"Origin": "http://evil.example"}, 403, "another site"),
        ("/vote", vote, {"Origin": "null"}, 403, "another site"),
        ("/vote", vote, {"Origin": f"https://127.0.0.1:{port}"}, 403, "another site"),
        ("/vote", vote, {"Origin": f"http://127.0.0.1:{port + 1}"}, 403, "another site"),
        ("/vote", vote, {"Host": f"evil.example:{port}"}, 403, "another name"),
        ("/vote", vote, {"Host": "127.0.0.1"}, 403, "another name"),
        ("/vote", vote, {"Host": f"127.0.0.1:{port}@evil.example"}, 403, "another name"),
        ("/vote", vote, {"Host": "127.0.0.1:no"}, 403, "another name"),
        ("/vote", vote | {"item": "0" * 32}, {}, 403, "not on the screen"),
        ("/vote", vote | {"item": None}, {}, 403, "not on the screen"),
        ("/vote", vote | {"rater": "bob"}, {}, 403, "not on the screen"),
        ("/vote", vote | {"rater": " "}, {}, 400, "a rater's name"),
        ("/vote", vote | {"rater": "a\u0000b"}, {}, 400, "a rater's name"),
        ("/vote", vote | {"rater": "x" * 41}, {}, 400, "a rater's name"),
        ("/vote", vote | {"choice": "undone"}, {}, 400, "a vote is one of"),
        ("/vote", vote | {"choice": ["left"]}, {}, 400, "a vote is one of"),
        ("/vote", vote | {"ms": -1}, {}, 400, "a vote is one of"),
        ("/vote", vote | {"ms": True}, {}, 400, "a vote is one of"),
        ("/vote", b"[1]", {}, 400, "holds a list"),
        ("/vote", b"{", {}, 400, "not JSON"),
        ("/vote", b"[" * 4000, {}, 400, "the request"),
        ("/vote", b"\xff\xfe", {}, 400, "not UTF-8"),
        ("/vote", long, {}, 413, "has a length"),
        ("/vote", b"", {"Content_Length": "-1"}, 413, "has a length"),
        ("/undo", JUST, {}, 409, "no vote of yours"),
        ("/votes.jsonl", vote, {}, 404, "no such page"),
        ("/vote/", vote, {}, 404, "no such page"),
    ]  # fmt: skip


def test_a_stranger_s_vote_is_refused_in_a_sentence_and_nothing_is_written(server, tmp_path):
    _, showing = post(server, "/next", JUST)
    for path, body, headers, status, said in stranger(server, showing):
        found, answer = post(server, path, body, **headers)
        assert (found, said in answer["error"]) == (status, True), (path, body, headers, answer)
    assert (tmp_path / "votes.jsonl").read_bytes() == b""
    assert post(server, "/vote", JUST | {"item": showing["item"], "choice": "left", "ms": 5})[0] == 200


def test_nothing_but_the_page_and_what_was_shown_is_served(server, tmp_path):
    _, showing = post(server, "/next", JUST)
    assert request(server, "GET", showing["left"], Host="localhost:" + str(server.port))[0] == 200
    for path in (
        "/votes.jsonl", "/one/0.png", "/../votes.jsonl", "/%2e%2e/etc/passwd", "//etc/passwd", "/picture/",
        "/picture/../x", "/picture/" + "0" * 32, showing["left"] + "/", showing["left"] + "?x", "/page.html", "/?x",
        showing["left"].upper(), "/picture/0.png", "/next", f"http://127.0.0.1:{server.port}/etc/passwd",
    ):  # fmt: skip
        status, _, answer = request(server, "GET", path)
        assert status == 404 and "error" in json.loads(answer), path
    assert request(server, "GET", "/", Host="evil.example")[0] == 403
    assert request(server, "GET", showing["left"], Host=f"evil.example:{server.port}")[0] == 403
    for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"):
        status, headers, _ = request(server, method, "/")
        assert status == 501 and "Access-Control-Allow-Origin" not in headers


def test_the_page_is_one_file_under_a_strict_policy(server):
    status, headers, page = request(server, "GET", "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert "Python" not in headers["Server"]
    text = page.decode()
    assert server.token not in text and not re.search(r"https?://|<link|@import|url\(| style=| on\w+=", text)

    ids = re.findall(r' id="([\w-]+)"', text)
    assert len(set(ids)) == len(ids)
    used = set(re.findall(r'at\("([\w-]+)"\)', text)) | set(re.findall(r'aria-labelledby="([\w-]+)"', text))
    assert used <= set(ids)


def test_undo_takes_the_last_vote_back_and_shows_its_pair(server, tmp_path):
    _, first = post(server, "/next", JUST)
    _, second = post(server, "/vote", JUST | {"item": first["item"], "choice": "left", "ms": 5})
    status, again = post(server, "/undo", JUST)
    assert status == 200 and again == first and counted(tmp_path) == ()
    assert post(server, "/vote", JUST | {"item": second["item"], "choice": "left", "ms": 5})[0] == 403
    _, third = post(server, "/vote", JUST | {"item": again["item"], "choice": "right", "ms": 6})
    assert third["item"] == second["item"] and [vote.choice for vote in counted(tmp_path)] == ["right"]
    assert (tmp_path / "votes.jsonl").read_bytes().count(b"\n") == 3


def test_each_rater_goes_on_where_he_stopped_also_after_a_kill(tmp_path):
    order, stopped = {}, {}
    with serving(tmp_path, repeats=0.4) as server:
        for rater, votes in (("ann", 2), ("bob", 1)):
            _, showing = post(server, "/next", {"rater": rater})
            for _ in range(votes):
                body = {"rater": rater, "item": showing["item"], "choice": "tie", "ms": 1}
                _, showing = post(server, "/vote", body)
            stopped[rater] = showing
    with (tmp_path / "votes.jsonl").open("ab") as file:
        file.write(b'{"version": 1, "time": 17')  # a kill in the middle of a write
    with serving(tmp_path, repeats=0.4) as server:
        for rater in ("ann", "bob"):
            order[rater] = post(server, "/next", {"rater": rater})[1]
        assert post(server, "/next", {"rater": "new"})[1]["done"] == 0
        body = {"rater": "ann", "item": order["ann"]["item"], "choice": "bad", "ms": 1}
        assert post(server, "/vote", body)[0] == 200
    assert {name: x["done"] for name, x in order.items()} == {"ann": 2, "bob": 1}
    assert order["ann"]["prompt"] == stopped["ann"]["prompt"] and order["ann"]["total"] == 8
    assert len(counted(tmp_path)) == 4


def test_a_picture_that_breaks_leaves_its_pair_out(tmp_path):
    said = []
    with serving(tmp_path, said=said) as server:
        _, showing = post(server, "/next", JUST)
        number = PROMPTS.index(showing["prompt"])
        (tmp_path / "two" / f"{number}.png").write_bytes(b"broken")
        answers = [request(server, "GET", showing[side]) for side in ("left", "right")]
        assert sorted(status for status, _, _ in answers) == [200, 404]
        _, after = post(server, "/next", JUST)
        assert after["prompt"] != showing["prompt"] and after["total"] == 4
        assert len(said) == 1 and f"{number}.png is no picture" in said[0] and "left out" in said[0]


def test_the_command_serves_until_it_is_stopped_and_goes_on(tmp_path):
    """Also after SIGKILL, which leaves what was voted; Ctrl-C says how many votes there are."""
    sets(tmp_path)
    words = [sys.executable, "-m", "rfjax.preferences", "serve", "--votes", "votes.jsonl", "--questions", "following"]
    words += ["--samples", "one=one", "two=two"]
    for number, (signum, code) in enumerate(((signal.SIGKILL, -9), (signal.SIGINT, 0)), start=1):
        process = subprocess.Popen(
            words, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
        )
        with process:
            printed = [process.stdout.readline() for _ in range(3)]
            assert "3 pairs" in printed[0] and f"; {number - 1} are there" in printed[1]
            found = re.fullmatch(r"open http://127.0.0.1:(\d+)/#(\S+)\n", printed[2])
            server = types.SimpleNamespace(port=int(found[1]), token=found[2])
            _, showing = post(server, "/next", JUST)
            assert showing["done"] == number - 1
            assert post(server, "/vote", JUST | {"item": showing["item"], "choice": "left", "ms": 1})[0] == 200
            process.send_signal(signum)
            assert process.wait(30) == code
            rest = process.stdout.read()
    assert "stopped; 2 votes are in votes.jsonl, and the same command goes on" in rest
    assert len(counted(tmp_path)) == 2


def test_a_connection_goes_on_after_a_refusal(server):
    """A refused body is not read as the next request."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)) as connection:
        for _ in range(2):
            connection.request("POST", "/vote", b"GET / HTTP/1.1\r\n\r\n", {"X-Token": "wrong"})
            assert connection.getresponse().read()
            connection.request("GET", "/")
            assert connection.getresponse().read().startswith(b"<!doctype html>")


def test_names_of_a_server_that_others_reach(tmp_path):
    file = VotesFile(tmp_path / "votes.jsonl")
    ballots = Ballots(Plan(make_pairs(sets(tmp_path)), ("quality",)), file, b"s" * 32)
    with contextlib.closing(Server(("0.0.0.0", 0), ballots).socket) as opened:
        port = opened.getsockname()[1]
        server = Server.__new__(Server)
        server.host, server.port = "0.0.0.0", port
        assert server.open_to_others
        for name, known in (("192.168.0.7", True), (socket.gethostname(), True), ("evil.example", False)):
            assert server.knows(f"{name}:{port}") is known
    with pytest.raises(UserError, match=r"can't listen on 192\.0\.2\.1"):  # an address for documentation (RFC 5737)
        Server(("192.0.2.1", 0), ballots)
    file.close()
