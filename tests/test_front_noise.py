"""Bootstrap intervals and the winner's curse: closed forms, Student's interval, and simulations with known truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rsoup.front.batches import expected_over, expected_rewards, hypervolumes
from rsoup.front.expected import expected_reward
from rsoup.front.noise import Estimate, bootstrap, bootstraps, calmed, optimism
from rsoup.front.pareto import volume

Floats = Any
Z = 1.959963984540054  # the 97.5 % quantile of the normal distribution

CIRCLE = np.array([(math.sin(a), math.cos(a)) for a in np.linspace(0, math.pi / 2, 11)])
EQUAL = np.full((11, 2), 0.5)


def first(points: Sequence[tuple[float, ...]]) -> float:
    """The first value of the first point."""
    return points[0][0]


def mean(points: Sequence[tuple[float, ...]]) -> float:
    """The mean of the first rewards."""
    return math.fsum(point[0] for point in points) / len(points)


def shaped(values: Floats, number: float | None) -> list[list[Any]]:
    """A table of the values' shape with one number everywhere."""
    return [[number] * values.shape[1] for _ in range(values.shape[0])]


# --- many sets at once

SETS = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.lists(
            st.tuples(*[st.one_of(st.integers(-3, 3).map(float), st.floats(-5, 5).map(lambda x: round(x, 6)))] * 2),
            min_size=n, max_size=n,
        ),
        min_size=1, max_size=6,
    )
)  # fmt: skip


@given(SETS)
def test_hypervolumes_are_moocores(sets: list[list[tuple[float, float]]]) -> None:
    """Many sets of two rewards at once: the same numbers as moocore's, one after the other."""
    found = hypervolumes(np.array(sets))

    assert found.shape == (len(sets),)
    for points, value in zip(sets, found, strict=True):
        assert value == pytest.approx(
            moocore.hypervolume(points, ref=[0.0, 0.0], maximise=True), rel=1e-12, abs=1e-12
        )


def test_hypervolumes_of_three_rewards_are_moocores() -> None:
    """More rewards go through the same function."""
    sets = np.random.default_rng(0).normal(0.5, 1, (20, 9, 3))
    oracle = [moocore.hypervolume(points, ref=[0.0] * 3, maximise=True) for points in sets]

    assert hypervolumes(sets) == pytest.approx(oracle, rel=1e-12)
    assert hypervolumes(np.zeros((3, 2, 1))).tolist() == [0.0] * 3


@given(SETS)
def test_expected_rewards_are_the_exact_ones(sets: list[list[tuple[float, float]]]) -> None:
    """The vectorised envelope agrees with the integral in rational numbers; duplicates and parallels included."""
    found = expected_rewards(np.array(sets))

    assert found == pytest.approx([expected_reward(points).value for points in sets], rel=1e-12, abs=1e-12)


def test_expected_over_preferences_nears_the_integral() -> None:
    """The midpoints of 2000 intervals of μ give the integral to 1e-6; one preference gives its best point."""
    weights = (np.arange(2000) + 0.5) / 2000
    sets = np.random.default_rng(0).normal(0, 1, (5, 8, 2))

    assert expected_over(np.stack([1 - weights, weights], axis=1))(sets) == pytest.approx(
        expected_rewards(sets), abs=1e-6
    )
    assert expected_over([(0.0, 0.0, 2.0)])(np.arange(12.0).reshape(1, 4, 3)).tolist() == [22.0]
    with pytest.raises(ValueError, match="two rewards"):
        expected_rewards(np.zeros((1, 2, 3)))


# --- intervals of linear figures: closed forms


def test_one_value_has_its_normal_interval() -> None:
    """x ± 1.96·se to the resolution of the draws, no bias, and the value itself in the middle."""
    found = bootstrap([(3.0, 9.0)], [(0.5, 2.0)], None, first, draws=20_000)

    assert (found.value, found.bias, found.corrected) == (
        3.0,
        pytest.approx(0, abs=1e-12),
        pytest.approx(3.0),
    )
    assert found.high - 3 == pytest.approx(3 - found.low)
    assert (found.high - found.low) / 2 == pytest.approx(Z * 0.5, rel=0.03)
    assert (found.freedom, found.draws, found.confidence) == (math.inf, 20_000, 0.95)


