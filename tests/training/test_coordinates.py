"""The coordinate check, made small: `benchmarks/coordinates.py` on a DiT of a few widths and depths."""

import numpy as np
import pytest

from benchmarks.coordinates import check, slope, slopes

HIDDEN = ("modulation", "q, k, v", "MLP's hidden", "final modulation", "prediction")


def test_slopes_of_known_powers():
    assert slope((2, 4, 8), (1.0, 2.0, 4.0)) == pytest.approx(1.0)
    assert slope((2, 4, 8), (3.0, 3.0, 3.0)) == pytest.approx(0.0)
    assert np.isnan(slope((2, 4), (0.0, 1.0)))


@pytest.mark.job
def test_updates_keep_their_size_over_width_with_mup_and_not_with_standard():
    found = check("dit", "width", (64, 256), ("standard", "mup"))
    flat, steep = (slopes(found, name, "changes") for name in ("mup", "standard"))
    assert max(abs(flat[layer]) for layer in HIDDEN) < 0.25
    assert steep["residual stream"] > 0.5  # one layer or another shrinks: the stream that they all write to grows


@pytest.mark.job
def test_updates_keep_their_size_over_depth_with_completep_alone():
    found = check("dit", "depth", (2, 8, 16), ("standard", "mup", "completep"))
    streams = {name: slopes(found, name, "changes")["residual stream"] for name in ("standard", "mup", "completep")}
    assert abs(streams["completep"]) < 0.25
    assert min(streams["standard"], streams["mup"]) > 0.4
