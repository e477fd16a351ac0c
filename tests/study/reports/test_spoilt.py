"""Every report lives with what a run left: no line yet, spoilt lines and files, half a character, no time at all."""

import json
import shutil
import string

import pytest
from synthetic import THREE, in_order, write_architectures, write_contest, write_sampling, write_study

from rfjax.errors import UserError
from rfjax.study import reports

KINDS = {
    "scaling": lambda folder: write_study(folder, depths=range(1, 7), scores=True),
    "formulations": lambda folder: write_contest(folder, in_order(THREE), THREE, samples=True),
    "architectures": lambda folder: write_architectures(folder, samples=True),
    "sampling": lambda folder: write_sampling(folder, lambda depth, steps: 0.5),
}


def change(run, edit):
    """Rewrites a run's lines; what `edit` makes None is left out."""
    path = run / "metrics.jsonl"
    lines = filter(None, (edit(json.loads(line)) for line in path.read_text().splitlines()))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def only_started(run):
    change(run, lambda line: line if line["kind"] == "start" else None)


def one_example_a_level(run):
    changes = {"validation": lambda line: {"stderr": "NaN"}, "examples": lambda line: {"losses": line["losses"][:8]}}
    change(run, lambda line: line | changes.get(line["kind"], lambda line: {})(line))


def strange_texts(run):
    captions = ["half \ud83d", "\x1b[31mred", "<script>\x00", "\x07"]
    change(run, lambda line: line | {"captions": captions} if line["kind"] == "samples" else line)
    (run / "failure.txt").write_bytes(b"\xff\x1b[2J<b>")


def spoilt_lines(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write("5\n" + "[" * 10_000 + '\n{"kind": "scores", "step": 40}\n{"kind": "train", "step": "x"}\n')
    for path in (run / "samples").glob("*_tiles.png"):
        path.write_bytes(b"no picture")


def not_finite(run):
    change(run, lambda line: line | {"loss": None} if "loss" in line else line)


def whole(folder):
    """Draws the report; returns page and terminal, which show no control character."""
    drawn = reports.build_report(folder)
    said = reports.summary(drawn, reports.write_page(drawn))
    page = (folder / "report" / "index.html").read_text()
    for text in (page, said):
        assert not set(text) & {chr(i) for i in range(32) if chr(i) not in string.whitespace}
        assert "\x1b" not in text
    return page, said


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_of_runs_that_are_all_spoilt_in_another_way(tmp_path, kind):
    folder = tmp_path / "study"
    KINDS[kind](folder)
    ways = [one_example_a_level, only_started, strange_texts, spoilt_lines, not_finite, shutil.rmtree]
    for run, spoil in zip(sorted((folder / "runs").iterdir()), ways, strict=False):
        spoil(run)
    (folder / "sessions.jsonl").write_text('{"split": {"training": 0}, "seconds": 0}\n{"split": 5}\n')
    page, said = whole(folder)
    assert "could not be read" in page or "cut short or spoilt" in page
    assert "not started yet" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_while_the_first_run_compiles(tmp_path, kind):
    folder = tmp_path / "study"
    KINDS[kind](folder)
    first, *others = sorted((folder / "runs").iterdir())
    only_started(first)
    for run in others:
        shutil.rmtree(run)
    page, _ = whole(folder)
    assert "at step 0 of 40" in page
    (first / "metrics.jsonl").unlink()  # it failed at once
    (first / "failure.txt").write_text("no room\n")
    assert "no room" in whole(folder)[1]


def test_a_report_that_has_no_place_to_go_is_said(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    (folder / "report").write_text("")
    with pytest.raises(UserError, match=r"s/report is a file, where the report's folder should be: move it away"):
        reports.build_report(folder)
