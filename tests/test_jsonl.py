import json
import math

import pytest

from rfjax import jsonl
from rfjax.evaluation import validation
from rfjax.jsonl import checked, number, plain, read_lines

DONE = {"step": 4, "examples": 32, "flops": 1e9, "seconds": 0.5}
TRAIN = {"kind": "train", **DONE, "loss": 0.5}
VALIDATION = {"kind": "validation", **DONE, "weights": "ema", "grid": "k/8", "loss": 1.0, "stderr": 0.1}
VALIDATION |= {"levels": [1.0] * 8}


def test_numbers_that_are_not_finite_are_words_and_null_is_what_was_not_measured():
    values = {"a": math.inf, "b": [-math.inf, math.nan, 1.5], "score": None, "caption": "NaN"}
    text = json.dumps(plain(values), allow_nan=False)
    assert json.loads(text) == {"a": "Infinity", "b": ["-Infinity", "NaN", 1.5], "score": None, "caption": "NaN"}
    assert [number(word) for word in ("Infinity", "-Infinity", 3, 0.5)] == [math.inf, -math.inf, 3, 0.5]
    assert math.isnan(number("NaN"))
    for word in ("nan", "1", True, [1], {}):
        with pytest.raises(ValueError, match="no number"):
            number(word)


def test_null_in_files_from_before_is_a_number_that_was_not_finite():
    found = checked(VALIDATION | {"loss": None, "levels": [None] * 8, "score": None})
    assert math.isnan(found["loss"])
    assert all(map(math.isnan, found["levels"]))
    assert found["score"] is None  # not measured


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": 5}, {"step": "4"}, {"step": -1}, {"step": True}, {"step": 4.0}, {"loss": "low"}, {"loss": [1]},
        {"examples": None}, {"weights": 1}, {"levels": [1.0] * 7}, {"levels": 3}, {"grid": None},
        {"along": 3}, {"along": {"loss": 1.0}}, {"triples": "all"},
    ],
)  # fmt: skip
def test_a_line_with_something_else_in_a_field_is_no_line(wrong):
    with pytest.raises(ValueError):
        checked(VALIDATION | wrong)


@pytest.mark.parametrize("missing", ["kind", "step", "loss", "flops", "weights", "levels"])
def test_a_line_without_a_field_is_no_line(missing):
    with pytest.raises(ValueError, match=missing):
        checked({key: value for key, value in VALIDATION.items() if key != missing})


def test_lines_that_can_not_be_read_are_counted(tmp_path):
    path = tmp_path / jsonl.FILE
    texts = [json.dumps(TRAIN), "[1]", "5", json.dumps(TRAIN | {"step": "x"}), "[" * 100_000, '{"kind": "tra']
    path.write_text("\n".join(texts))
    assert read_lines(path) == ([TRAIN], 5)
    assert read_lines(tmp_path / "nowhere") == ([], 0)


def test_the_levels_are_those_of_the_validation_loss():
    assert jsonl.LEVELS == validation.LEVELS
