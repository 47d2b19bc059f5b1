"""Expected reward over preferences, λ = μ̂, maximum utility loss: closed forms, integration by brute force, linear programs."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import LinearNDInterpolator  # type: ignore[import-untyped]
from scipy.optimize import linprog  # type: ignore[import-untyped]

from rsoup.front.expected import envelope, expected_reward, utility_loss
from rsoup.front.identity import identity_reward
from rsoup.front.pareto import front

Points = list[tuple[float, ...]]
Mix = tuple[Fraction, ...]

VALUE = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10))
PAIRS = st.lists(st.tuples(VALUE, VALUE), min_size=1, max_size=25)
CLOUDS = st.integers(1, 5).flatmap(
    lambda count: st.lists(st.tuples(*[VALUE] * count), min_size=1, max_size=12)
)
FINE = np.linspace(0, 1, 4001)
CIRCLE: Points = [(math.cos(x), math.sin(x)) for x in np.linspace(0, math.pi / 2, 5000)]


def utilities(points: Points, mu: np.ndarray) -> np.ndarray:
    """(1 − μ)p₁ + μp₂, a row per μ."""
    array = np.array(points)
    return np.outer(1 - mu, array[:, 0]) + np.outer(mu, array[:, 1])


# --- published figures (Ramé et al. 2023, repository alexrame/rewardedsoups: ava and cafe of image generation)

EXPERTS: Points = [(5.219117605104679, 0.8201335447317943), (5.296301108477067, 0.8066531268461626)]
SOUPS: Points = [  # λ = 0.1, 0.2, 0.7 and 0.8; no preference prefers another of the eleven
    (5.22470276397144, 0.8199444008768518),
    (5.24126486344771, 0.8184839895906438),
    (5.288267661163829, 0.8137365690869136),
    (5.302629824325654, 0.8112323649394536),
]
MORL: Points = [  # trained for μ = 1/6, 1/3 … 5/6
    (5.234248517986282, 0.8167034926483909),
    (5.235488123845572, 0.8149505488649763),
    (5.2653643032583375, 0.8147667648230853),
    (5.275391924891113, 0.8137702660411292),
    (5.287197870731354, 0.8108862709775567),
]


def normalised(points: Points) -> Points:
    """Each reward from 0 at the worse expert to 1 at the better."""
    (low, high), (top, bottom) = EXPERTS
    return [((a - low) / (top - low), (b - bottom) / (high - bottom)) for a, b in points]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (EXPERTS, 0.75),
        ([*EXPERTS, *SOUPS], 0.8410796474),
        ([*EXPERTS, *MORL], 0.7692692595),
        ([*EXPERTS, MORL[2]], 0.7601),
        ([*EXPERTS, MORL[1], MORL[3]], 0.7672),
    ],
)  # fmt: skip
def test_the_published_image_fronts_have_their_expected_rewards(points: Points, expected: float) -> None:
    """Two trainings and their soups are worth more to an unknown user than 2, 3, 4 or 7 MORL trainings."""
    digits = 10 if expected * 1e4 % 1 > 1e-9 else 4

    assert round(expected_reward(normalised(points)).value, digits) == expected


def test_the_published_soups_miss_nothing_that_the_morl_trainings_have() -> None:
    """MUL(soups, MORL) = 0, the experts being in both; the other way round users miss 15 % of the range."""
    soups, morl = normalised([*EXPERTS, *SOUPS]), normalised([*EXPERTS, *MORL])

    assert utility_loss(soups, morl).value == 0
    assert utility_loss(morl, soups).value == pytest.approx(0.15236, abs=1e-5)


# --- two rewards


@given(PAIRS)
def test_two_rewards_are_integrated_exactly(points: Points) -> None:
    """The trapezoidal rule on a fine grid agrees, up to what the kinks can cost it."""
    found = expected_reward(points)
    best = utilities(points, FINE).max(axis=1)
    rule = float((best[1:] + best[:-1]) @ np.diff(FINE)) / 2

    assert found.error == 0
    assert (
        -1e-13 <= rule - found.value <= 40 * (FINE[1] - FINE[0]) ** 2 / 8 + 1e-13
    )  # Σ of the slopes' jumps ≤ 40


@given(PAIRS)
def test_the_envelope_names_the_best_point_everywhere(points: Points) -> None:
    """Intervals cover [0, 1] in order; within one its point has the largest utility, and it is the first of equals."""
    found = envelope(points)

    assert (found[0].start, found[-1].end) == (0, 1)
    assert all(one.end == other.start for one, other in itertools.pairwise(found))
    assert found == expected_reward(points).intervals
    for interval in found:
        for mu in (interval.start, (interval.start + interval.end) / 2, interval.end):
            values = utilities(points, np.array([mu]))[0]
            assert values[interval.index] == pytest.approx(values.max(), abs=1e-13)
        assert points.index(points[interval.index]) == interval.index


@given(PAIRS)
def test_an_interval_is_where_a_point_is_best_alone(points: Points) -> None:
    """No point without an interval is strictly better anywhere, and slopes rise from one interval to the next."""
    kept = [points[interval.index] for interval in envelope(points)]

    assert expected_reward(kept).value == expected_reward(points).value
    assert all(a[0] > b[0] and a[1] < b[1] for a, b in itertools.pairwise(kept))
    assert set(kept) <= {points[i] for i in front(points, (True, True))}


def test_known_integrals() -> None:
    """(1, 0) and (0, 1): ¾. A quarter circle: ½ + asinh(1)/√8. A straight line: only its ends count."""
    line = [(k / 8, 1 - k / 8) for k in range(9)]

    assert expected_reward([(1.0, 0.0), (0.0, 1.0)]).value == 0.75
    assert expected_reward(CIRCLE).value == pytest.approx(0.5 + math.asinh(1) / math.sqrt(8), abs=1e-8)
    assert [interval.index for interval in envelope(line)] == [8, 0]
    assert expected_reward(line).value == 0.75


# --- more rewards


@pytest.mark.parametrize("count", [3, 4, 5, 8, 12])
def test_unit_vectors_are_worth_a_harmonic_number(count: int) -> None:
    """E max μₖ = (1 + ½ + … + 1/N)/N, and E max (1 − μₖ) = 1 − 1/N²; within five standard errors, which are small."""
    units: Points = [tuple(float(i == k) for i in range(count)) for k in range(count)]
    lacking: Points = [tuple(1.0 - x for x in unit) for unit in units]
    for points, truth in (
        (units, sum(1 / k for k in range(1, count + 1)) / count),
        (lacking, 1 - 1 / count**2),
    ):
        found = expected_reward(points)

        assert 0 < found.error < 3e-4
        assert abs(found.value - truth) <= 5 * found.error


def two_points(one: Sequence[float], other: Sequence[float]) -> float:
    """E max(p·μ, q·μ) = mean(q) + Σ over cₖ > 0 of cₖᴺ / (N Π_{j ≠ k} (cₖ − cⱼ)), c = p − q (Hermite–Genocchi)."""
    exact = [Fraction(a) - Fraction(b) for a, b in zip(one, other, strict=True)]
    count = len(exact)
    total = sum(map(Fraction, other), Fraction(0)) / count
    for k, c in enumerate(exact):
        if c > 0:
            total += c**count / (count * math.prod(c - d for j, d in enumerate(exact) if j != k))
    return float(total)


@pytest.mark.parametrize("count", [3, 4, 6])
def test_the_stated_error_is_the_error(count: int) -> None:
    """60 pairs of points with a known integral: the error exceeds three of its standard errors in few."""
    rng = random.Random(count)
    beyond = 0
    for _ in range(60):
        one, other = ([rng.gauss(0, 1) for _ in range(count)] for _ in range(2))
        found = expected_reward([tuple(one), tuple(other)])
        beyond += abs(found.value - two_points(one, other)) > 3 * found.error + 1e-12
        assert found.error < 1e-4
    assert beyond <= 3


@pytest.mark.parametrize("count", [2, 3, 5])
def test_random_preferences_agree(count: int) -> None:
    """Half a million preferences drawn from Dirichlet(1, …, 1) by numpy, within five standard errors."""
    rng = np.random.default_rng(count)
    points = rng.normal(0, 1, (30, count))
    best = (rng.dirichlet(np.ones(count), 500_000) @ points.T).max(axis=1)

    found = expected_reward([tuple(row) for row in points.tolist()])

    assert abs(found.value - best.mean()) <= 5 * math.hypot(found.error, best.std() / math.sqrt(len(best)))


# --- any number of rewards


def close(one: float, other: float) -> bool:
    """Equal up to rounding, for values up to 100."""
    return abs(one - other) <= 1e-12


@given(CLOUDS, st.randoms())
def test_order_duplicates_and_dominated_points_do_not_matter(points: Points, order: random.Random) -> None:
    """E is a function of the front."""
    shuffled = [*points, *points[:3]]
    order.shuffle(shuffled)
    worse = [tuple(value - 1 for value in point) for point in points]
    found = expected_reward(points)

    other = expected_reward([*shuffled, *worse])

    assert close(found.value, other.value)
    assert close(found.error, other.error)


@given(CLOUDS, st.data())
def test_a_point_more_never_lowers_it(points: Points, data: st.DataObject) -> None:
    """E(P ∪ {p}) ≥ E(P), the error of integration notwithstanding; at least the best mean of a point, at most the mean of the best values."""
    extra = data.draw(st.tuples(*[VALUE] * len(points[0])))
    found = expected_reward(points).value

    assert expected_reward([*points, tuple(1e-5 * value for value in points[0][::-1])]).value >= found - 1e-12
    assert expected_reward([*points, extra]).value >= found - 1e-12
    assert found >= max(math.fsum(point) / len(point) for point in points) - 1e-12
    assert found <= math.fsum(map(max, zip(*points, strict=True))) / len(points[0]) + 1e-12


@given(CLOUDS, st.sampled_from([0.25, 1.0, 3.0, 1e100, 1e-100]), st.floats(-5, 5))
def test_units_and_origins_are_carried_through(points: Points, factor: float, origin: float) -> None:
    """E(aP + b) = aE(P) + mean(b), b of one reward being `origin`."""
    found = expected_reward(points)

    scaled = expected_reward([tuple(factor * value for value in point) for point in points])
    moved = expected_reward([(point[0] + origin, *point[1:]) for point in points])

    assert scaled.value == pytest.approx(factor * found.value, rel=1e-12, abs=factor * 1e-12)
    assert close(moved.value, found.value + origin / len(points[0]))


@given(CLOUDS)
def test_one_point_and_equal_points_have_no_error(points: Points) -> None:
    """E = the mean of the values, exactly integrated."""
    found = expected_reward([points[0]] * 3)

    assert found.error == 0
    assert close(found.value, math.fsum(points[0]) / len(points[0]))


@given(CLOUDS)
def test_rotated_rewards_have_the_same_value(points: Points) -> None:
    """The rewards named in another cyclic order: no difference but by rounding."""
    assert close(expected_reward(points).value, expected_reward([(*p[1:], p[0]) for p in points]).value)


def test_the_same_points_have_the_same_value() -> None:
    """Deterministic to the last bit."""
    points = [(0.1, 0.5, 0.9), (0.9, 0.2, 0.3), (0.4, 0.8, 0.1)]

    assert expected_reward(points) == expected_reward(points)


# --- maximum utility loss


def lost(points: Points, reference: Points, mu: Sequence[float]) -> float:
    """u_reference(μ) − u(μ)."""
    best = [
        max(math.fsum(m * x for m, x in zip(mu, p, strict=True)) for p in some)
        for some in (reference, points)
    ]
    return best[0] - best[1]


@given(PAIRS, PAIRS)
def test_the_loss_of_two_rewards_is_the_largest_of_all_preferences(points: Points, reference: Points) -> None:
    """No μ of a fine grid loses more, and the μ named loses exactly that."""
    found = utility_loss(points, reference)
    grid = utilities(reference, FINE).max(axis=1) - utilities(points, FINE).max(axis=1)

    assert found.exact
    assert grid.max() - 1e-12 <= found.value <= grid.max() + 40 * (FINE[1] - FINE[0])
    assert lost(points, reference, found.preference) == pytest.approx(found.value, abs=1e-12)
    assert sum(found.preference) == pytest.approx(1)


@given(PAIRS, PAIRS, PAIRS)
def test_losses_add_up(one: Points, two: Points, three: Points) -> None:
    """MUL(P, P) = 0, MUL(P ∪ Q, P) ≤ 0 and MUL(P, R) ≤ MUL(P, Q) + MUL(Q, R)."""
    assert utility_loss(one, one).value == 0
    assert utility_loss([*one, *two], one).value <= 0
    direct = utility_loss(one, three).value
    assert direct <= utility_loss(one, two).value + utility_loss(two, three).value + 1e-12


def program(points: Points, reference: Points) -> float:
    """MUL by linear programs: per r maximise r·μ − u over μ on the simplex and u ≥ p·μ for all p."""
    array, count = np.array(points), len(points[0])
    bounds = [(0, 1)] * count + [(None, None)]
    above = np.hstack([array, -np.ones((len(array), 1))])
    on = np.array([[1.0] * count + [0.0]])
    found = [
        linprog(
            -np.array([*r, -1.0]), A_ub=above, b_ub=np.zeros(len(array)), A_eq=on, b_eq=[1], bounds=bounds
        )
        for r in reference
    ]
    return max(-float(one.fun) for one in found)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_loss_is_the_linear_programs(count: int) -> None:
    """Exact for two rewards, a lower bound beyond, attained and within a few hundredths of the range."""
    rng = np.random.default_rng(count)
    for _ in range(8):
        points, reference = ([tuple(row) for row in rng.random((6, count)).tolist()] for _ in range(2))
        found, truth = utility_loss(points, reference), program(points, reference)

        assert found.exact == (count == 2)
        assert truth - (1e-9 if count == 2 else 0.03) <= found.value <= truth + 1e-9
        assert lost(points, reference, found.preference) == pytest.approx(found.value, abs=1e-12)


def test_the_corners_of_the_simplex_are_tried() -> None:
    """A loss for who wants one reward only is found exactly."""
    for k in range(4):
        corner = tuple(float(i == k) for i in range(4))
        found = utility_loss([(0.0, 0.0, 0.0, 0.0)], [corner])

        assert (found.value, found.preference) == (1, corner)


def test_of_equal_losses_the_first_preference_is_named() -> None:
    """The smallest μ, at which the second reward counts least."""
    assert utility_loss([(0.0, 0.0)], [(1.0, 1.0)]).preference == (1, 0)


def test_the_loss_of_one_reward_is_a_difference() -> None:
    """max R_reference − max R, below 0 where the points are better."""
    assert utility_loss([(1.0,), (3.0,)], [(2.0,), (0.0,)]).value == -1


# --- λ = μ̂


def segment(shares: Sequence[Fraction]) -> list[Mix]:
    """(1 − λ, λ)."""
    return [(1 - share, share) for share in shares]


def lattice(count: int, steps: int) -> list[Mix]:
    """Every λ of multiples of 1/steps."""
    every = itertools.product(range(steps + 1), repeat=count)
    return [tuple(Fraction(part, steps) for part in parts) for parts in every if sum(parts) == steps]


@given(
    st.dictionaries(st.fractions(0, 1, max_denominator=50), st.tuples(VALUE, VALUE), max_size=8),
    st.tuples(VALUE, VALUE), st.tuples(VALUE, VALUE),
)  # fmt: skip
def test_taking_the_preference_as_lambda_is_integrated_exactly(
    inner: dict[Fraction, tuple[float, float]], first: tuple[float, float], last: tuple[float, float]
) -> None:
    """Gauss–Legendre of order 2 on every stretch of numpy's interpolation; never above the best λ per preference."""
    nodes = {**inner, Fraction(0): first, Fraction(1): last}
    shares = sorted(nodes)
    ends = np.array([float(share) for share in shares])
    half = np.diff(ends) / 2
    middle = (ends[1:] + ends[:-1]) / 2
    rewards = np.array([nodes[share] for share in shares])
    total = 0.0
    for x in (-1 / math.sqrt(3), 1 / math.sqrt(3)):
        mu = middle + half * x
        total += float(
            half @ ((1 - mu) * np.interp(mu, ends, rewards[:, 0]) + mu * np.interp(mu, ends, rewards[:, 1]))
        )

    found = identity_reward(segment(list(nodes)), list(nodes.values()))

    assert found.value is not None
    assert found.value == pytest.approx(total, abs=1e-12)
    assert found.value <= expected_reward(list(nodes.values())).value + 1e-12