@pytest.mark.parametrize("repeats", [2, 3, 5, 30])
def test_one_value_from_repeats_has_students_interval(repeats: int) -> None:
    """x ± t·se with n − 1 degrees of freedom; scipy's t."""
    found = bootstrap([(3.0,)], [(0.5,)], [(repeats,)], first, draws=20_000)

    assert found.freedom == repeats - 1
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, repeats - 1) * 0.5, rel=0.04)


def test_a_difference_has_welchs_degrees_of_freedom() -> None:
    """ν = (u² + v²)² / (u⁴/(n − 1) + v⁴/(m − 1)), and an error that is known counts as infinitely many."""

    def difference(points: Sequence[tuple[float, ...]]) -> float:
        return points[0][0] - points[1][0]

    found = bootstrap([(1.0,), (4.0,)], [(0.3,), (0.4,)], [(4,), (6,)], difference, draws=40_000)
    known = bootstrap([(1.0,), (4.0,)], [(0.3,), (0.4,)], [(4,), (None,)], difference, draws=40_000)

    assert found.freedom == pytest.approx(0.25**2 / (0.09**2 / 3 + 0.16**2 / 5), rel=0.05)
    assert known.freedom == pytest.approx(0.25**2 / (0.09**2 / 3), rel=0.05)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.ppf(0.975, found.freedom) * 0.5, rel=0.04)


def test_degrees_of_freedom_are_of_the_values_that_count() -> None:
    """One value of 100 makes the figure: its n − 1, not theirs; all of them alike: so many that it hardly matters."""
    values = np.zeros((50, 2))
    single = bootstrap(values.tolist(), shaped(values, 0.5), shaped(values, 3), first)
    every = bootstrap(
        values.tolist(), shaped(values, 0.5), shaped(values, 3), lambda p: math.fsum(map(math.fsum, p))
    )
    even = bootstrap([(0.0,)] * 2, [(1.0,)] * 2, [(3,), (9,)], lambda p: abs(p[0][0]))

    assert single.freedom == pytest.approx(2, rel=0.2)
    assert 50 < every.freedom <= 200
    assert even.freedom == 2  # nothing linear to tell by: the fewest


def test_exact_values_leave_no_interval() -> None:
    """Errors of 0: value, low and high are one; a single repeat says nothing about an error."""
    found = bootstrap(CIRCLE, shaped(CIRCLE, 0.0), shaped(CIRCLE, 1), volume)

    assert (found.low, found.high, found.bias) == (found.value, found.value, 0.0)
    assert found.freedom == math.inf


def test_the_same_seed_draws_the_same() -> None:
    """Equal for equal seeds, whatever the batch; another seed moves it a little; odd numbers become even."""
    errors = shaped(CIRCLE, 0.05)
    once, again = (bootstrap(CIRCLE, errors, None, volume, draws=201, seed=3) for _ in range(2))
    other = bootstrap(CIRCLE, errors, None, volume, draws=201, seed=4)

    assert once == again
    assert once.draws == 202
    assert once.low != other.low
    assert once.low == pytest.approx(other.low, abs=0.05)
    (batch,) = bootstraps(CIRCLE, errors, None, hypervolumes, draws=201, seed=3)
    assert (batch.low, batch.high) == pytest.approx((once.low, once.high))


def test_several_figures_share_their_draws() -> None:
    """Two figures at once: each is what it is alone."""
    errors, repeats = shaped(CIRCLE, 0.05), shaped(CIRCLE, 4)

    both = bootstraps(
        CIRCLE, errors, repeats, lambda s: np.stack([hypervolumes(s), expected_rewards(s)], axis=1), draws=200
    )
    alone = [bootstraps(CIRCLE, errors, repeats, f, draws=200)[0] for f in (hypervolumes, expected_rewards)]

    assert [(e.value, e.low, e.high) for e in both] == [
        pytest.approx((e.value, e.low, e.high)) for e in alone
    ]


