import numpy as np
import pytest

from rfjax.analysis.clusters import mean_of_means


def test_the_mean_is_over_tasks_not_over_pictures():
    found = mean_of_means([[[1, 1, 1, 1], [1, 1, 1, 1]], [[0], [0], [1]]])
    assert found.value == pytest.approx((1 + 1 / 3) / 2)
    assert mean_of_means([[[1.0, 0.0]]]) == (0.5, None, None)  # a single prompt shows no spread
    assert mean_of_means([[[1], [1]], [[0], [0]]]) == (0.5, 0.5, 0.5)
    assert mean_of_means([[[1], [0], [1]]]) == mean_of_means([[[1], [0], [1]]])


def test_the_interval_is_that_of_prompts_not_of_pictures():
    """For prompts of equal size its half-width is 1.96 sqrt(sum over tasks of the prompts' variance / n) / tasks."""
    random = np.random.default_rng(0)
    tasks, variance = [], 0.0
    for task in range(6):
        share = random.beta(0.5 + task / 10, 0.5, size=90)  # prompts that nearly always or nearly never succeed
        rows = (random.random((90, 4)) < share[:, None]).astype(float)
        variance += rows.mean(1).var() / 90
        tasks.append(rows.tolist())
    found = mean_of_means(tasks)
    half = 1.96 * variance**0.5 / 6
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)  # of 4,000 draws: 3 deviations
    values = np.array(tasks).mean((1, 2))
    independent = 1.96 * (values * (1 - values) / 360).sum() ** 0.5 / 6
    assert half > 1.4 * independent


def test_it_holds_as_often_as_it_says():
    """Of 80 simulated benchmarks, about 95 % have the truth within, give or take 2.4 %; here within 4 of these."""
    random, inside, trials = np.random.default_rng(1), 0, 80
    for _ in range(trials):
        share = random.beta(0.5, 0.5, size=(2, 40))  # of mean a half
        rows = (random.random((2, 40, 4)) < share[..., None]).astype(float)
        found = mean_of_means(rows.tolist())
        inside += found.low <= 0.5 <= found.high
    assert inside / trials >= 0.85