def test_on_straight_rewards_lambda_as_the_preference_is_worth_two_thirds() -> None:
    """∫ (1 − μ)² + μ² = ⅔, below the better expert's ¾: without a gain over the chord λ = μ̂ costs reward."""
    found = identity_reward(segment([Fraction(0), Fraction(1)]), [(1.0, 0.0), (0.0, 1.0)])

    assert found.value == pytest.approx(2 / 3, abs=1e-15)


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (2, 3), (3, 1), (3, 5), (4, 3), (5, 2), (6, 3)])
def test_linear_rewards_are_exact_on_every_lattice(count: int, steps: int) -> None:
    """Rₖ(λ) = aₖ + bₖ·λ: E Σ μₖRₖ(μ) = Σ aₖ/N + Σ bₖⱼ(1 + [k = j])/(N(N + 1))."""
    rng = np.random.default_rng(count)
    a, b = rng.normal(0, 1, count), rng.normal(0, 1, (count, count))
    mixes = lattice(count, steps)
    values = [tuple(a + b @ np.array(mix, dtype=float)) for mix in mixes]

    found = identity_reward(mixes, values)

    assert found.value == pytest.approx(
        a.mean() + (b * (1 + np.eye(count))).sum() / (count * (count + 1)), abs=1e-12
    )