@settings(max_examples=25)
@given(st.floats(0.1, 10), st.floats(-5, 5), st.sampled_from([None, 3]))
def test_intervals_have_no_unit(scale: float, shift: float, repeats: int | None) -> None:
    """ax + b with errors a·se: bounds and bias follow."""

    def highest(points: Sequence[tuple[float, ...]]) -> float:
        return max(point[0] for point in points)

    values, errors, counts = CIRCLE.tolist(), shaped(CIRCLE, 0.1), shaped(CIRCLE, repeats)
    moved = [[scale * v + shift for v in row] for row in values]
    found = bootstrap(values, errors, counts, highest, draws=100)
    changed = bootstrap(moved, [[scale * e for e in row] for row in errors], counts, highest, draws=100)

    assert (changed.low, changed.high) == pytest.approx(
        (scale * found.low + shift, scale * found.high + shift)
    )
    assert changed.bias == pytest.approx(scale * found.bias)


# --- simulations: is the truth inside?


def covered(
    truth: Floats, error: float, figure: Callable[[Floats], Floats], *, repeats: int | None, rounds: int = 400
) -> tuple[float, list[Estimate], float]:
    """The share of simulated measurements whose interval holds the true figure; all of the intervals; the truth."""
    generator = np.random.default_rng(0)
    true = float(np.ravel(figure(truth[None]))[0])
    found = []
    for seed in range(rounds):
        if repeats is None:
            values, errors = (
                truth + error * generator.standard_normal(truth.shape),
                np.full(truth.shape, error),
            )
        else:
            single = truth + error * math.sqrt(repeats) * generator.standard_normal((repeats, *truth.shape))
            values, errors = single.mean(axis=0), single.std(axis=0, ddof=1) / math.sqrt(repeats)
        counts = None if repeats is None else shaped(truth, repeats)
        found += bootstraps(values.tolist(), errors.tolist(), counts, figure, draws=400, seed=seed)
    return sum(e.low <= true <= e.high for e in found) / rounds, found, true


def average(sets: Floats) -> Floats:
    """The mean of all values."""
    return sets.mean(axis=(1, 2))


@pytest.mark.parametrize("repeats", [None, 2, 3, 10])
@pytest.mark.parametrize("truth", [CIRCLE, EQUAL], ids=["circle", "equal"])
def test_linear_figures_are_covered(truth: Floats, repeats: int | None) -> None:
    """A nominal 95 % interval of a mean holds the truth in 90 to 99 % of 400 measurements, also with few repeats."""
    share, found, true = covered(truth, 0.1, average, repeats=repeats)

    assert 0.90 <= share <= 0.99
    assert np.mean([e.corrected for e in found]) == pytest.approx(true, abs=0.005)


@pytest.mark.parametrize("repeats", [2, 3, 10])
def test_a_single_value_of_few_repeats_is_covered(repeats: int) -> None:
    """Where Student's interval is the exact one, this is it: 90 to 99 %."""
    share, _, _ = covered(CIRCLE, 0.1, lambda sets: sets[:, 0, 0], repeats=repeats)

    assert 0.90 <= share <= 0.99


