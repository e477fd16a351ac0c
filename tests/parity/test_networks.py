"""Whole networks beside their originals: imported weights give the same outputs and gradients."""

import pytest
from parity import torch_side
from parity_cases import CASES, SEEDS, bring, ours


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_outputs_and_gradients(case, seed, tmp_path, compared, recording):
    module, given = torch_side.module(case, seed), case.inputs(seed)
    path = torch_side.save(case, module, tmp_path)
    expected = torch_side.theirs(case, module, given)
    compared(case.name, ours(case, bring(case, path), given), expected)
    if seed == 0 and case.recorded:
        recording(case.name, expected, torch_side.shapes(module))
