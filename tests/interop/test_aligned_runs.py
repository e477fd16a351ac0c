"""A run that was aligned here goes to REPA's layout with its projector, and comes back."""

import jax
import numpy as np
import pytest
from tiny import begun_run, tiny

from rfjax import config as configs
from rfjax import interop
from rfjax.errors import UserError
from rfjax.training.weights import read_weights


def aligned(**alignment):
    c = tiny()
    c.data.update(name="shapes", image_size=16)
    c.text.update(encoder="labels", pooled_width=32)
    c.model.update(backbone="sit", time="t", width=128, heads=2, stored_positions=4)
    c.flow.formulation = "repa/linear"
    c.alignment.update(encoders=("shapes",), projector_width=8, **alignment)
    return configs.parse(c)


def test_an_aligned_run_is_exported_with_its_projector(tmp_path):
    begun_run(tmp_path / "run", aligned())
    ours = read_weights(tmp_path / "run", configs.Mesh())
    path = interop.export(ours, tmp_path / "repa.pt", "repa")
    back = interop.import_checkpoint(path, tmp_path / "back", "repa")
    assert back.config.model.projectors == (17,) and back.config.model.projector_width == 8
    assert ours.params.keys() == back.params.keys() and "projector_0" in ours.params
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(ours.params), jax.device_get(back.params))


def test_a_projector_that_repa_does_not_have_is_refused(tmp_path):
    begun_run(tmp_path / "run", aligned(projector="conv"))
    ours = read_weights(tmp_path / "run", configs.Mesh())
    with pytest.raises(UserError, match="has no place for the head 'projector_0'"):
        interop.export(ours, tmp_path / "repa.pt", "repa")