@pytest.mark.parametrize(
    ("truth", "figure", "repeats", "least"),
    [
        (CIRCLE, hypervolumes, None, 0.92),
        (CIRCLE, expected_rewards, None, 0.85),
        (CIRCLE, hypervolumes, 3, 0.90),
        (CIRCLE, expected_rewards, 3, 0.88),
        (EQUAL, hypervolumes, None, 0.78),
        (EQUAL, expected_rewards, None, 0.76),
    ],
    ids=["circle-hv", "circle-eu", "circle-hv-3", "circle-eu-3", "equal-hv", "equal-eu"],
)
def test_the_best_of_noisy_points_is_covered_far_better_than_by_percentiles(
    truth: Floats, figure: Callable[[Floats], Floats], repeats: int | None, least: float
) -> None:
    """The truth of maxima lies mostly inside, the percentile interval (mirrored at the value) seldom holds it."""
    share, found, true = covered(truth, 0.1, figure, repeats=repeats)
    percentiles = np.mean([2 * e.value - e.high <= true <= 2 * e.value - e.low for e in found])
    raw = np.mean([e.value for e in found]) - true
    left = np.mean([e.corrected for e in found]) - true

    assert least <= share <= 0.99
    assert percentiles < share
    assert 0 < left < 0.6 * raw  # about half or more of what noise lifts is taken off, and not too much


def test_without_drawing_together_the_bias_is_found_by_half() -> None:
    """The reason for `calmed`: around the measured values themselves half as much of the bias is seen."""
    generator = np.random.default_rng(1)
    seen, plain = [], []
    for seed in range(100):
        values = EQUAL + 0.1 * generator.standard_normal(EQUAL.shape)
        (found,) = bootstraps(
            values.tolist(), shaped(EQUAL, 0.1), None, expected_rewards, draws=200, seed=seed
        )
        drawn = values + 0.1 * generator.standard_normal((200, *EQUAL.shape))
        seen.append(found.bias)
        plain.append(float(np.median(expected_rewards(drawn)) - expected_rewards(values[None])[0]))

    assert np.mean(seen) > 1.5 * np.mean(plain)


# --- the values drawn together


def test_values_of_noise_alone_are_drawn_to_their_mean() -> None:
    """A spread not above the errors leaves nothing; one far above leaves all; exact values stay."""
    assert calmed([(1.0,), (2.0,), (3.0,)], [(2.0,)] * 3).ravel().tolist() == [2.0] * 3
    assert calmed([(1.0,), (2.0,), (3.0,)], [(1e-9,)] * 3).ravel() == pytest.approx(
        [1.0, 2.0, 3.0], abs=1e-12
    )
    assert calmed([(1.0,), (2.0,), (3.0,)], [(0.0,), (2.0,), (2.0,)]).ravel().tolist()[0] == 1.0
    assert calmed([(5.0, 7.0)], [(1.0, 0.0)]).tolist() == [[5.0, 7.0]]


def test_the_drawn_together_spread_is_the_true_one() -> None:
    """With equal errors: variance = variance of the values − se², per reward, around the same mean."""
    values = np.random.default_rng(2).normal(0, 3, (50, 2))
    found = calmed(values.tolist(), shaped(values, 1.5))

    assert found.var(axis=0, ddof=1) == pytest.approx(values.var(axis=0, ddof=1) - 1.5**2)
    assert found.mean(axis=0) == pytest.approx(values.mean(axis=0))


# --- the winner's curse


@pytest.mark.parametrize(("count", "known"), [(2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))])
def test_the_curse_of_equal_scores_has_a_closed_form(count: int, known: float) -> None:
    """The mean of the largest of 2 and of 3 normal numbers, in standard errors."""
    assert optimism([7.0] * count, [0.2] * count, draws=100_000) == pytest.approx(0.2 * known, rel=0.02)


def test_there_is_no_curse_without_choice_or_noise() -> None:
    """One point, exact scores, and a winner far ahead."""
    assert optimism([3.0], [1.0]) == 0
    assert optimism([3.0, 4.0], [0.0, 0.0]) == 0
    assert optimism([0.0, 0.0, 100.0], [1.0] * 3) == pytest.approx(0, abs=0.05)


def test_the_curse_is_what_a_second_evaluation_takes_away() -> None:
    """Over 500 simulated choices, score − optimism is the true score of the chosen: to a quarter of the curse."""
    generator = np.random.default_rng(3)
    for truth in (np.zeros(11), np.linspace(0, 2, 11)):
        curse, found = [], []
        for seed in range(500):
            scores = truth + generator.standard_normal(11)
            curse.append(scores.max() - truth[scores.argmax()])
            found.append(optimism(scores.tolist(), [1.0] * 11, draws=500, seed=seed))
        assert np.mean(curse) > 0.8
        assert abs(np.mean(found) - np.mean(curse)) < 0.25 * np.mean(curse)


