"""Spot checks of the published numbers, typed from the paper a second time."""

from rfjax.study.reports import paper


def test_table_1():
    assert len(paper.TABLE_1) == 16
    assert min(paper.TABLE_1, key=lambda v: paper.TABLE_1[v].all) == "rf/lognorm(0.00,1.00)"
    assert paper.TABLE_1["rf/lognorm(0.50,0.60)"]._asdict() == {"all": 2.71, "five": 8.50, "fifty": 1.00}
    assert paper.TABLE_1["edm(-1.20,1.20)"]._asdict() == {"all": 15.58, "five": 20.25, "fifty": 15.00}
    for row in paper.TABLE_1.values():  # averages over 24, 4 and 4 settings
        assert abs(row.all * paper.SETTINGS - round(row.all * paper.SETTINGS)) < 0.13
        assert (row.five * 4) % 1 == (row.fifty * 4) % 1 == 0
    assert len(paper.SAMPLERS) * 2 * 2 == paper.SETTINGS


def test_table_2():
    assert len(paper.TABLE_2) == 10
    assert paper.TABLE_2["rf"]._asdict() == {
        "imagenet_clip": 0.247, "imagenet_fid": 49.70, "cc12m_clip": 0.217, "cc12m_fid": 94.90,
    }  # fmt: skip
    best = {  # bold in the paper
        "imagenet_clip": (max, "rf/lognorm(0.50,0.60)"),
        "imagenet_fid": (min, "rf/mode(1.75)"),
        "cc12m_clip": (max, "rf/lognorm(1.00,0.60)"),
        "cc12m_fid": (min, "rf/lognorm(-0.50,1.00)"),
    }
    for field, (pick, variant) in best.items():
        assert pick(paper.TABLE_2, key=lambda v: getattr(paper.TABLE_2[v], field)) == variant


def test_table_6():
    assert list(paper.TABLE_6) == [15, 30, 38]
    assert paper.TABLE_6[38]._asdict() == {"five": 2.71, "ten": 0.14, "twenty": 0.08, "path_length": 185.96}
