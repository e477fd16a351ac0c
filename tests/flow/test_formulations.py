import pytest

from rfjax import flow
from rfjax.errors import UserError


@pytest.mark.parametrize("name", ["rf/lognorm(0.00,1.00)", "rf/lognorm(0, 1)", " RF/lognorm( 0.0 ,1 ) "])
def test_a_name_is_read_as_a_person_types_it(name):
    assert flow.formulation(name).name == "rf/lognorm(0.00,1.00)"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rf/lognrm(0,1)", "did you mean 'rf/lognorm'"),
        ("rf/lognorm(0)", r"has 1 parameters, but the formulation is written rf/lognorm\(m, s\)"),
        ("rf/lognorm(a,b)", "must be numbers"),
        ("rf/lognorm(0,-1)", "positive standard deviation"),
        ("rf(1)", "written rf"),
    ],
)
def test_a_wrong_name_is_answered_with_the_nearest_right_one(name, words):
    with pytest.raises(UserError, match=words):
        flow.formulation(name)
