import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic import STEPS, score_line, write_study

from rfjax.errors import UserError
from rfjax.study import records
from rfjax.training import recovery


def test_the_last_scores_are_those_written_last_not_those_of_the_last_step(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    written = [
        score_line("ema", 25, 5.0, 0.1, 3.0, step=8),
        score_line("ema", 25, 5.0, 0.2, 2.0, step=16),  # along the run
        score_line("ema", 50, 5.0, 0.4, 2.0, step=16),
        score_line("raw", 25, 5.0, 0.5, 2.0, step=16),
        score_line("ema", 25, 5.0, 0.3, 1.0, step=8),  # at the end, of the best step: the same key as the first
    ]
    with (folder / "runs" / "d1" / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in written)
    (run,) = records.read(folder).runs
    assert [(line["step"], line["score"]) for line in run.scores] == [(16, 0.2), (16, 0.4), (16, 0.5), (8, 0.3)]
    last = run.last_scores()
    assert {key: line["score"] for key, line in last.items()} == {
        ("ema", "25@5.0"): 0.3,
        ("ema", "50@5.0"): 0.4,
        ("raw", "25@5.0"): 0.5,
    }


def test_what_a_study_asks_of_its_runs_makes_no_other_setting(tmp_path):
    """A ladder that goes on from a pilot promises something, and its runs are seeds of the pilot's rungs."""
    axes = {"model.depth": (1,), "training.seed": (0, 1), "training.steps": (20, 40)}
    (a, b, other, _) = records.read(write_study(tmp_path / "s", axes=axes)).runs
    promising = replace(a, config=a.config | {"study": a.config["study"] | {"promise": 0.1}})
    assert promising.setting == a.setting == other.setting != b.setting
    assert promising.family == a.family == b.family != other.family


def test_what_a_run_has_reached(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2, 3))
    for name in ("d1", "d2"):
        path = folder / "runs" / name / "metrics.jsonl"
        path.write_text("\n".join(path.read_text().splitlines()[:4]) + "\n")
    (folder / "runs" / "d2" / "result.json").write_text('{"status": "complete"}')
    study = records.read(folder)
    assert [run.state for run in study.runs] == ["at step 8 of 40", "complete", "complete"]
    assert study.states() == ["d1 is not finished (at step 8 of 40): the same command goes on with it."]
    assert study.runs[0].dataset == "shapes"