def test_three_ingredients_are_interpolated_like_scipy() -> None:
    """Delaunay's triangles of the equilateral lattice are ours; Gauss's rule of degree 2 on each is exact."""
    steps = 4
    rng = np.random.default_rng(0)
    mixes = lattice(3, steps)
    values = rng.normal(0, 1, (len(mixes), 3))
    flat = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    between = LinearNDInterpolator(np.array(mixes, dtype=float) @ flat, values)
    # A lattice five times as fine has its small triangles within ours; edge midpoints integrate quadratics.
    fine = {tuple(mix) for mix in lattice(3, 5 * steps)}
    step = Fraction(1, 5 * steps)
    moves = [(0, 0, 0), (-1, 1, 0), (-1, 0, 1)], [(0, 0, 0), (-1, 1, 0), (0, 1, -1)]
    total, cells = 0.0, 0
    for start in sorted(fine):
        for shape in moves:
            corners = [tuple(x + step * m for x, m in zip(start, move, strict=True)) for move in shape]
            if all(corner in fine for corner in corners):
                cells += 1
                for one, other in itertools.combinations(np.array(corners, dtype=float), 2):
                    mu = (one + other) / 2
                    total += float(mu @ between(mu @ flat).reshape(3)) / 3

    found = identity_reward(mixes, values.tolist())

    assert cells == (5 * steps) ** 2
    assert found.value == pytest.approx(total / cells, abs=1e-9)


