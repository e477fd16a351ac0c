"""`study.compare`: which axes tell designs apart, and which losses are of one quantity."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny

from rfjax import config as configs
from rfjax import flow
from rfjax.config.compared import ALIKE, check_compare
from rfjax.errors import UserError
from rfjax.evaluation.validation import LEVELS_OF_T
from rfjax.flow.formulations import KINDS


def study(axes, **section):
    c = tiny()
    c.study.update(**section)
    configs.axes(c, {"model.depth": (1, 2)} | axes)
    return c


TWO = {"flow.formulation": ("rf", "rf/cosmap")}


@pytest.mark.parametrize(
    ("axes", "section", "message"),
    [
        (TWO, {"compare": "flow.formulations"}, r"no axis of the study \(did you mean 'flow.formulation'\?\)"),
        ({}, {"compare": "model.backbone"}, "no axis of the study: add config.study.axes.model.backbone"),
        (TWO, {"compare": "model.depth"}, "the ladder of a design is made of model.depth"),
        ({"flow.formulation": ("rf",)}, {"compare": "flow.formulation"}, "has one value"),
        (TWO, {"compare": "flow.formulation", "report": "formulations"}, "config.study.report = 'scaling'"),
        ({"flow.formulation": ("rf", "eps/linear")}, {"compare": "flow.formulation"}, "rf and eps/linear are of diff"),
        (TWO, {"compare_target": "parameters=1e8"}, "needs config.study.compare"),
        (TWO, {"compare": "flow.formulation", "compare_target": "parameter=1e8"}, "did you mean 'parameters'"),
        (TWO, {"compare": "flow.formulation", "compare_target": "parameters=-1"}, "write it like parameters=1e8"),
        (
            TWO,
            {"compare": "flow.formulation", "compare_target": "parameters=1e8", "x": "train_flops"},
            "write train_flops=1e18",
        ),
    ],
)
def test_what_can_t_be_compared_is_refused_before_training(axes, section, message):
    with pytest.raises(UserError, match=message):
        configs.parse(study(axes, **section))


def test_designs_without_sizes_are_refused():
    c = tiny()
    c.study.compare = "flow.formulation"
    configs.axes(c, TWO)
    with pytest.raises(UserError, match=r"needs a ladder of sizes: add config.study.axes.model.depth"):
        configs.parse(c)


def test_runs_belong_to_designs_by_the_values_of_their_keys():
    c = study({**TWO, "optimizer.learning_rate": (0.01, 0.02)}, compare="flow.formulation, optimizer.learning_rate")
    config = configs.parse(c)
    check_compare(config)
    keys = configs.compared_keys(config.study.compare)
    found = [configs.design_of(run.to_dict(), keys) for _, run in configs.runs(config)]
    assert set(found) == {"rf, 0.01", "rf, 0.02", "rf/cosmap, 0.01", "rf/cosmap, 0.02"} and len(found) == 8


def test_formulations_with_one_validation_loss_have_the_same_triples():
    """The mix that is shown and what is predicted, at each level of t: equal where `validated` says so, else not."""
    names = {kind: "edm(-1.20,1.20)" if kind == "edm" else kind for kind in KINDS}
    names |= {"rf/lognorm": "rf/lognorm(0.50,0.60)", "rf/mode": "rf/mode(1.29)"}
    t, found = jnp.asarray(LEVELS_OF_T["(k+0.5)/8"]), {}
    for kind, name in names.items():
        at = flow.formulation(name).coefficients(t)
        found[kind] = (configs.validated(name), np.array([at.a, at.b, at.p, at.q]))
    for kind, (said, mix) in found.items():
        for other, (same, values) in found.items():
            assert (said == same) == bool(np.allclose(mix, values, atol=1e-4)), (kind, other)
    assert {kind for kinds in ALIKE.values() for kind in kinds} <= set(KINDS)
    assert configs.validated("edm(-1.20,1.20)") != configs.validated("edm(0.60,1.20)")
