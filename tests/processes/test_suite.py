"""A suite that two processes draw together, killed on the way, against one process with as many devices."""

import json

import pytest
from local_jobs import finish, kill_when, start
from tiny import begun_run, tiny

from rfjax import config as configs

PROMPTS = 50


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source") / "d1"
    c = tiny()
    c.model.depth = 1
    begun_run(folder, configs.parse(c))
    return folder


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    line = {"tag": "single_object", "include": [{"class": "cup", "count": 1}]}
    path = tmp_path_factory.mktemp("prompts") / "evaluation_metadata.jsonl"
    path.write_text("".join(json.dumps(line | {"prompt": f"a sketch of cup {n}"}) + "\n" for n in range(PROMPTS)))
    return path


def pictures(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "images").rglob("*.png")}


def test_two_processes_that_are_killed_end_in_the_bytes_of_one(source, prompts, tmp_path):
    whole, words = tmp_path / "whole", [f"--config.suite.prompts={prompts}"]
    assert f"{4 * PROMPTS} pictures of GenEval are drawn" in finish(start(whole, source, 1, 4, "suites", words))

    folder = tmp_path / "killed"
    kill_when(start(folder, source, 2, 2, "suites", words), folder / "images" / "00008" / "samples" / "0003.png")
    there = pictures(folder)
    assert 36 <= len(there) < 4 * PROMPTS
    (folder / ".drawn.elsewhere.1.partial").write_bytes(b"what a kill leaves")
    out = finish(start(folder, source, 2, 2, "suites", words))
    assert f"{4 * PROMPTS} pictures" not in out.partition("are drawn in")[0]  # not all anew

    assert pictures(folder) == pictures(whole) and len(set(pictures(folder).values())) == 4 * PROMPTS
    names = {path.name for path in (folder / "images").rglob("*") if path.is_file()}
    assert names == {"metadata.jsonl", *(f"000{j}.png" for j in range(4))}