@pytest.mark.parametrize(("count", "steps"), [(3, 4), (4, 3), (5, 2)])
def test_the_names_of_the_ingredients_do_not_matter(count: int, steps: int) -> None:
    """Ingredients and rewards renamed together, and λ in another order, have the same value."""
    rng = np.random.default_rng(1)
    mixes = lattice(count, steps)
    values = rng.normal(0, 1, (len(mixes), count))
    found = identity_reward(mixes, values.tolist())
    assert found.value is not None
    assert found.value <= expected_reward(values.tolist()).value

    for order in itertools.islice(itertools.permutations(range(count)), 1, 24, 5):
        renamed = [tuple(mix[i] for i in order) for mix in mixes]
        other = identity_reward(renamed[::-1], values[::-1, order].tolist())

        assert other.value == pytest.approx(found.value, abs=1e-13)


def test_points_off_the_lattice_take_no_part_and_are_named() -> None:
    """The {3, 2} lattice with the centroid: the lattice's value, whatever is measured at the centroid."""
    mixes = [*lattice(3, 2), (Fraction(1, 3),) * 3]
    values = [tuple(map(float, mix)) for mix in mixes]

    found = identity_reward(mixes, [*values[:-1], (99.0, 99.0, 99.0)])

    assert found.value == pytest.approx(0.5)
    assert "1 other" in found.how