def test_batches_that_were_left_out_are_said(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    recovery.write(folder / "runs" / "d1", (recovery.Skip(step=7, batch=6, loss="nan", back_to=4),))
    said = records.read(folder).states()
    assert said == ["d1: batch 6 was left out, for the loss was nan at step 7; the run went back to step 4."]


def change(run, edit):
    """Rewrites a run's lines."""
    path = run / "metrics.jsonl"
    path.write_text("".join(json.dumps(edit(json.loads(line))) + "\n" for line in path.read_text().splitlines()))


@pytest.mark.parametrize("bad", ["Infinity", "NaN", None])
def test_a_run_whose_validation_loss_is_not_finite_has_failed(tmp_path, bad):
    folder = write_study(tmp_path / "s", depths=(1, 2))
    last = lambda line: line["kind"] == "validation" and line["step"] == STEPS and line["weights"] == "ema"  # noqa: E731
    change(folder / "runs" / "d1", lambda line: line | {"loss": bad} if last(line) else line)
    (folder / "runs" / "d1" / "result.json").write_text('{"status": "complete"}')
    study = records.read(folder)
    assert [run.state.split(":")[0] for run in study.runs] == ["failed", "complete"]
    assert study.runs[0].final("ema") is study.runs[0].final("raw") is None
    said = "inf" if bad == "Infinity" else "NaN"
    assert study.states() == [
        f"d1 failed: the validation loss is not finite ({said} with ema weights at step {STEPS}): it is no part of "
        "fits, tables of losses and rankings."
    ]


def test_losses_along_a_run_that_are_not_finite_are_left_out_with_a_word(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    change(folder / "runs" / "d1", lambda line: line | {"loss": "NaN", "stderr": "NaN"} if line["step"] == 8 else line)
    (run,) = records.read(folder).runs
    assert [line["loss"] for line in run.train if line["step"] == 8] == [None]
    assert 8 not in [line["step"] for line in run.curve("ema")]
    assert run.state == "complete"
    assert run.states() == [
        f"d1: the {kind} loss of step 8 is not finite: those lines are left out of its curve."
        for kind in ("training", "validation")
    ]


def test_a_standard_error_that_is_not_known_is_nan(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    change(folder / "runs" / "d1", lambda line: line | {"stderr": None} if line["kind"] == "validation" else line)
    (run,) = records.read(folder).runs
    assert np.isnan(run.final("ema")["stderr"])
    assert run.states() == []


SPOILT = {
    "config.json": (b"", b"{", b"[1]", b"[" * 100_000, b'{"model": 5}', b'{"model": {"depth": "x"}}', None),
    "metrics.jsonl": (b'{"kind": "train", "step": 1}\n', b"x\n", None),
    "result.json": (b"", b"[]", b'{"status": "complete", "validation": {"ema": 5}}', None),
    "recovery.json": (
        b"",
        b'{"skipped": 5}',
        b'{"skipped": [{"step": "x", "batch": 1, "loss": "1", "back_to": 0}]}',
        None,
    ),
    "failure.txt": (b"", bytes(range(256)), None),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_file_of_a_run_is_named_and_the_others_are_read(tmp_path, name):
    """None stands for a folder of that name."""
    folder = write_study(tmp_path / "s", depths=(1, 2))
    path = folder / "runs" / "d1" / name
    for content in SPOILT[name]:
        path.unlink(missing_ok=True)
        path.mkdir() if content is None else path.write_bytes(content)
        study = records.read(folder)
        assert "d2" in [run.name for run in study.runs]
        said = " ".join(study.states())
        assert "d1" in said
        assert name in said or name == "failure.txt"
        said.encode()


def test_what_a_study_is_made_of_is_named_where_it_is_spoilt(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    path = folder / "study.json"
    known = json.loads(path.read_text())
    for content in (b"", b"{", b"[]", b"[" * 100_000, *(json.dumps(known | wrong).encode() for wrong in (
        {"runs": {"d1": 1}}, {"runs": [5]}, {"config": []}, {"config": {"model": {"depth": "x"}}}
    ))):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"study.json .*: the study.s command makes it again"):
            records.read(folder)
    path.write_text(json.dumps({"config": {"study": {"name": "old"}}, "runs": ["d1"]}))  # of another version
    study = records.read(folder)
    assert study.config["model"]["depth"] == 4
    assert study.study["commit"] == "unknown"


def test_texts_are_fit_to_be_shown(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2))
    line = {"kind": "samples", "step": STEPS, "captions": ["half \ud83d", "\x1b[2Jred"], "sampler": "euler", "steps": 2}
    with (folder / "runs" / "d1" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    (folder / "runs" / "d2" / "failure.txt").write_text("\x1b[31mno\x07\n")
    study = records.read(folder)
    assert study.runs[0].samples["captions"] == ["half \ufffd", "red"]
    assert study.failures == {"d2": "no"}


def test_sessions_that_are_spoilt_are_left_out(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    path = folder / "sessions.jsonl"
    good = {"split": {"training": 1.5}, "seconds": 2.0, "compilations": {}}
    odd = [{}, {"split": 5, "seconds": 1}, {"split": {"a": "x"}, "seconds": 1}, good | {"compilations": {"x": 1}}, 5]
    path.write_text("\n".join([*map(json.dumps, [*odd, good]), "[" * 100_000]))
    (folder / "sittings.jsonl").write_text(json.dumps(good | {"seconds": 1.0}))  # of an older version
    assert records.read(folder).sessions() == [good | {"seconds": 1.0}, good]
    path.unlink()
    path.mkdir()
    (folder / "sittings.jsonl").unlink()
    assert records.read(folder).sessions() == []
