"""The grid of a study: seeds by size, and steps by the depth rule."""

import pytest

from rfjax import config as configs
from rfjax.errors import UserError


def study(seeds=(), exponent=0.0, **more_axes):
    base = configs.default()
    base.study.seeds = seeds
    base.training.update(steps=100, steps_exponent=exponent, seed=7)
    configs.axes(base, {"model.depth": (3, 1, 2), **more_axes})
    return [(name, run.training.seed, run.training.steps) for name, run in configs.runs(configs.parse(base))]


def test_seeds_go_by_size_and_the_last_number_holds_for_the_rest():
    assert study((3, 1)) == [
        ("d3-seed0", 0, 100),
        ("d1-seed0", 0, 100),
        ("d1-seed1", 1, 100),
        ("d1-seed2", 2, 100),
        ("d2-seed0", 0, 100),
    ]


def test_numbers_beyond_the_sizes_are_not_used():
    assert study((2, 1, 1, 5)) == study((2, 1, 1))


def test_without_seeds_the_config_own_seed_is_taken():
    assert study() == [("d3", 7, 100), ("d1", 7, 100), ("d2", 7, 100)]


def test_every_other_axis_has_the_same_seeds():
    made = study((2, 1), **{"optimizer.learning_rate": (1e-3, 2e-3)})
    assert [name for name, _, _ in made if name.startswith("d1")] == [
        f"d1-lr{rate}-seed{seed}" for rate in ("0.001", "0.002") for seed in (0, 1)
    ]


def test_steps_follow_the_depth_and_a_run_holds_its_own_number():
    assert [steps for _, _, steps in study(exponent=1.5)] == [520, 100, 283]  # 100 d^1.5
    base = configs.default()
    base.training.update(steps=100, steps_exponent=1.0)
    base.model.depth = 4
    ((_, run),) = configs.runs(configs.parse(base))
    assert (run.training.steps, run.training.steps_exponent) == (400, 0.0)
    ((_, again),) = configs.runs(run)
    assert again == run


@pytest.mark.parametrize(
    ("seeds", "axes", "words"),
    [
        ((0,), {}, "from 1 to 1000"),
        ((2,), {"training.seed": (0, 1)}, "leave one of them out"),
    ],
)
def test_what_cannot_be_is_refused(seeds, axes, words):
    with pytest.raises(UserError, match=words):
        study(seeds, **axes)


def test_seeds_without_sizes_are_refused():
    base = configs.default()
    base.study.seeds = (2,)
    with pytest.raises(UserError, match=r"model\.depth is not there"):
        configs.parse(base)
