"""Memberships of a noisy front and ε-fronts: definitions by brute force, simulations with known truth."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rsoup.front.certainty import (
    CERTAIN,
    DOMINATED,
    POSSIBLE,
    epsilon_front,
    front_probabilities,
    memberships,
)
from rsoup.front.pareto import front

Points = list[tuple[float, ...]]


def clouds(rewards: tuple[int, int] = (1, 4), most: int = 12) -> st.SearchStrategy[Points]:
    """Points with many ties, of numbers that sums leave exact."""
    value = st.integers(-8, 8).map(lambda n: n / 4)
    return st.integers(*rewards).flatmap(
        lambda n: st.lists(st.tuples(*[value] * n), min_size=1, max_size=most)
    )


def up(points: Points) -> list[bool]:
    """Every reward is to be maximised."""
    return [True] * len(points[0])


def shaped(points: Points, number: float | None) -> list[list[Any]]:
    """A table of the points' shape with one number everywhere."""
    return [[number] * len(point) for point in points]


# --- within ε


@given(clouds(), st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]))
def test_the_epsilon_front_is_its_definition(points: Points, epsilon: float) -> None:
    """i stays unless some j ≥ i + ε in every reward and > in one."""

    def beats(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        pairs = [(a, b + epsilon) for a, b in zip(one, other, strict=True)]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    assert epsilon_front(points, epsilon) == [
        i for i, point in enumerate(points) if not any(beats(other, point) for other in points)
    ]


@given(clouds(), st.floats(0, 2), st.floats(0, 2))
def test_the_epsilon_front_grows_from_the_front(points: Points, one: float, other: float) -> None:
    """With 0 it is the front, a larger ε keeps at least the same points, a huge one all."""
    small, large = sorted([one, other])

    assert epsilon_front(points, 0) == front(points, up(points))
    assert set(epsilon_front(points, small)) <= set(epsilon_front(points, large))
    assert epsilon_front(points, 1e9) == list(range(len(points)))


def test_an_epsilon_per_reward() -> None:
    """Each reward has its own, in its own unit."""
    points = [(10.0, 1.0), (9.0, 0.9), (5.0, 0.95)]

    assert epsilon_front(points, [0.5, 0.05]) == [0]
    assert epsilon_front(points, [0.5, 0.2]) == [0, 1, 2]
    assert epsilon_front(points, [2.0, 0.0]) == [0, 1]


@pytest.mark.parametrize("epsilon", [-1.0, math.nan, math.inf, [1.0], [1.0, -1.0]])
def test_an_epsilon_that_is_none_is_refused(epsilon: Any) -> None:
    """Below 0, not finite, or for another number of rewards."""
    with pytest.raises(ValueError, match="ε"):
        epsilon_front([(1.0, 2.0)], epsilon)


# --- memberships


@given(clouds())
def test_without_noise_every_membership_is_certain(points: Points) -> None:
    """Errors of 0: certain is the front, dominated the rest, beaten by exactly those that dominate."""
    on = set(front(points, up(points)))
    for found in memberships(points, shaped(points, 0.0)):
        dominators = tuple(
            j for j, other in enumerate(points)
            if other != points[found.point] and all(map(float.__ge__, other, points[found.point]))
        )  # fmt: skip
        assert found.by_means == (found.point in on)
        assert found.status == (CERTAIN if found.point in on else DOMINATED)
        assert found.beaten_by == dominators


@given(clouds(), st.floats(0.01, 2), st.sampled_from([None, 4]))
def test_memberships_are_their_definition(points: Points, error: float, repeats: int | None) -> None:
    """Bounds d ∓ q·se·√2 with scipy's quantiles at α/(n(n − 1)) and α/(nK), over all pairs."""
    count, rewards = len(points), len(points[0])
    found = memberships(points, shaped(points, error), shaped(points, repeats))
    law = stats.norm if repeats is None else stats.t(2 * (repeats - 1))
    beat = law.isf(0.05 / max(1, count * (count - 1))) * error * math.sqrt(2)
    hold = law.isf(0.05 / (count * rewards)) * error * math.sqrt(2)

    def clear(difference: float, half: float) -> bool:
        return difference > half

    for i, point in enumerate(points):
        over = [[a - b for a, b in zip(other, point, strict=True)] for other in points]
        beaten = tuple(j for j in range(count) if all(clear(d, beat) for d in over[j]))
        safe = all(any(clear(-d, hold) for d in over[j]) for j in range(count) if j != i)
        assert found[i].beaten_by == beaten
        assert found[i].status == (DOMINATED if beaten else CERTAIN if safe else POSSIBLE)


@settings(max_examples=50)
@given(clouds(), st.data())
def test_memberships_do_not_ask_for_order_or_unit(points: Points, data: st.DataObject) -> None:
    """Shuffled and stretched together with their errors, points keep their status."""
    order = data.draw(st.permutations(range(len(points))))
    errors = [[data.draw(st.sampled_from([0.0, 0.05, 0.5])) for _ in point] for point in points]
    found = memberships(points, errors)
    changed = memberships(
        [tuple(4 * v for v in points[i]) for i in order], [[4 * e for e in errors[i]] for i in order]
    )

    assert [changed[order.index(i)].status for i in range(len(points))] == [m.status for m in found]


@settings(max_examples=50)
@given(clouds())
def test_more_confidence_and_more_noise_are_less_certain(points: Points) -> None:
    """What is certain at 99 % is at 90 %, what is certain with twice the error is with the error."""
    errors, doubled = shaped(points, 0.1), shaped(points, 0.2)
    base = [m.status for m in memberships(points, errors, confidence=0.9)]
    for other in (memberships(points, errors, confidence=0.99), memberships(points, doubled, confidence=0.9)):
        assert all(m.status in (POSSIBLE, status) for m, status in zip(other, base, strict=True))


def test_an_unknown_error_decides_nothing() -> None:
    """A point with one neither beats nor is beaten, and only what does not ask for it stays certain."""
    points = [(5.0, 5.0), (1.0, 1.0), (3.0, 3.0)]

    found = memberships(points, [(None, None), (0.1, 0.1), (0.1, 0.1)])

    assert [m.status for m in found] == [POSSIBLE, DOMINATED, POSSIBLE]
    assert found[1].beaten_by == (2,)
    assert [m.by_means for m in found] == [True, False, False]


def test_a_far_rival_that_is_uncertain_counts_among_many() -> None:
    """Fifty exact points on a line and one far below them whose error is not known: none is certainly on the front."""
    points: Points = [*((i / 50, 1 - i / 50) for i in range(50)), (-9.0, -9.0)]
    exact = shaped(points, 0.0)

    assert [m.status for m in memberships(points, exact)] == [CERTAIN] * 50 + [DOMINATED]
    assert {m.status for m in memberships(points, [*exact[:-1], [None, None]])} == {POSSIBLE}


@pytest.mark.parametrize("truth", ["equal", "one behind", "circle"])
def test_all_answers_hold_together(truth: str) -> None:
    """In at least 95 % of 400 noisy measurements not one certain answer is wrong; where clear, there are answers."""
    angles = np.linspace(0, math.pi / 2, 9)
    circle = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    true = {
        "equal": np.zeros((8, 2)),
        "one behind": np.array([[1.0, 1.0], [0.999, 0.999], [0.0, 1.5], [1.5, 0.0]]),
        "circle": np.concatenate([circle, 0.4 * circle]),
    }[truth]
    on = set(front([tuple(row) for row in true.tolist()], [True, True]))
    generator = np.random.default_rng(0)
    wrong = answers = 0
    for _ in range(400):
        values = true + 0.05 * generator.standard_normal(true.shape)
        found = memberships(values.tolist(), np.full(true.shape, 0.05).tolist())
        wrong += any((m.status == DOMINATED) == (m.point in on) for m in found if m.status != POSSIBLE)
        answers += sum(m.status != POSSIBLE for m in found)

    assert wrong <= 0.05 * 400
    assert (answers > 400 * 3) == (truth == "circle")


def test_one_point_is_certainly_on_its_front() -> None:
    """However noisy, it has no rival; two equal exact points are both on it, two noisy ones possibly."""
    assert memberships([(1.0, 2.0)], [(9.0, 9.0)])[0].status == CERTAIN
    assert [m.status for m in memberships([(1.0, 2.0)] * 2, [(0.0, 0.0)] * 2)] == [CERTAIN] * 2
    assert [m.status for m in memberships([(1.0, 2.0)] * 2, [(0.1, 0.1)] * 2)] == [POSSIBLE] * 2


# --- probabilities


def test_probabilities_of_two_points_have_a_closed_form() -> None:
    """One of two is beaten if the other is better in both rewards: 1 − Φ(d₁/s)·Φ(d₂/s) with s = √2·se."""
    points = [(0.0, 0.0), (0.3, 0.1)]
    found = front_probabilities(points, shaped(points, 0.2), draws=40_000)
    phi = stats.norm(scale=0.2 * math.sqrt(2)).cdf

    assert found[0] == pytest.approx(1 - phi(0.3) * phi(0.1), abs=0.01)
    assert found[1] == pytest.approx(1 - phi(-0.3) * phi(-0.1), abs=0.01)


def test_probabilities_from_few_repeats_have_students_tails() -> None:
    """Against an exact rival with one reward: P(T > d/se) with n − 1 degrees of freedom."""
    found = front_probabilities([(0.0,), (1.0,)], [(0.5,), (0.0,)], [(3,), (None,)], draws=40_000)

    assert found[0] == pytest.approx(stats.t.sf(2.0, 2), abs=0.01)
    assert found[1] == pytest.approx(stats.t.cdf(2.0, 2), abs=0.01)


@given(clouds())
def test_without_noise_probabilities_are_the_front(points: Points) -> None:
    """1 for its points, duplicates included, 0 for the others."""
    on = set(front(points, up(points)))

    assert front_probabilities(points, shaped(points, 0.0), draws=2) == [
        float(i in on) for i in range(len(points))
    ]


def test_probabilities_are_repeatable() -> None:
    """The same seed says the same; another nearly."""
    points = np.random.default_rng(0).random((9, 3)).tolist()
    errors = shaped(points, 0.2)

    assert front_probabilities(points, errors, seed=1) == front_probabilities(points, errors, seed=1)
    assert front_probabilities(points, errors, seed=2) == pytest.approx(
        front_probabilities(points, errors), abs=0.1
    )


# --- refusals and speed


@pytest.mark.parametrize(
    ("points", "errors", "repeats"),
    [
        ([], [], None),
        ([(math.nan, 1.0)], [(0.1, 0.1)], None),
        ([(1.0, 1.0)], [(-0.1, 0.1)], None),
        ([(1.0, 1.0)], [(math.nan, 0.1)], None),
        ([(1.0, 1.0)], [(0.1,)], None),
        ([(1.0, 1.0)], [(0.1, 0.1)], [(0, 1)]),
    ],
)
def test_what_has_no_errors_is_refused(points: Any, errors: Any, repeats: Any) -> None:
    """No points, NaN, errors below 0 or of another shape, no repeats."""
    for measure in (memberships, front_probabilities):
        with pytest.raises(ValueError, match=r"point|finite|error|repeats"):
            measure(points, errors, repeats)


def test_odd_confidences_and_no_draws_are_refused() -> None:
    """A confidence of 0 or 1, no draws, an error that is not known."""
    for confidence in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            memberships([(1.0,)], [(1.0,)], confidence=confidence)
    with pytest.raises(ValueError, match="draw"):
        front_probabilities([(1.0,)], [(1.0,)], draws=0)
    with pytest.raises(ValueError, match="known"):
        front_probabilities([(1.0,)], [(None,)])


def test_thousands_of_points_take_seconds_at_most() -> None:
    """2000 points of 8 rewards, known and repeated errors."""
    points = [tuple(row) for row in np.random.default_rng(0).random((2000, 8)).tolist()]

    start = time.process_time()
    memberships(points, shaped(points, 0.01))
    memberships(points, shaped(points, 0.01), shaped(points, 5))
    epsilon_front(points, 0.01)

    assert time.process_time() - start < 6
