"""A report compares runs whose data were the same, and says which others it leaves out and why."""

import dataclasses
import json

import pytest
from synthetic import write_study

from rfjax.data.identity import Identity, Split
from rfjax.study import comparable, records, reports
from rfjax.training import provenance

DATA = Identity(Split(100, "a" * 32, 64, "b" * 32), Split(16, "c" * 32, 16, "d" * 32))
FEWER = dataclasses.replace(DATA, validation=Split(15, "e" * 32, 15, "f" * 32))


def give(folder, **data):
    """Writes the runs' records."""
    for name, found in data.items():
        provenance.record(folder / "runs" / name, found, provenance.Known(), [], None)


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, depths=(1, 2, 3, 4))


def names(found):
    return [rung.name for rung in found.runs]


def test_runs_on_the_same_data_are_compared_and_older_ones_are_not_known(study):
    found = comparable.comparable(records.read(study))
    assert names(found) == ["d1", "d2", "d3", "d4"] and found.notes == ()
    assert comparable.described(found.runs) == [
        "Data of d1, d2, d3, d4: not known: the runs are older than the record of it."
    ]
    give(study, d1=DATA, d2=DATA)
    found = comparable.comparable(records.read(study))
    assert names(found) == ["d1", "d2", "d3", "d4"]
    assert found.notes == ("Whether the data of d3, d4 were those of the other runs is not known.",)
    assert "100 training examples" in comparable.described(found.runs)[0]


def test_a_run_on_other_data_is_left_out_by_name_and_no_longer_called_missing(study):
    give(study, d1=DATA, d2=DATA, d3=FEWER, d4=DATA)
    found = comparable.comparable(records.read(study))
    assert names(found) == ["d1", "d2", "d4"] and found.apart == ("d3",)
    (said,) = found.notes
    assert said.startswith(
        "The data of d3 are not those of d1, d2, d4: the validation split has 15 examples, and had 16"
    )
    assert found.states() == [said]

    page = reports.write_page(reports.build_report(study)).read_text()
    assert "The data of d3 are not those of d1, d2, d4" in page and "d3 → d4" not in page and "d2 → d4" in page
    page = reports.write_page(reports.build_report(study, allow=True)).read_text()
    assert "they are compared all the same, for config.data.changed" in page and "d3 → d4" in page


def test_a_study_that_allows_it_compares_and_says_so(study):
    path = study / "study.json"
    known = json.loads(path.read_text())
    known["config"]["data"]["changed"] = "allow"
    path.write_text(json.dumps(known))
    give(study, d1=DATA, d3=DATA, d4=DATA)
    provenance.record(study / "runs" / "d2", FEWER, provenance.Known(DATA, "2025-01-01"), ["one is gone"], 8)
    found = comparable.comparable(records.read(study))
    assert names(found) == ["d1", "d2", "d3", "d4"]
    assert [note.split(":")[0] for note in found.notes] == ["d2", "The data of d2 are not those of d1, d3, d4"]


def test_the_larger_group_stays_and_of_equal_ones_the_first(study):
    give(study, d1=DATA, d2=FEWER, d3=FEWER, d4=FEWER)
    assert names(comparable.comparable(records.read(study))) == ["d2", "d3", "d4"]
    give(study, d4=DATA)
    assert names(comparable.comparable(records.read(study))) == ["d1", "d4"]


def test_runs_that_ask_for_different_data_are_no_business_of_this(tmp_path):
    study = write_study(tmp_path, axes={"data.image_size": (16, 32)})
    give(study, **{"image_size=16": DATA, "image_size=32": FEWER})
    found = comparable.comparable(records.read(study))
    assert len(found.runs) == 2 and found.notes == ()


def test_a_damaged_record_is_said_and_the_report_is_made(study):
    (study / "runs" / "d1" / "data.json").write_text("{")
    assert "remove it, and the data are recorded anew" in reports.write_page(reports.build_report(study)).read_text()
