"""The measurement `representations`: its lines, and a run that it leaves alone."""

import json
from pathlib import Path
from typing import ClassVar

import jax
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax import data
from rfjax.errors import UserError
from rfjax.study import records, runner
from rfjax.training import loop, stop
from rfjax.training.checkpoints import Checkpoints
from rfjax.training.measurements import make_measurements
from rfjax.training.measurements.representations import Representations
from rfjax.training.spec import make_run_spec
from rfjax.training.state import abstract_state

OWN = "colours:make"


class Silent:
    def warn(self, *said):
        """Says nothing."""

    update = say = warn


class StopAt(stop.Stop):
    """A signal when the run asks for the n-th time."""

    def __init__(self, at):
        super().__init__()
        self.at, self.asked = at, 0

    def granted(self):
        self.asked += 1
        return self.asked == self.at


def config_of(measured=True, **more):
    c = tiny()
    c.sampling.count = 0
    c.training.measurements = ("validation", *(("representations@4",) if measured else ()))
    c.representations.update(encoders=(OWN, "shapes"), levels=(0.0, 0.5), examples=60, batch=16, k=5)
    c.representations.update(probe_examples=100, **more)
    return configs.parse(c)


def train(folder, config, stopped=None):
    return loop.train(loop.Run("run", config, folder), Silent(), stopped or stop.Stop())


def lines(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if line["kind"] == "representations"]


def weights(folder, config):
    saved = Checkpoints(folder / "checkpoints", 2)
    state, _ = saved.restore(abstract_state(make_run_spec(config), loop.meshes.make_mesh(config.mesh)))
    saved.close()
    return jax.tree.leaves(jax.device_get(state))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, config_of())


def test_a_line_for_each_level_along_the_run_and_at_its_end(whole):
    folder, _ = whole
    found = lines(folder)
    assert [(line["step"], line["t"], line["setting"]) for line in found] == [
        (step, t, f"t={t:g}") for step in (0, 4, 8) for t in (0.0, 0.5)
    ]
    for line in found:
        assert (line["weights"], line["count"], line["k"], line["variant"]) == ("ema", 60, 5, "reference")
        assert (line["probe"], line["trained_on"], line["classes"]) == ("logistic", 100, 32)
        assert [len(line["cknna"][name]) for name in (OWN, "shapes")] == [2, 2] == [len(line["accuracy"])] * 2
        assert all(0 <= value <= 1 for value in line["accuracy"])
    first, last = found[0]["cknna"][OWN], found[-1]["cknna"][OWN]
    assert 0.1 < first[0] <= 1 and first[0] > last[0]  # at t = 0 embedded pixels know colours, half in noise less
    assert records.read_run(folder).representations[0]["cknna"] == found[0]["cknna"]


def test_it_changes_no_bit_of_the_training(whole, tmp_path):
    train(tmp_path, config_of(measured=False))
    for ours, plain in zip(weights(whole[0], config_of()), weights(tmp_path, config_of()), strict=True):
        np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize("asked", [3, 20, 60])
def test_a_stopped_run_measures_the_same(whole, tmp_path, asked):
    with pytest.raises(stop.Interrupted):
        train(tmp_path, config_of(), StopAt(asked))
    train(tmp_path, config_of())
    found = [records.read_run(folder).representations for folder in (whole[0], tmp_path)]
    plain = [[{**line, "seconds": 0} for line in of] for of in found]
    assert plain[0] == plain[1]
    for ours, theirs in zip(weights(whole[0], config_of()), weights(tmp_path, config_of()), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_encoders_of_the_alignment_are_taken_where_no_others_are_named():
    c = tiny()
    c.alignment.update(encoders=("shapes",))
    c.representations.update(examples=60, batch=16)
    Representations().check(configs.parse(c), sources())


def sources(**sections):
    c = tiny()
    c.data.update(sections)
    config = configs.parse(c)
    return {split: data.open_source(config.data, split) for split in ("train", "validation")}


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"examples": 5}, "CKNNA with k = 5 needs at least 6 examples, and got 5"),
        ({"encoders": ("shape",)}, "representations.encoders = 'shape' is not one of its choices"),
        ({"encoders": (), "probe": "none"}, "there is nothing to measure"),
        ({"batch": 12}, "config.representations.batch = 12 can't be divided over 8 devices"),
    ],
)
def test_what_can_t_be_measured_is_refused_before_training(section, words):
    run = loop.Run("run", config_of(**section), Path("none"))
    with pytest.raises(UserError) as error:
        runner.check_data(run.config, [])
    assert words in str(error.value)


def test_small_splits_and_missing_labels_are_refused():
    small = sources(name="digits", image_size=8, channels=1)
    with pytest.raises(UserError, match=r"the validation split has 180 .* config.representations.examples = 1,024"):
        Representations().check(config_of(examples=1024, encoders=()), small)
    with pytest.raises(UserError, match="'colours' reads 'image', and this data set has label"):
        Representations().check(config_of(), _without(sources(), "image"))
    with pytest.raises(UserError, match="needs the field 'label', and this data set has image"):
        Representations().check(config_of(), _without(sources(), "label"))


def _without(opened, name):
    class Fewer:
        fields: ClassVar[dict] = {key: field for key, field in opened["train"].fields.items() if key != name}

        def __len__(self):
            return 1000

        def __getitem__(self, index):
            return opened["train"][index]

    return {split: Fewer() for split in opened}


def test_it_is_named_by_the_config():
    (_, scheduled) = make_measurements(config_of())
    assert isinstance(scheduled.measurement, Representations) and scheduled.every == 4
