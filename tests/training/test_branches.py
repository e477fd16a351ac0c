"""A branch of a trunk is, bit for bit, the run that trains all its steps by itself."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.study import records
from rfjax.training import branching, loop, recovery, stop
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.mesh import make_mesh
from rfjax.training.optimizer import make_schedule
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

TRUNK, BRANCH, START = 12, 8, 6  # steps; a quarter of them is the decay


class Silent:
    """A display that shows nothing."""

    def warn(self, sentence):
        pass

    def update(self, step, loss, examples_per_second, flops_per_second):
        pass

    def say(self, activity):
        pass


class Never(stop.Stop):
    """A stop after the n-th question; None: never."""

    def __init__(self, after=None):
        super().__init__()
        self.after, self.asked = after, 0

    def granted(self):
        self.asked += 1
        return self.asked == self.after


def make_run(folder, steps, **more):
    c = tiny()
    c.optimizer.update(decay="wsd", decay_share=0.25)
    # Neither a line of the log nor a checkpoint of its own falls on the step where the branch begins.
    c.training.update(steps=steps, log_every=4, checkpoint_every=5, keep_checkpoints=1, validate_every=7)
    c.data.update(alt_text=0.5, synthetic_share=0.5)
    c.sampling.count, c.model.depth = 0, 1
    return loop.Run(folder.name, configs.parse(c), folder, **more)


def final_state(run):
    saved = Checkpoints(run.folder / "checkpoints", 1, writes=False)
    try:
        state, _ = saved.restore(abstract_state(make_run_spec(run.config), make_mesh(run.config.mesh)))
    finally:
        saved.close()
    return jax.device_get(state)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The trunk, and the run of the branch's length that was trained apart."""
    folder = tmp_path_factory.mktemp("runs")
    trunk, apart = make_run(folder / "trunk", TRUNK, kept=(START,)), make_run(folder / "apart", BRANCH)
    for run in (trunk, apart):
        run.folder.mkdir()
        loop.train(run, Silent(), Never())
    return trunk, apart


@pytest.mark.parametrize("stopped", [None, 1])
def test_a_branch_is_the_run_that_was_trained_apart(trained, tmp_path, stopped):
    trunk, apart = trained
    branch = make_run(tmp_path / "branch", BRANCH, trunk=trunk.folder)
    branch.folder.mkdir()
    assert branch.first == START
    if stopped:
        with pytest.raises(stop.Interrupted):
            loop.train(branch, Silent(), Never(stopped))
    result = loop.train(branch, Silent(), Never())
    for ours, theirs in zip(*(jax.tree.leaves(final_state(run)) for run in (branch, apart)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    ours, theirs = (records.read_run(run.folder) for run in (branch, apart))
    assert [line["step"] for line in ours.train] == [BRANCH]
    for key in ("loss", "grad_norm", "learning_rate", "captions_synthetic", "examples", "flops"):
        assert ours.train[-1][key] == theirs.train[-1][key]
    for weights in ("raw", "ema"):
        assert [(line["step"], line["loss"]) for line in ours.curve(weights)] == [
            (line["step"], line["loss"]) for line in theirs.curve(weights)
        ]
        np.testing.assert_array_equal(ours.examples[weights], theirs.examples[weights])
    own = json.loads((apart.folder / "result.json").read_text())
    assert result["validation"] == own["validation"]
    assert (ours.trunk, ours.first, theirs.trunk, theirs.first) == ("trunk", START, "", 0)
    differing = [k for k, v in dataclasses.asdict(branch.config).items() if v != dataclasses.asdict(apart.config)[k]]
    assert differing == []


def test_a_trunk_keeps_the_checkpoints_of_its_branches_alone(trained):
    steps = sorted(int(path.name) for path in (trained[0].folder / "checkpoints").iterdir())
    assert steps == [START, TRUNK]


def test_a_branch_whose_trunk_lacks_the_checkpoint_says_so(trained, tmp_path):
    branch = make_run(tmp_path / "branch", 5, trunk=trained[0].folder)  # it would begin with step 4
    branch.folder.mkdir()
    with pytest.raises(UserError, match=r"branch begins with step 4 of trunk, but .*/4 can't be read .*train it anew"):
        loop.train(branch, Silent(), Never())


def test_a_branch_leaves_out_what_its_trunk_left_out_before_it(tmp_path):
    run = make_run(tmp_path / "branch", BRANCH, trunk=tmp_path / "trunk")
    before, after = (recovery.Skip(step, step - 1, "nan", 0) for step in (START, START + 1))
    for folder in (run.folder, run.trunk):
        folder.mkdir()
    recovery.write(run.trunk, (before, after))
    assert branching.skips(run) == (before,)
    assert recovery.read(run.folder) == (before,)
    recovery.write(run.folder, (before, recovery.Skip(8, 8, "nan", 7)))
    assert len(branching.skips(run)) == 2


@pytest.mark.parametrize(("form", "factor"), [("sqrt", lambda p: 1 - p**0.5), ("linear", lambda p: 1 - p)])
def test_wsd_is_warm_up_then_constant_then_its_decay(form, factor):
    settings = configs.Optimizer(
        learning_rate=0.02, depth_exponent=-0.5, warmup=4, decay="wsd", decay_share=0.2, decay_form=form
    )
    rates = np.array([make_schedule(settings, 4, 50)(step) for step in range(52)])
    rise = [min(1, (1 + 3 * step / 4) / 4) for step in range(52)]  # from a quarter at step 0 to one at step 4
    expected = [0.01 * rise[step] * factor(min(max(step - 40, 0) / 10, 1)) for step in range(52)]
    np.testing.assert_allclose(rates, expected, rtol=3e-6, atol=1e-9)
    assert settings.decay_start(50) == 40


@pytest.mark.parametrize("step", [0, 3, 17, 39])
def test_before_the_decay_the_budget_changes_no_rate(step):
    settings = configs.Optimizer(warmup=5, decay="wsd")
    rates = {float(make_schedule(settings, 3, steps)(step)) for steps in (50, 77, 1000)}
    assert len(rates) == 1
