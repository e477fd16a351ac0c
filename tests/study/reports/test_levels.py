"""The loss above the known floor, level by level."""

import pytest
from synthetic import ALPHA, SHARES, E, change_lines, write_study

from rfjax.analysis import levels
from rfjax.analysis.levels import describe_floor
from rfjax.study import records
from rfjax.study.reports import scaling, scaling_findings


def test_each_level_and_their_means_have_the_law_of_what_is_above_the_floor(tmp_path):
    study = records.read(write_study(tmp_path / "s", noise=1e-5))
    found = scaling_findings.analyse(study)
    rows = {row.name: row for row in found.trend.levels}
    assert list(rows)[:2] == ["t = 0", "t = 0.125"]
    assert list(rows)[8:] == [levels.AFTER_0, levels.ABOVE, levels.WHOLE]
    assert (rows["t = 0"].floor, rows["t = 0.125"].floor, rows[levels.ABOVE].floor) == (1.0, None, 1 / 8)
    for k, row in enumerate(found.trend.levels[:8]):
        assert row.fit.parameters["E"] == pytest.approx((E - 1 / 8) * 8 * SHARES[k], rel=0.01)
        assert row.fit.parameters["alpha"] == pytest.approx(ALPHA, rel=0.02)
        assert row.fit.held_out.inside == (True,)
    assert rows[levels.AFTER_0].excess[0] == pytest.approx((found.trend.rungs[0].loss - 1 / 8) * 8 * SHARES[1:].mean())
    assert rows[levels.ABOVE].excess[-1] == pytest.approx(found.trend.rungs[-1].loss - 1 / 8)
    assert rows[levels.WHOLE].fit.parameters == found.trend.judged["power_offset"].parameters
    page = scaling.opening(study, found)
    assert f"{1 / 8 / found.trend.rungs[-1].loss:.0%} of d6&#x27;s loss" in page
    assert "no floor of the data" in page
    assert "irreducible" not in page


def test_a_level_at_its_floor_is_left_out_of_its_fit_by_name(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2, 3, 4, 5, 6))
    change_lines(folder, "d2", lambda line: line | {"floors_drawn": [1.3] + [None] * 7} if "levels" in line else line)
    first = scaling_findings.analyse(records.read(folder)).trend.levels[0]
    assert first.excess[1] < 0
    assert first.reason == "d2: the loss is not positive"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: {k: v for k, v in line.items() if "floor" not in k}, "from before known floors were recorded"),
        (lambda line: line | {"floors": [None] * 8, "floors_drawn": [None] * 8}, "has a known floor"),
    ],
)
def test_without_a_known_floor_none_is_shown(tmp_path, change, said):
    folder = write_study(tmp_path / "s", depths=(1, 2, 3))
    for depth in (1, 2, 3):
        change_lines(folder, f"d{depth}", change)
    found = scaling_findings.analyse(records.read(folder))
    assert said in describe_floor(found.trend.rungs)
    assert [row.floor for row in found.trend.levels] == [None] * len(found.trend.levels)
    assert found.trend.levels[0].excess[0] == pytest.approx((found.trend.rungs[0].loss - 1 / 8) * 8 * SHARES[0] + 1)


def test_levels_of_different_grids_are_not_set_side_by_side(tmp_path):
    folder = write_study(tmp_path / "s", depths=(1, 2))
    change_lines(folder, "d2", lambda line: line | {"grid": "(k+0.5)/8"} if "grid" in line else line)
    found = scaling_findings.analyse(records.read(folder))
    assert [rung.name for rung in found.trend.rungs] == ["d1"]
    assert all(len(row.excess) == 1 for row in found.trend.levels)
    assert any("validated on different grids" in warning for warning in found.warnings)
    assert levels.times("(k+0.5)/8", 8)[0] == 1 / 16
