import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rfjax.errors import UserError
from rfjax.evaluation.statistics import squares
from rfjax.evaluation.statistics.neighbours import balls, cover, precision_recall, subsets
from rfjax.evaluation.statistics.prdc import density_coverage
from rfjax.evaluation.statistics.squares import prepare

seeds = st.integers(0, 2**32 - 1)


def distances(a, b):
    return ((a[:, None] - b[None]) ** 2).sum(axis=-1)


def share(points, centres, k):
    """The share of points in a ball of a centre that reaches to its k-th other centre."""
    radii = np.sort(distances(centres, centres), axis=1)[:, k]
    return (distances(points, centres) <= radii).any(axis=1).mean()


def pair(seed, m, n, size=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, size)), rng.normal(0.5, 1, (n, size))


@given(seeds, st.integers(5, 40), st.integers(5, 40), st.integers(1, 3))
def test_it_is_the_definition(seed, m, n, k):
    reference, samples = pair(seed, m, n)
    precision, recall = precision_recall(reference, samples, k)
    assert precision.value == pytest.approx(share(samples, reference, k), abs=1e-12)
    assert recall.value == pytest.approx(share(reference, samples, k), abs=1e-12)


@given(seeds, st.integers(6, 17), st.integers(6, 13), st.integers(2, 3))
def test_the_error_is_that_of_random_subsets_of_samples(seed, m, n, k):
    """With at most 4 k + 5 samples all distances of one are kept, so that balls among subsets are exact."""
    reference, samples = pair(seed, m, n)
    kept = subsets(n, k)
    assert (kept.sum(axis=1) == max(n - n // 3, k + 1)).all() and len(kept) == 100
    points, centres = (prepare(x, np.zeros(3), "exact") for x in (reference, samples))
    found = cover(points, balls(centres, k))
    shares = [share(reference, samples[chosen], k) for chosen in kept]
    size = kept[0].sum()
    assert found.stderr == pytest.approx(np.std(shares, ddof=1) * np.sqrt(size / (n - size)), abs=1e-12)


def test_errors_of_precision_are_binomial_and_those_of_the_reference_have_the_roles_exchanged():
    reference, samples = pair(0, 60, 40)
    precision, recall = precision_recall(reference, samples)
    p = precision.value
    assert precision.stderr == pytest.approx(np.sqrt(p * (1 - p) / 40))
    swapped = precision_recall(samples, reference)
    assert recall.extras["reference_stderr"] == pytest.approx(swapped[0].stderr)
    assert precision.extras["reference_stderr"] == pytest.approx(swapped[1].stderr)


def test_the_error_of_recall_is_near_the_spread_over_other_samples():
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(150, 6))
    found = [precision_recall(reference, rng.normal(0.3, 1, (150, 6)))[1] for _ in range(60)]
    spread = np.std([one.value for one in found], ddof=1)
    assert np.mean([one.stderr for one in found]) == pytest.approx(1.1 * spread, rel=0.35)  # known to 9 %


def adm(reference, samples, k=3, batch=10_000):
    """ADM's evaluator in NumPy's float16, whose sums are in float32: blocks, fallback, the vector itself in the row."""

    def block(u, v):
        half_u, half_v = u.astype(np.float16), v.astype(np.float16)
        with np.errstate(over="ignore", invalid="ignore"):
            norms = [(x * x).astype(np.float32).sum(axis=1).astype(np.float16) for x in (half_u, half_v)]
            products = (half_u.astype(np.float32) @ half_v.astype(np.float32).T).astype(np.float16)
            found = np.maximum(norms[0][:, None] - np.float16(2) * products + norms[1][None], np.float16(0))
        if np.isfinite(found).all():
            return found.astype(np.float32)
        norms = [(x * x).sum(axis=1) for x in (u, v)]
        return np.maximum(norms[0][:, None] - 2 * (u @ v.T) + norms[1][None], 0)

    def all_blocks(a, b):
        cut = lambda x: [x[i : i + batch] for i in range(0, len(x), batch)]  # noqa: E731
        return np.concatenate([np.concatenate([block(u, v) for v in cut(b)], axis=1) for u in cut(a)])

    radii = [np.sort(all_blocks(x, x), axis=1)[:, k] for x in (reference, samples)]
    across = all_blocks(reference, samples)
    return (across <= radii[0][:, None]).any(axis=0).mean(), (across <= radii[1]).any(axis=1).mean()


@pytest.mark.parametrize(("scale", "batch"), [(1.0, 10_000), (1.0, 64), (30.0, 64), (60.0, 64)])
def test_adm_s_float16_and_its_blocks(monkeypatch, scale, batch):
    """At scale 30 some blocks overflow, at 60 all do; the radii then are in float32 and some distances are not."""
    monkeypatch.setattr(squares, "ADM_BATCH", batch)
    monkeypatch.setattr(squares, "BLOCK", 3000)  # some twenty rows at a time
    rng = np.random.default_rng(0)
    sizes = scale * rng.choice([0.3, 1], (2, 1, 1))
    reference, samples = (rng.gamma(0.5, 1.0, (2, 150, 48)) * sizes).astype(np.float32)
    reference[70:] *= 0.2
    found = precision_recall(reference, samples, 3, "adm")
    assert tuple(one.value for one in found) == pytest.approx(adm(reference, samples, batch=batch), abs=1e-12)


def test_float16_moves_the_shares_a_little():
    rng = np.random.default_rng(1)
    reference, samples = rng.gamma(0.5, 1, (2, 400, 256)).astype(np.float32)
    exact, half = (precision_recall(reference, samples, 3, protocol) for protocol in ("exact", "adm"))
    for a, b in zip(exact, half, strict=True):
        assert a.value == pytest.approx(b.value, abs=0.02)
        assert a.stderr == pytest.approx(b.stderr, rel=0.2)


def test_blocks_of_rows_change_nothing(monkeypatch):
    reference, samples = pair(5, 60, 50)
    whole = precision_recall(reference, samples), density_coverage(reference, samples)
    monkeypatch.setattr(squares, "BLOCK", 7 * 50)
    monkeypatch.setattr(squares, "ADM_BATCH", 16)
    assert (precision_recall(reference, samples), density_coverage(reference, samples)) == whole


@given(seeds)
def test_shift_rotation_and_order_change_nothing(seed):
    reference, samples = pair(seed, 30, 25)
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    moved = [x[rng.permutation(len(x))] @ turn + 100 for x in (reference, samples)]
    for a, b in zip(precision_recall(reference, samples), precision_recall(*moved), strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-12)


def test_copies_are_inside_and_far_ones_are_not():
    reference, _ = pair(0, 30, 30)
    assert [one.value for one in precision_recall(reference, reference.copy())] == [1, 1]
    precision, recall = precision_recall(reference, reference + 100)
    assert (precision.value, recall.value, precision.stderr, recall.stderr) == (0, 0, 0, 0)
    half = np.concatenate([reference[:15], reference[15:] + 100])
    assert precision_recall(reference, half)[0].value == 0.5
    assert [one.value for one in density_coverage(reference, reference + 100)] == [0, 0]


@given(seeds, st.integers(7, 30), st.integers(7, 30))
def test_density_and_coverage_are_the_definition_and_have_the_jackknife_s_error(seed, m, n):
    reference, samples = pair(seed, m, n)
    density, coverage = density_coverage(reference, samples)
    radii = np.sort(distances(reference, reference), axis=1)[:, 5]
    within = distances(reference, samples) < radii[:, None]
    assert density.value == pytest.approx(within.sum(axis=0).mean() / 5, abs=1e-12)
    assert density.stderr == pytest.approx(np.std(within.sum(axis=0), ddof=1) / 5 / np.sqrt(n), abs=1e-12)
    assert coverage.value == pytest.approx(within.any(axis=1).mean(), abs=1e-12)
    left_out = [np.delete(within, i, axis=1).any(axis=1).mean() for i in range(n)]
    assert coverage.stderr == pytest.approx(np.sqrt((n - 1) * np.var(left_out)), abs=1e-12)


def test_true_pictures_have_a_density_of_one_and_a_coverage_of_all_but_one_in_32():
    reference, samples = np.random.default_rng(3).normal(size=(2, 1500, 4))
    density, coverage = density_coverage(reference, samples)
    assert density.value == pytest.approx(1, abs=0.05)
    assert coverage.value == pytest.approx(1 - 2**-5, abs=0.015)  # Naeem et al., Lemma 2, as m = n grow


def test_what_has_no_neighbours_is_refused():
    a, b = pair(0, 4, 9)
    with pytest.raises(UserError, match="needs at least 5 images of each kind, not 4"):
        precision_recall(a, b)
    with pytest.raises(UserError, match="different features: 3 and 2"):
        precision_recall(b, b[:, :2])
    with pytest.raises(UserError, match="9 of 9 feature vectors hold NaN"):
        density_coverage(b, b * np.nan)
