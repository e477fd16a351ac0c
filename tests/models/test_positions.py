import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import SMALL, arrays, gradients, jitted, random_parameters

from rfjax.errors import UserError
from rfjax.models import Positions, build
from rfjax.models.positions import sincos_2d


def test_position_embeddings_hold_the_column_first():
    table = sincos_2d(3, 5, 16)
    omega = 10_000 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(table[7, :4], np.sin(2 * omega), atol=1e-7)  # row 1, column 2
    np.testing.assert_allclose(table[7, 4:8], np.cos(2 * omega), atol=1e-7)
    np.testing.assert_allclose(table[7, 8:12], np.sin(1 * omega), atol=1e-7)
    with pytest.raises(ValueError, match="divisible by 4"):
        sincos_2d(2, 2, 6)


def test_the_table_of_xl_has_its_known_values():
    """Facts of REPA, 4.1: SiT-XL/2 at 256 pixels."""
    table = sincos_2d(16, 16, 1152)
    assert table.sum(dtype=float) == pytest.approx(134598.947804, rel=1e-8)
    np.testing.assert_allclose(table[1, :3], [0.84147098, 0.82405135, 0.80640167], rtol=2e-7)
    np.testing.assert_array_equal(table[1, 576:579], 0)
    np.testing.assert_allclose(table[16, 576:579], table[1, :3])
    np.testing.assert_array_equal(table[16, :3], 0)


@pytest.mark.parametrize(
    ("pixels", "largest", "first", "last", "step"),
    [(256, 256, 0, 15, 1), (512, 512, 0, 15.5, 0.5), (1024, 1536, -4, 19.75, 0.25), (1024, 1024, 0, 15.75, 0.25)],
)
def test_the_axis_is_the_paper_s(pixels, largest, first, last, step):
    """Facts of SD3, 3.4: ((p - (h_max - s) / 2) 256 / S) with s = S / 16, h_max = H_max / 16."""
    axis = Positions(size=pixels // 16, largest=largest // 16, base=16).axis(largest // 16)
    np.testing.assert_array_equal(axis, np.arange(largest // 16) * step + first)
    assert axis[-1] == last
    square = Positions(size=pixels // 16, largest=largest // 16, base=16).axis(pixels // 16)
    np.testing.assert_array_equal(square, np.arange(pixels // 16) * step)  # whatever the largest size is


@given(
    size=st.integers(1, 24),
    more=st.integers(0, 24),
    base=st.integers(1, 32),
    rows=st.integers(1, 48),
    columns=st.integers(1, 48),
)
def test_an_image_s_positions_are_the_middle_of_the_largest_grid(size, more, base, rows, columns):
    largest = size + more
    positions = Positions(size, largest, base)
    rows, columns = min(rows, largest), min(columns, largest)
    whole = sincos_2d(largest, largest, 8, positions).reshape(largest, largest, 8)
    top, left = (largest - rows) // 2, (largest - columns) // 2
    middle = whole[top : top + rows, left : left + columns].reshape(-1, 8)
    np.testing.assert_array_equal(sincos_2d(rows, columns, 8, positions), middle)


def test_plain_positions_are_counted_from_zero():
    np.testing.assert_array_equal(Positions().axis(5), np.arange(5))


def test_an_image_beyond_the_largest_is_refused():
    with pytest.raises(UserError, match="9 patches a side is too large: there are positions for 8"):
        Positions(size=4, largest=8).axis(9)


def test_a_stored_table_is_cropped_in_the_middle_and_not_trained():
    model = build("mmdit", 2, 12, positions=Positions(stored=12))
    params, inputs = random_parameters(model, SMALL), arrays(SMALL)
    formula = build("mmdit", 2, 12, positions=Positions(size=8, largest=12, base=8))
    plain = {name: value for name, value in params.items() if name != "positions"}
    table = sincos_2d(12, 12, 24, formula.positions)
    given = {**plain, "positions": jnp.asarray(table)}
    np.testing.assert_array_equal(jitted(model)(given, *inputs), jitted(formula)(plain, *inputs))
    _, gradient = gradients(model)(given, *inputs)
    np.testing.assert_array_equal(gradient["positions"], 0)
    assert float(jnp.abs(gradient["patch_embed"]["kernel"]).max()) > 0


@pytest.mark.parametrize("backbone", ["mmdit", "dit", "crossdit", "uvit"])
def test_every_backbone_takes_any_aspect_ratio(backbone):
    model = build(backbone, 2, 12, positions=Positions(size=8, largest=12, base=16))
    params, (z, t, cond) = random_parameters(model, SMALL), arrays(SMALL)
    wide = jnp.concatenate([z, z[:, :, :8]], axis=2)[:, 2:-2]
    assert jitted(model)(params, wide, t, cond).shape == (2, 12, 24, 3)
    with pytest.raises(UserError, match="too large"):
        jitted(model)(params, jnp.concatenate([wide, wide], axis=2), t, cond)
