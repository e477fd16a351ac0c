"""A run goes on with the encoders that it began with."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax.errors import UserError
from rfjax.tensors.safetensors import write_safetensors
from rfjax.training.encodings import NAME, admit, fingerprints
from rfjax.training.run import Run


@dataclass(frozen=True)
class Encoder:
    """What `admit` looks at."""

    path: Path | None
    name: str = "cond"

    @property
    def sources(self):
        return {"tower": self.path} if self.path else {}


def weights(path, value):
    tensors = {"x": np.full((4, 4), value, np.float32)}
    write_safetensors(path, tensors.items(), tensors)
    return path


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "d2"
    folder.mkdir(parents=True)
    return Run("d2", configs.parse(tiny()), folder)


def test_the_first_start_records_and_the_next_compares(run, tmp_path):
    one = Encoder(weights(tmp_path / "one.safetensors", 1))
    moved = Encoder(weights(tmp_path / "moved.safetensors", 1))
    other = Encoder(weights(tmp_path / "other.safetensors", 2))
    admit(run, (one,), changed=False)
    record = (run.folder / NAME).read_bytes()
    assert json.loads(record) == {"cond": fingerprints(one)}
    admit(run, (moved,), changed=False)
    with pytest.raises(UserError, match=r"encoder of 'cond' are not those that run d2 began with"):
        admit(run, (other,), changed=False)
    admit(run, (other,), changed=True)
    assert (run.folder / NAME).read_bytes() == record


def test_encoders_without_files_leave_no_record(run):
    admit(run, (Encoder(None),), changed=False)
    assert not (run.folder / NAME).exists()
    assert list(fingerprints(Encoder(None))) == ["Encoder"]