@settings(max_examples=25)
@given(
    st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=8), st.floats(0.01, 3), st.floats(0.1, 10)
)
def test_the_curse_has_the_scores_unit(scores: list[float], error: float, scale: float) -> None:
    """Never below 0; a·scores + b with a·errors has a times the optimism."""
    found = optimism(scores, [error] * len(scores), draws=200)
    moved = optimism([scale * s + 1 for s in scores], [scale * error] * len(scores), draws=200)

    assert found >= 0
    assert moved == pytest.approx(scale * found, rel=1e-6, abs=1e-9)


# --- refusals and speed


@pytest.mark.parametrize(
    ("values", "errors", "repeats", "options"),
    [
        ([], [], None, {}),
        ([(math.nan,)], [(1.0,)], None, {}),
        ([(1.0,), (1.0, 2.0)], [(1.0,), (1.0, 1.0)], None, {}),
        ([(1.0,)], [(-1.0,)], None, {}),
        ([(1.0,)], [(math.nan,)], None, {}),
        ([(1.0,)], [(None,)], None, {}),
        ([(1.0,)], [], None, {}),
        ([(1.0,)], [(1.0, 1.0)], None, {}),
        ([(1.0,)], [(1.0,)], [(0,)], {}),
        ([(1.0,)], [(1.0,)], [], {}),
        ([(1.0,)], [(1.0,)], [(2, 2)], {}),
        ([(1.0,)], [(1.0,)], None, {"confidence": 1.0}),
        ([(1.0,)], [(1.0,)], None, {"confidence": 0.0}),
        ([(1.0,)], [(1.0,)], None, {"draws": 39}),
        ([(1.0,)], [(1.0,)], None, {"draws": 1000, "confidence": 0.999}),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    values: Any, errors: Any, repeats: Any, options: dict[str, Any]
) -> None:
    """No points, NaN, shapes that differ, errors below 0 or not known, no repeats, odd confidences, few draws."""
    with pytest.raises(ValueError, match=r"point|finite|rewards|error|repeats|confidence|draws"):
        bootstrap(values, errors, repeats, first, **options)


def test_a_figure_that_is_not_finite_is_refused() -> None:
    """In the values themselves, or in a draw."""
    with pytest.raises(ValueError, match="statistic is not finite"):
        bootstrap([(1.0,)], [(1.0,)], None, lambda _: math.inf)
    with pytest.raises(ValueError, match="statistic is not finite"):
        bootstrap([(1.0,)], [(9.0,)], None, lambda points: 1.0 if points[0][0] > -9 else math.nan)


def test_scores_and_errors_go_together() -> None:
    """One standard error per score."""
    with pytest.raises(ValueError, match="one standard error"):
        optimism([1.0, 2.0], [1.0])


def test_a_thousand_draws_of_fifty_points_take_no_time() -> None:
    """Hypervolume and expected reward with two rewards: well under two seconds each, of one core."""
    values = np.random.default_rng(0).random((50, 2))
    for figure in (hypervolumes, expected_rewards):
        start = time.process_time()
        bootstraps(values.tolist(), shaped(values, 0.01), None, figure, draws=1000)
        assert time.process_time() - start < 2


def test_many_values_are_drawn_in_parts() -> None:
    """Thousands of values a draw: the parts are what one drawing would be, mirrored images included."""
    values = np.zeros((3000, 8))
    (found,) = bootstraps(
        values.tolist(), shaped(values, 1.0), None, lambda s: s.mean(axis=(1, 2)), draws=400
    )

    assert found.bias == pytest.approx(0, abs=1e-12)
    assert found.high == pytest.approx(Z / math.sqrt(values.size), rel=0.2)
    assert mean([(1.0,), (2.0,)]) == 1.5
