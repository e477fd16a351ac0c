"""From runs to points: nothing leaves without a word, seeds are the unit, and odd studies are told, not crashed on."""

import json

import numpy as np
import pytest
from synthetic import STEPS, change_lines, write_study

from rfjax.analysis import seeds
from rfjax.analysis.steps import why_unpaired
from rfjax.study import records
from rfjax.study.reports import scaling, scaling_findings

SEEDS = {"model.depth": (1, 2, 3, 4, 5), "training.seed": (0, 1)}


def find(folder):
    return scaling_findings.analyse(records.read(folder))


def last(value):
    """Gives the validation at the end another loss."""
    return lambda line: line | {"loss": value} if (line["kind"], line["step"]) == ("validation", STEPS) else line


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_rung_whose_loss_is_not_finite_is_named_everywhere(tmp_path, value):
    folder = write_study(tmp_path / "s", noise=0.002)
    change_lines(folder, "d3", last(value))
    study = records.read(folder)
    found = scaling_findings.analyse(study)
    assert [point.name for point in found.trend.rungs] == ["d1", "d2", "d4", "d5", "d6"]
    assert any(s.startswith("d3 is no part of the law: the validation loss of its raw") for s in found.warnings)
    assert not any(s.startswith("Point") for s in found.warnings)
    written = json.loads(json.dumps(scaling_findings.to_json(found), allow_nan=False))
    for fit in written[:4]:
        assert [(p["label"], p["loss"], p["reason"]) for p in fit["left_out"]] == [
            ("d3", None, "the loss is not finite")
        ]
    assert "loss not finite" in "".join(scaling.sections(study, found))
    assert any("d3" in line and "loss not finite" in line for line in scaling.lines(study, found))


def test_a_largest_rung_without_a_loss_is_not_held_out_in_silence(tmp_path):
    folder = write_study(tmp_path / "s", noise=0.002, x="train_flops")
    change_lines(folder, "d6", lambda line: None if line.get("weights") == "raw" else line)  # FLOPs stand elsewhere too
    change_lines(folder, "d5", last(None))
    found = find(folder)
    assert found.trend.judged["power_offset"].held_out.x == (found.trend.rungs[-1].x,)
    assert found.trend.rungs[-1].name == "d6"
    change_lines(folder, "d6", last(None))
    assert any("lacks its largest rung (d5, d6)" in warning for warning in find(folder).warnings)


def test_no_law_at_all_still_says_what_is_no_part_of_it(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2))
    change_lines(folder, "d2", last(None))
    (record,) = [r for r in scaling_findings.to_json(find(folder)) if r["law"] is None]
    assert "too few finished rungs" in record["reason"]
    assert [one["name"] for one in record["no_part_of_it"]] == ["d2"]


def test_a_seed_without_a_loss_is_missed_by_name(tmp_path):
    folder = write_study(tmp_path / "s", axes=SEEDS, noise=0.01)
    change_lines(folder, "d5-seed1", last(None))
    found = find(folder)
    assert [point.seeds for point in found.trend.rungs] == [2, 2, 2, 2, 1]
    assert found.trend.rungs[0].name == "d1"
    assert any(s.startswith("d5 rests on 1 of 2 seeds: d5-seed1 left no loss") for s in found.warnings)
    errors = [point.error / point.loss for point in found.trend.rungs]
    assert errors[4] == pytest.approx(np.sqrt(2) * errors[0])  # the pooled spread serves the rung with one seed


def test_with_one_seed_nobody_is_accused(tmp_path):
    found = find(write_study(tmp_path / "s", noise=0.6))  # noise beyond the steps: some rungs come out higher
    assert max(step.change.value for step in found.trend.steps) > 0
    assert {step.falls for step in found.trend.steps} == {"one seed: not known"}
    text = " ".join(found.warnings)
    assert "One seed a rung" in text
    assert "under-trained" not in text.lower()
    assert "better than" not in text


def test_with_seeds_a_rise_is_told_apart_from_what_is_not_clear(tmp_path):
    folder = write_study(tmp_path / "s", axes=SEEDS, noise=0.01)

    def raised(seed):
        def change(line):
            loss = {"loss": 0.35 + 1e-4 * seed} if "levels" in line else {}
            return line | loss | ({"losses": [v + 0.06 for v in line["losses"]]} if "losses" in line else {})

        return change

    for seed in (0, 1):
        change_lines(folder, f"d4-seed{seed}", raised(seed))
    found = find(folder)
    said = {step.larger: step.falls for step in found.trend.steps}
    assert said == {"d2": "yes", "d3": "yes", "d4": "no, it rises", "d5": "yes"}
    assert any(s.startswith("d4 is worse than d3") for s in found.warnings)


