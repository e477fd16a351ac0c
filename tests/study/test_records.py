import json

from synthetic import score_line, write_study

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
    (rung,) = records.read(folder).rungs
    assert [(line["step"], line["score"]) for line in rung.scores] == [(16, 0.2), (16, 0.4), (16, 0.5), (8, 0.3)]
    last = rung.last_scores()
    assert {key: line["score"] for key, line in last.items()} == {
        ("ema", "25@5.0"): 0.3,
        ("ema", "50@5.0"): 0.4,
        ("raw", "25@5.0"): 0.5,
    }


def test_what_a_run_has_reached(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2, 3))
    for name in ("d1", "d2"):
        path = folder / "runs" / name / "metrics.jsonl"
        path.write_text("\n".join(path.read_text().splitlines()[:4]) + "\n")
    (folder / "runs" / "d2" / "result.json").write_text('{"status": "complete"}')
    study = records.read(folder)
    assert [rung.state for rung in study.rungs] == ["at step 8 of 40", "complete", "complete"]
    assert study.states() == ["d1 is not finished (at step 8 of 40): the same command goes on with it."]
    assert study.rungs[0].dataset == "shapes"


def test_batches_that_were_left_out_are_said(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1,))
    recovery.write(folder / "runs" / "d1", (recovery.Skip(step=7, batch=6, loss="nan", back_to=4),))
    said = records.read(folder).states()
    assert said == ["d1: batch 6 was left out, for the loss was nan at step 7; the run went back to step 4."]
