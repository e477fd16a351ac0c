import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.tensors import numpy_pickle

STATISTICS = {
    "num_images": np.int64(50),
    "fid": {"mu": np.arange(3.0), "sigma": np.asfortranarray(np.arange(9, dtype=np.float32).reshape(3, 3))},
    "big": np.arange(4, dtype=">i4"),
    "name": "a text",
    "none": np.zeros((0, 3)),
}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_numbers_and_dicts_of_every_protocol_are_read(protocol):
    found = numpy_pickle.load(pickle.dumps(STATISTICS, protocol), "FILE")
    assert set(found) == set(STATISTICS) and found["name"] == "a text" and found["num_images"] == 50
    for key in ("big", "none"):
        np.testing.assert_array_equal(found[key], STATISTICS[key])
    for key, value in STATISTICS["fid"].items():
        np.testing.assert_array_equal(found["fid"][key], value)
        assert found["fid"][key].dtype == value.dtype


def test_names_of_numpy_1_are_read_too():
    data = pickle.dumps(STATISTICS, 2)
    assert b"numpy._core.multiarray" in data
    found = numpy_pickle.load(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"), "FILE")
    np.testing.assert_array_equal(found["fid"]["sigma"], STATISTICS["fid"]["sigma"])


class Calls:
    """What runs a function in Python's own unpickler."""

    def __reduce__(self):
        return (print, ("called",))


@pytest.mark.parametrize("value", [Calls(), {"a": {"b": Calls()}}, print, {"a": np.random.default_rng}])
def test_nothing_is_called(value, capsys):
    with pytest.raises(UserError, match=r"FILE wants to call `.+`, but only NumPy's arrays and plain values are read"):
        numpy_pickle.load(pickle.dumps(value, 4), "FILE")
    assert capsys.readouterr().out == ""


def test_arrays_of_objects_are_refused():
    with pytest.raises(UserError, match="damaged pickle: an array is not of plain numbers"):
        numpy_pickle.load(pickle.dumps({"a": np.array([{}], object)}, 4), "FILE")


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_pickle_is_a_sentence(place, byte):
    data = bytearray(pickle.dumps(STATISTICS, 4))
    data[place % len(data)] = byte
    try:
        numpy_pickle.load(bytes(data), "FILE")
    except UserError as error:
        assert str(error).startswith("FILE ") and "\n" not in str(error)


@given(st.integers(0, 600))
def test_a_cut_pickle_is_a_sentence(length):
    data = pickle.dumps(STATISTICS, 4)
    with pytest.raises(UserError, match="FILE "):
        numpy_pickle.load(data[: length % len(data)], "FILE")