@pytest.mark.parametrize(
    ("mixes", "rewards", "why"),
    [
        ([], 2, "no point"),
        (lattice(2, 2), 3, "one reward per ingredient"),
        (lattice(2, 2)[1:], 2, "not every expert"),
        ([*lattice(3, 1), (Fraction(1, 3),) * 3], 3, "no full lattice"),
        (lattice(3, 60), 3, "too fine"),
    ],
)
def test_what_cannot_be_interpolated_has_a_reason_instead(mixes: list[Mix], rewards: int, why: str) -> None:
    """No value, and why not."""
    found = identity_reward(mixes, [(0.0,) * rewards] * len(mixes))

    assert found.value is None
    assert why in found.how


# --- limits


@pytest.mark.parametrize(
    "points", [[], [()], [(math.nan, 1.0)], [(math.inf, 1.0, 2.0)], [(1.0,), (1.0, 2.0)], [(1.7e308, 0.0)]]
)
def test_what_has_no_expectation_is_refused(points: Points) -> None:
    """No point, no reward, NaN, infinity, points of different length."""
    for function in (expected_reward, lambda some: utility_loss([(1.0, 2.0)], some), envelope):
        with pytest.raises(ValueError, match=r"finite|there must be"):
            function(points)


def test_an_envelope_and_a_loss_need_their_rewards() -> None:
    """An envelope of three rewards, a loss between two and three."""
    with pytest.raises(ValueError, match="two rewards"):
        envelope([(1.0, 2.0, 3.0)])
    with pytest.raises(ValueError, match="number of rewards"):
        utility_loss([(1.0, 2.0)], [(1.0, 2.0, 3.0)])


