"""Ladders fitted all at once are what a study's own fit gives of each."""

import numpy as np
import pytest

from rfjax.analysis.candidates import Candidate, Ground
from rfjax.analysis.design import intervals
from rfjax.analysis.ladder import Ladder, Rung
from rfjax.analysis.laws import fit_law
from rfjax.analysis.seeds import pooled_spread

X, TARGET = np.array([1.4e4, 9.3e4, 2.9e5, 6.6e5, 1.26e6, 2.1e6]), np.array([4e6, 3e7])
CASES = {"offset": (0.4, 0.3), "no offset": (0.0, 0.25), "flat": (0.35, 1.5), "steep": (0.2, 2.8)}


def fitted_apart(law, x, losses):
    """What a report does with one ladder."""
    spread = pooled_spread(losses, x)
    rungs = [
        Rung(f"d{i}", size, tuple(ys), None, (), None if spread is None else spread.stderr(np.mean(ys), len(ys), size))
        for i, (size, ys) in enumerate(zip(x, losses, strict=True))
    ]
    fit = fit_law(law=law, objective="log_squares", **Ladder(tuple(rungs), (), spread, ()).fitted)
    found = fit.predict(TARGET)
    if spread is None:
        return found
    return fit.predict(TARGET, y_stderr=[spread.stderr(v, 1, x) for v, x in zip(found.value, TARGET, strict=True)])


def place(law: str) -> Ground:
    return Ground((), law, "log_squares", 0.0, 1, (1,), (1, 2, 3, 4, 5, 6))


@pytest.mark.parametrize("law", ["power", "power_offset"])
@pytest.mark.parametrize("seeds", [(1,) * 6, (3,) * 6, (4, 3, 2, 1, 1, 1)])
def test_each_ladder_has_the_interval_of_its_own_fit(law, seeds):
    rng = np.random.default_rng(0)
    for name, (offset, alpha) in CASES.items():
        truth = offset + 0.15 * (X / 4e5) ** -alpha
        noise = 0.003 * rng.normal(size=(6, 6, max(seeds)))
        noise[3:] *= np.geomspace(5, 0.5, 6)[:, None]  # so that the spread of some goes with size
        losses = truth[:, None] * np.exp(noise)
        many = intervals(place(law), Candidate((1, 2, 3, 4, 5, 6), seeds, 1, tuple(X), 0.0), losses, TARGET)
        for i in range(len(losses)):
            apart = fitted_apart(law, X, [row[:count].tolist() for row, count in zip(losses[i], seeds, strict=True)])
            for ours, theirs in zip(many, apart, strict=True):
                # both stop where the squares fall no further: 1e-6 of the loss is far below the noise of 3e-3
                np.testing.assert_allclose(np.log(ours[i]), np.log(theirs), atol=2e-6, rtol=1e-4, err_msg=name)