def test_runs_that_agree_to_the_bit_count_once(tmp_path):
    folder = write_study(tmp_path / "s", axes={"model.depth": (1, 2, 3), "sampling.count": (4, 8)})
    found = find(folder)
    assert [point.seeds for point in found.trend.rungs] == [1, 1, 1]
    assert found.trend.ladder.spread is None
    assert sum("end with the same bits" in warning for warning in found.warnings) == 3


def test_settings_of_one_size_are_no_seeds(tmp_path):
    rates = {"model.depth": (1, 2), "optimizer.learning_rate": (0.01, 0.02), "training.seed": (0, 1)}
    found = find(write_study(tmp_path / "s", axes=rates, noise=0.01))
    assert [point.seeds for point in found.trend.rungs] == [2, 2]
    assert found.trend.ladder.spread.models == 4  # every setting tells of the spread
    assert any("takes that of the lowest loss" in warning for warning in found.warnings)


def test_equal_losses_and_unknown_errors_are_told(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2, 3, 4, 5))

    def flat(line):  # axes that change no number but the size
        same = {"loss": 0.3, "levels": [0.3] * 8, "stderr": None} if "levels" in line else {}
        return line | same | ({"losses": [0.3] * 8} if "losses" in line else {})

    for depth in range(1, 6):
        change_lines(folder, f"d{depth}", flat)
    study = records.read(folder)
    found = scaling_findings.analyse(study)
    assert all((step.change.value, step.change.example_error) == (0, None) for step in found.trend.steps)
    assert found.trend.judged["power"].held_out.outcome in ("not tested", "predicted")
    page = "".join([scaling.opening(study, found), *scaling.sections(study, found)])
    assert "0.3000 ± not known" in page
    assert "nan" not in page


def test_triples_that_differ_are_not_compared(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2, 3))
    change_lines(folder, "d2", lambda line: line | {"losses": line["losses"][:40]} if "losses" in line else line)
    change_lines(folder, "d3", lambda line: None if line["kind"] == "examples" else line)
    found = find(folder)
    assert [step.note.split()[-1] for step in found.trend.steps] == ["triples", "recorded"]
    assert all(step.change.example_error is None for step in found.trend.steps)
    assert sum("are not compared triple by triple" in warning for warning in found.warnings) == 2
    assert why_unpaired(found.trend.rungs[0].runs * 2) == ""


def test_a_rate_without_a_loss_is_told_and_a_flat_sweep_is_no_crash(tmp_path):
    axes = {"model.depth": (1, 2), "optimizer.learning_rate": (0.005, 0.01, 0.02, 0.04)}
    folder = write_study(tmp_path / "s", axes=axes)
    change_lines(folder, "d1-lr0.04", last(None))
    change_lines(folder, "d1-lr0.02", last(0.1))  # now the lowest, beside the one that has no loss
    for rate in ("0.005", "0.01", "0.02", "0.04"):
        change_lines(folder, f"d2-lr{rate}", last(0.3))
    found = find(folder)
    assert found.sweeps[0].lost == (0.04,)
    assert any("beyond it, 0.04 left no loss" in warning for warning in found.warnings)
    assert np.isfinite(found.sweeps[1].best)


def test_seeds_of_one_size_make_one_isoflop_curve(tmp_path):
    found = find(write_study(tmp_path / "s", axes=SEEDS, noise=0.002, surface=True))
    assert len(found.surface.fit.points) == 4 * 2 * 5  # the largest rung is held out
    assert all(len(cut.n) == len(set(cut.n)) for cut in found.surface.cuts)


def test_a_training_loss_that_only_scatters_is_no_sign_of_too_few_steps(tmp_path):
    folder, rng = write_study(tmp_path / "s", depths=(1,)), np.random.default_rng(1)
    path = folder / "runs" / "d1" / "metrics.jsonl"
    start = json.loads(path.read_text().splitlines()[0])

    def with_losses(losses):
        lines = [{"kind": "train", "step": i, "examples": 8 * i, "flops": i, "seconds": 1, "loss": float(loss)}
                 for i, loss in enumerate(losses, 1)]  # fmt: skip
        path.write_text("".join(json.dumps(line) + "\n" for line in [start, *lines]))
        return find(folder).falling

    scattered = np.where(np.arange(36) < 27, 1.02, 0.98) + np.tile([-0.2, 0.2, 0.1, -0.1, 0], 8)[:36]
    assert 1 - scattered[-9:].mean() / scattered[-18:-9].mean() > seeds.SETTLED  # by luck
    assert with_losses(scattered) == ""
    assert with_losses(np.linspace(2, 1, 36) + 0.01 * rng.normal(size=36)).startswith("Under-trained")
