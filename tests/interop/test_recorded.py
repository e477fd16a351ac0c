"""Beside torch and diffusers without either: what they gave in tests/parity (`make parity RECORD=1`) was recorded."""

import parity_cases
import pytest
from parity_cases import CASES, LIGHT, PARTS, bring, ours, weights
from parity_results import RECORDED, compare_summaries, recorded, summarise

LIMIT = 2_000_000  # bytes of all recordings


@pytest.mark.parametrize("case", [CASES[name] for name in LIGHT], ids=str)
def test_networks(case, tmp_path):
    shapes, expected = recorded(case.name)
    made = bring(case, parity_cases.write(case, weights(shapes, 0), tmp_path))
    difference = compare_summaries(summarise(ours(case, made, case.inputs(0))), expected)
    assert difference.within, difference


@pytest.mark.parametrize("part", PARTS.values(), ids=str)
def test_parts(part):
    shapes, expected = recorded(part.name)
    assert shapes == dict(part.shapes)
    difference = compare_summaries(summarise(part.ours(weights(shapes, 0), part.inputs(0))), expected)
    assert difference.within, difference


def test_recordings_are_those_of_the_cases_and_small():
    files = {path.stem: path.stat().st_size for path in RECORDED.iterdir()}
    assert set(files) == {*LIGHT, *PARTS}
    assert sum(files.values()) < LIMIT
