"""The smoothed front: scipy's spline and filter as oracles, the paper's captioning curve, and what cannot be smoothed."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import interp1d, make_interp_spline  # type: ignore[import-untyped]
from scipy.signal import savgol_filter  # type: ignore[import-untyped]

from rsoup.front.smoothing import moving_average, quadratic_spline, smooth

TENTHS = [Fraction(k, 10) for k in range(11)]
# BLEU1 and ROUGE-L of captioning soups for λ = 0, 0.1, … 1: alexrame/rewardedsoups @ 1f4aef4, captioning/README.md
CAPTIONING = [
    (0.8234, 0.61), (0.8265, 0.6095), (0.8309, 0.6093), (0.8342, 0.6096), (0.8369, 0.6095), (0.8395, 0.6095),
    (0.8418, 0.6082), (0.844, 0.6069), (0.846, 0.6054), (0.8486, 0.6047), (0.8497, 0.6038),
]  # fmt: skip
# places of the curve that scipy 1.17 draws with the paper's own lines
DRAWN = {
    0: (0.8234, 0.61),
    1: (0.8237704075076135, 0.6099441280766067),
    2: (0.8241410717330353, 0.6098915026191184),
    29: (0.8342175115614117, 0.6094743327918263),
    38: (0.8375752650749928, 0.6094576335590138),
    56: (0.8437501350042984, 0.606943163774114),
    73: (0.84936653652559, 0.6039692077749317),
    74: (0.8497, 0.6038),
}


def test_the_papers_captioning_curve() -> None:
    """75 places, equal to the published recipe to 1e-12, whatever the order of the points."""
    found = smooth(TENTHS, CAPTIONING)

    assert (len(found.points), found.smoothed) == (75, True)
    for place, point in DRAWN.items():
        assert found.points[place] == pytest.approx(point, abs=1e-12)
    assert smooth(TENTHS[::-1], CAPTIONING[::-1]) == found


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=3, max_size=20))
def test_the_average_is_savitzky_golays(points: list[tuple[float, float]]) -> None:
    """Window 3, order 1, inside; the first and the last point are kept."""
    values = np.array(points)
    oracle = savgol_filter(values, 3, 1, axis=0, mode="nearest")

    found = moving_average(values)

    assert np.allclose(found[1:-1], oracle[1:-1], atol=1e-12)
    assert (found[[0, -1]] == values[[0, -1]]).all()


@settings(max_examples=60)
@given(st.integers(3, 40), st.integers(1, 3), st.integers(0, 10**6))
def test_the_spline_is_scipys(count: int, rewards: int, seed: int) -> None:
    """At places between, at and beyond the given ones; steps differ by a factor of a thousand."""
    generator = np.random.default_rng(seed)
    x = np.cumsum(10 ** generator.uniform(-3, 0, count))
    values = generator.normal(size=(count, rewards))
    where = np.concatenate([x, np.linspace(x[0], x[-1], 101)])

    found = quadratic_spline(x, values, where)

    assert np.allclose(found, make_interp_spline(x, values, k=2)(where), atol=1e-9)
    inside = np.clip(where, x[0], x[-1])
    assert np.allclose(found, interp1d(x, values, kind="quadratic", axis=0)(inside), atol=1e-9)
    assert np.allclose(found[:count], values, atol=1e-9)


@given(st.integers(3, 30), st.integers(0, 10**6))
def test_the_spline_is_exact_on_a_parabola(count: int, seed: int) -> None:
    """What is quadratic is reproduced, also beyond the ends."""
    generator = np.random.default_rng(seed)
    x = np.cumsum(generator.uniform(0.1, 1, count))
    where = np.linspace(x[0] - 1, x[-1] + 1, 50)
    a, b, c = generator.normal(size=3)

    found = quadratic_spline(x, (a * x * x + b * x + c)[:, None], where)[:, 0]

    assert found == pytest.approx(a * where**2 + b * where + c, abs=1e-7)


@settings(max_examples=40)
@given(st.integers(3, 15), st.integers(0, 10**6), st.integers(-3, 3), st.floats(-10, 10))
def test_the_curve_moves_with_its_points(count: int, seed: int, power: int, shift: float) -> None:
    """Scaled by a power of two, all rewards alike, and shifted, it is the same curve, scaled and shifted."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(count, 2))
    positions = [float(p) for p in generator.permutation(count)]

    plain = np.array(smooth(positions, values.tolist()).points)
    moved = np.array(smooth(positions, (values * 2.0**power + shift).tolist()).points)

    assert np.allclose(moved, plain * 2.0**power + shift, atol=1e-6)
    tiny = np.array(smooth(positions, (values * 1e-200).tolist()).points)
    assert np.allclose(tiny * 1e200, plain, atol=1e-9)


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(1.0, 2.0), (2.0, 1.0)], [(1.0, 1.0)] * 7])
def test_what_is_too_little_stays_as_it_is(points: list[tuple[float, float]]) -> None:
    """One point, two, all equal: the measured points in the order of λ, and it is said."""
    found = smooth(list(range(len(points)))[::-1], points)

    assert found.points == tuple(points[::-1])
    assert (found.smoothed, "measured points" in found.how) == (False, True)


