import math

import pytest

from rfjax import lookup
from rfjax.errors import UserError

TABLE = {"root": "math:sqrt", "gone": "math:no_such_thing"}


def test_a_name_is_an_entry_or_an_import_path():
    assert lookup.find("root", TABLE, "k") is math.sqrt
    assert lookup.find("math:cos", TABLE, "k") is math.cos
    assert [lookup.is_path(name) for name in ("a.b:C", "a:b", "a.b", "a:", "1a:b", "a b:c")] == [
        True,
        True,
        *[False] * 4,
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rot", r"config.k = 'rot' is not one of its choices .did you mean 'root'"),
        ("no_such_module:x", r"the module 'no_such_module' can't be imported"),
        ("math:no_such_thing", r"the module 'math' has no 'no_such_thing'"),
    ],
)
def test_what_can_t_be_found_is_one_sentence(name, message):
    with pytest.raises(UserError, match=message):
        lookup.find(name, TABLE, "k")
