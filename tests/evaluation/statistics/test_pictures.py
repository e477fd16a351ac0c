import numpy as np
import pytest

from rfjax.errors import UserError
from rfjax.evaluation.statistics.pictures import psnr, ssim


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_psnr_of_a_constant_error():
    original = np.full((2, 4, 5, 3), 100, np.uint8)
    image = original.copy()
    image[0] += 10
    assert psnr(image, original) == pytest.approx([20 * np.log10(25.5), np.inf])


def test_ssim_is_the_sum_over_windows():
    """Wang et al. 2004, Eqs. 6 and 13 to 16, at each place with a whole window."""
    a, b = noise(1, 13, 14, 2), noise(1, 13, 14, 2, seed=1)
    places = np.arange(-5, 6)
    window = np.exp(-(places[:, None] ** 2 + places**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for channel in range(2):
        for i in range(3):
            for j in range(4):
                x, y = (z[0, i : i + 11, j : j + 11, channel].astype(float) for z in (a, b))
                mean_x, mean_y = (window * x).sum(), (window * y).sum()
                var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
                cov = (window * (x - mean_x) * (y - mean_y)).sum()
                c1, c2 = 2.55**2, 7.65**2
                above = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
                found.append(above / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)))
    assert ssim(a, b) == pytest.approx([np.mean(found)], rel=1e-10)


def test_equal_pictures_have_one_and_the_order_of_the_two_does_not_matter():
    a, b = noise(3, 16, 12, 1), noise(3, 16, 12, 1, seed=1)
    assert ssim(a, a) == pytest.approx(np.ones(3), abs=1e-12)
    assert ssim(a, b) == pytest.approx(ssim(b, a), rel=1e-12)
    assert psnr(a, b) == pytest.approx(psnr(b, a), rel=1e-12)
    assert ssim(a, np.clip(a.astype(int) + 3, 0, 255).astype(np.uint8)).min() > 0.99
    assert np.abs(ssim(a, b)).max() < 0.3


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match=r"\(1, 12, 12, 3\) can't be compared with originals of \(1, 12, 11, 3\)"):
        psnr(noise(1, 12, 12, 3), noise(1, 12, 11, 3))
    with pytest.raises(UserError, match="11 pixels a side or more, not 10 x 12"):
        ssim(noise(1, 10, 12, 3), noise(1, 10, 12, 3))