@pytest.mark.parametrize(
    ("mixes", "values"),
    [
        (lattice(2, 1), [(0.0, 1.0)]),
        ([*lattice(2, 1), lattice(2, 1)[0]], [(0.0, 1.0)] * 3),
        ([(Fraction(1), Fraction(1))], [(0.0, 1.0)]),
        ([(Fraction(2), Fraction(-1))], [(0.0, 1.0)]),
        (lattice(2, 1), [(0.0, 1.0), (0.0,)]),
        ([*lattice(2, 1), *lattice(3, 1)], [(0.0, 1.0)] * 5),
        (lattice(2, 1), [(0.0, 1.0), (math.nan, 0.0)]),
    ],
)
def test_what_has_no_lambda_is_refused(mixes: list[Mix], values: Points) -> None:
    """A λ without values, twice, off the simplex; rows of different length; NaN."""
    with pytest.raises(ValueError, match=r"once|simplex|length|finite"):
        identity_reward(mixes, values)


def test_extreme_values_do_not_overflow() -> None:
    """1e300 beside 1e-300, and values that differ in the last bit."""
    huge: Points = [(1e300, -1e300), (-1e300, 1e300), (1e-300, 1e-300)]
    near: Points = [(1.0, 1.0), (1.0 + 2**-52, 1.0 - 2**-53), (1.0 - 2**-53, 1.0 + 2**-52)]

    assert expected_reward(huge).value == pytest.approx(5e299)
    assert utility_loss([(-1e300, -1e300)], huge).value == pytest.approx(2e300)
    assert expected_reward([(*point, point[0]) for point in huge]).value < 1e300
    assert utility_loss([(-1e300,) * 3], [(1e300,) * 3]).value == pytest.approx(2e300)
    assert [interval.index for interval in envelope(near)] == [1, 2]
    assert expected_reward([(0.0, 0.0, 0.0)]).value == 0


def test_thousands_of_points_are_fast() -> None:
    """5000 of two rewards, each best somewhere, and 3000 of eight: seconds of one core at most."""
    rng = random.Random(0)
    many = [tuple(rng.random() for _ in range(8)) for _ in range(3000)]
    start = time.process_time()

    assert len(expected_reward(CIRCLE).intervals) == len(CIRCLE)
    assert utility_loss(CIRCLE[::50], CIRCLE).value > 0
    assert expected_reward(many).error < 1e-4

    assert time.process_time() - start < 30
