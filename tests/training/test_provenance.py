"""A run knows what data it was trained on: it goes on with the same, and with others only if it is told to."""

import dataclasses
import json

import numpy as np
import pytest

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.training import provenance
from rfjax.training.run import Run

WARNED: list[str] = []


@pytest.fixture
def run(tiny_config, tmp_path):
    """A run on 40 latents, whose folder is empty."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        (tmp_path / "data" / split).mkdir(parents=True)
        np.save(tmp_path / "data" / split / "latents.npy", rng.normal(size=(40, 4, 4, 2)).astype(np.float16))
        np.save(tmp_path / "data" / split / "labels.npy", np.arange(40) % 3)
    tiny_config.data.update(name="latents", path=str(tmp_path / "data"), image_size=4, channels=2)
    WARNED.clear()
    return Run("d2", configs.parse(tiny_config), tmp_path / "study" / "runs" / "d2")


def change(run, row=3):
    file = f"{run.config.data.path}/validation/latents.npy"
    values = np.load(file)
    values[row] += 1
    np.save(file, values)


def trained(run, step):
    """As if a checkpoint had been saved."""
    (run.folder / "checkpoints" / str(step)).mkdir(parents=True)


def admit(run, **data):
    data = dataclasses.replace(run.config.data, **data)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, data=data))
    return provenance.open_and_admit(run, WARNED.append)


def test_a_run_that_has_trained_goes_on_with_the_same_data_alone(run):
    assert len(admit(run)["train"]) == 40
    change(run)
    admit(run)  # nothing is trained yet: it begins with what there is
    trained(run, 8)
    first = provenance.read(run.folder)
    admit(run)
    assert WARNED == [] and provenance.read(run.folder) == first

    before = (run.folder / provenance.NAME).read_bytes()
    change(run)
    with pytest.raises(UserError, match=r"run d2 recorded on .*: the content of the validation examples is another"):
        admit(run)
    assert (run.folder / provenance.NAME).read_bytes() == before

    admit(run, changed="allow")
    (said,) = WARNED
    assert "d2: its data changed" in said and "content of the validation examples" in said
    known = provenance.read(run.folder)
    assert len(known.changes) == 1 and known.before[0]["step"] == 8 and known.unknown_until == 0
    assert known.before[0]["data"] == first.data.to_dict()
    admit(run)  # what was allowed is recorded, and is asked no more
    assert len(WARNED) == 1 and provenance.read(run.folder) == known


def test_a_run_older_than_the_record_is_told_once_and_recorded(run):
    trained(run, 4)
    trained(run, 12)
    admit(run)
    admit(run)
    assert len(WARNED) == 1 and "were not recorded when it began" in WARNED[0]
    known = provenance.read(run.folder)
    assert known.data and known.unknown_until == 12 and known.changes == ()


def test_a_row_beyond_the_validation_loss_may_change(run):
    admit(run)
    trained(run, 8)
    change(run, row=20)  # validation.examples = 16
    admit(run)


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "[" * 100_000, '{"data": {}}', '{"data": null, "date": "", "before": 3}', '{"date": 1}']
)
def test_a_damaged_record_is_named(run, damage):
    admit(run)
    trained(run, 8)
    (run.folder / provenance.NAME).write_text(damage)
    with pytest.raises(UserError, match=r"data\.json .+: remove it"):
        admit(run)
    assert "remove it, and the data are recorded anew" in provenance.read_or_say(run.folder).trouble
    (run.folder / provenance.NAME).unlink()
    admit(run)
    assert provenance.read(run.folder).unknown_until == 8


def test_only_runs_that_asked_for_the_same_data_and_have_trained_are_compared(run, tmp_path):
    def other(name, step, **data):
        config = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, **data))
        made = Run(name, config, tmp_path / "study" / "runs" / name)
        provenance.open_and_admit(made, WARNED.append)
        if step:
            trained(made, step)
        return made

    runs = [other("d1", 8), other("d3", 0), other("seven", 8, validation_percent=7.0)]
    assert list(provenance.of_other_runs([*runs, run], run.config)) == ["d1"]


def test_the_identity_in_the_record_is_plain_json(run):
    admit(run)
    plain = json.loads((run.folder / provenance.NAME).read_text())
    assert plain["data"]["validation"]["examples"] == 16 and plain["before"] == []


@pytest.mark.parametrize("other", ["the same", "others", "none"])
def test_all_processes_of_a_job_hear_of_it_if_one_sees_other_data(run, monkeypatch, other):
    def gather(ours):
        theirs = {"the same": ours, "others": ours ^ 1, "none": ours * 0}[other]
        return np.stack([ours, theirs])

    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr("jax.experimental.multihost_utils.process_allgather", gather)
    if other == "the same":
        admit(run)
        return
    with pytest.raises(UserError, match="the processes of this job see different data, or some see none"):
        admit(run)
    assert not run.folder.exists()


def test_a_process_that_sees_no_data_lets_the_others_know_and_says_why(run, monkeypatch):
    gathered = []
    monkeypatch.setattr("jax.process_count", lambda: 2)
    monkeypatch.setattr(
        "jax.experimental.multihost_utils.process_allgather", lambda ours: gathered.append(ours) or np.stack([ours] * 2)
    )
    with pytest.raises(UserError, match="there is no folder"):
        admit(run, path="/nowhere")
    assert len(gathered) == 1 and not gathered[0].any()