def test_points_that_coincide_count_once() -> None:
    """Averages that stay in one place for a while: scipy refuses them, the curve passes through once."""
    points = [(0.0, 0.0)] * 4 + [(1.0, 3.0), (2.0, 1.0), (3.0, 0.0)]
    averaged = [(0.0, 0.0), (1 / 3, 1.0), (1.0, 4 / 3), (2.0, 4 / 3), (3.0, 0.0)]
    x = np.concatenate([[0.0], np.cumsum([math.dist(a, b) for a, b in pairwise(averaged)])])
    oracle = make_interp_spline(x / x[-1], averaged, k=2)(np.linspace(0, 1, 10))

    assert np.allclose(smooth(range(7), points, 10).points, oracle, atol=1e-12)


@pytest.mark.parametrize(
    ("positions", "values", "places"),
    [
        ([], [], 75),
        ([0.0], [()], 75),
        ([0.0, 1.0], [(1.0, 1.0)], 75),
        ([0.0, 1.0], [(1.0, 1.0), (1.0,)], 75),
        ([0.0, 0.5, 0.5], [(1.0, 1.0)] * 3, 75),
        ([0.0, 1.0, 2.0], [(1.0, 1.0), (math.nan, 1.0), (2.0, 1.0)], 75),
        ([0.0, 1.0, 2.0], [(1.0, 1.0), (math.inf, 1.0), (2.0, 1.0)], 75),
        ([0.0, math.nan, 2.0], [(1.0, 1.0)] * 3, 75),
        ([0.0, 1.0, 2.0], [(0.0, 1.0), (1e308, 1.0), (-1e308, 1.0)], 75),
        ([0.0, 1.0, 2.0], [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], 1),
    ],
)
def test_what_cannot_be_smoothed_is_refused(
    positions: list[float], values: list[tuple[float, ...]], places: int
) -> None:
    """No point, shapes that differ, a λ twice, NaN and infinity, values no float can span, fewer than two places."""
    with pytest.raises(ValueError, match=r"point|row|twice|finite|far apart|places"):
        smooth(positions, values, places)


@pytest.mark.parametrize("x", [[0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 2.0, 1.0]])
def test_a_spline_needs_three_increasing_places(x: list[float]) -> None:
    """Two places, equal ones, ones out of order."""
    with pytest.raises(ValueError, match="three increasing"):
        quadratic_spline(np.array(x), np.zeros((len(x), 1)), np.array([0.5]))


def test_thousands_of_points_take_no_time() -> None:
    """5000 points of eight rewards in three seconds of one core."""
    values = np.random.default_rng(0).normal(size=(5000, 8)).tolist()
    began = time.process_time()

    assert len(smooth(range(5000), values).points) == 75
    assert time.process_time() - began < 3
