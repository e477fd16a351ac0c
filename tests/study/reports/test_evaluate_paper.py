"""A paper's number stands beside ours with what differs between the two protocols."""

import pytest

from rfjax.study.reports import evaluate_paper


def record(**changes):
    """SiT-XL/2 measured exactly as REPA's Table 8 was, but for these changes."""
    values = {"count": 50_000, "guidance": 1.0, "steps": 250, "step": 400_000, "embedder": "inception@adm", "depth": 28}
    values |= {"reference": "data/VIRTUAL_imagenet256_labeled.npz", "aligned": False, "width": 1152} | changes
    about = {name: values[name] for name in ("guidance", "steps", "step", "aligned")} | {"sampler": "euler_maruyama"}
    return {
        "name": "a set",
        "count": values["count"],
        "about": about | {"formulation": changes.get("formulation", "rf")},
        "model": {"backbone": "sit", "depth": values["depth"], "width": values["width"]},
        "scores": {"fid": 17.3},
        "quantities": [{"key": "fid", "label": "FID", "better": "lower"}],
        "protocols": {"fid": {"embedder": values["embedder"], "reference": values["reference"]}},
    }


def test_the_same_protocol_differs_in_nothing():
    ((name, label, value, published, differs),) = evaluate_paper.rows([record()])
    assert (name, label, value, published.value, differs) == ("a set", "FID", 17.3, 17.2, [])
    ((*_, published, differs),) = evaluate_paper.rows([record(aligned=True)])
    assert (published.value, differs) == (7.9, [])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 10_000}, "10,000 pictures, not 50,000"),
        ({"guidance": 1.5}, "guidance 1.5, not 1"),
        ({"steps": 50}, "sampler euler_maruyama, 50 steps, not euler_maruyama, 250 steps"),
        ({"embedder": "inception@pytorch-fid"}, "network inception@pytorch-fid, not inception@adm"),
        ({"reference": "imagenet, train, 10,000 pictures"}, "reference imagenet, train, 10,000 pictures, not VIRTUAL"),
    ],
)
def test_what_differs_is_said(changes, words):
    ((*_, differs),) = evaluate_paper.rows([record(**changes)])
    assert len(differs) == 1
    assert words in differs[0]


def test_other_training_has_all_rows_and_other_models_none():
    found = list(evaluate_paper.rows([record(step=100_000)]))
    assert [one.value for *_, one, _ in found] == [17.2, 8.3]
    assert all("100000 training steps" in differs[-1] for *_, differs in found)
    assert list(evaluate_paper.rows([record(depth=6)])) == []
