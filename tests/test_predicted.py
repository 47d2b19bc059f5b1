"""The predicted optimum and front: closed forms, dense lattices and the definition of dominance as oracles."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.front.predicted import FINEST, Predicted, maximiser, predicted_front, rounded
from rsoup.front.surrogate import Surrogate, fit
from rsoup.front.theory import choose, deltas

Mix = tuple[Fraction, ...]


def lattice(size: int, steps: int) -> list[Mix]:
    """Every λ of `size` shares that are multiples of 1/steps."""
    return [
        tuple(Fraction(k, steps) for k in counts)
        for counts in product(range(steps + 1), repeat=size)
        if sum(counts) == steps
    ]


def made(linear: np.ndarray, mixed: np.ndarray, errors: float | None = None) -> Surrogate:
    """The surrogate with these coefficients, one row per reward, fitted to its own values."""
    size = linear.shape[1]
    mixes = lattice(size, 2)
    pairs = list(combinations(range(size), 2))
    rows = np.array([[*map(float, m), *(float(m[i] * m[j]) for i, j in pairs)] for m in mixes])
    values = rows @ np.hstack([linear, mixed]).T
    told = None if errors is None else np.full(values.shape, errors).tolist()
    found = fit(mixes, values.tolist(), told)
    assert found is not None
    return found


def random_surrogate(size: int, rewards: int, seed: int, lift: float = 0.0) -> Surrogate:
    """Coefficients of any sign: concave, hollow and saddle-shaped surfaces; `lift` makes them more concave."""
    generator = np.random.default_rng(seed)
    pairs = size * (size - 1) // 2
    mixed = generator.normal(size=(rewards, pairs)) * generator.choice([0.1, 1, 5]) + lift
    return made(generator.normal(size=(rewards, size)), mixed)


def utility(surrogate: Surrogate, mix: tuple[Fraction, ...], weights: list[float], up: list[bool]) -> float:
    """Σ ±wₖR̂ₖ(λ)."""
    terms = zip(weights, surrogate.predict(mix), up, strict=True)
    return math.fsum(w * v if maximised else -w * v for w, v, maximised in terms)


@given(st.tuples(*[st.floats(-10, 10)] * 3))
def test_for_two_it_is_the_vertex_of_a_parabola(coefficients: tuple[float, float, float]) -> None:
    """λ₁ = ½ + (β₁ − β₂)/(2β₁₂), if that is inside and β₁₂ > 0; the better end otherwise."""
    first, second, both = coefficients
    surrogate = made(np.array([[first, second]]), np.array([[both]]))
    (a,), (b,), (c,) = surrogate.linear[0][:1], surrogate.linear[0][1:], surrogate.mixed[0]
    vertex = 0.5 + (a - b) / (2 * c) if c > 0 else -1.0
    highest = max(a, b)
    if 0 < vertex < 1:
        highest = max(highest, vertex * a + (1 - vertex) * b + c * vertex * (1 - vertex))

    found = maximiser(surrogate, [2.0], [True])

    assert found.utility == pytest.approx(2 * highest, abs=1e-9)
    if 1e-6 < vertex < 1 - 1e-6 and c > 1e-3:
        assert found.exact[0] == pytest.approx(vertex, abs=1e-6)
        assert abs(float(found.point.mix[0]) - found.exact[0]) < 1e-3


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6), st.sampled_from([0.0, 2.0]), st.data())
def test_nothing_on_a_dense_lattice_is_higher(
    size: int, rewards: int, seed: int, lift: float, data: st.DataObject
) -> None:
    """Of any quadratic, concave or not: no λ beats the maximum, and some comes as near as the lattice allows."""
    surrogate = random_surrogate(size, rewards, seed, lift)
    up = data.draw(st.lists(st.booleans(), min_size=rewards, max_size=rewards))
    weights = data.draw(st.lists(st.floats(0.1, 3), min_size=rewards, max_size=rewards))
    steps = {1: 1, 2: 400, 3: 40, 4: 16}[size]

    found = maximiser(surrogate, weights, up)

    values = [utility(surrogate, mix, weights, up) for mix in lattice(size, steps)]
    scale = sum(weights) * max(
        abs(np.array(surrogate.linear)).max(), abs(np.array(surrogate.mixed)).max(initial=0)
    )
    assert max(values) <= found.utility + 1e-9 * scale
    assert found.utility <= max(values) + 2 * size**2 / steps**2 * scale + 1e-9 * scale
    at = tuple(map(Fraction, found.exact))
    assert utility(surrogate, at, weights, up) == pytest.approx(found.utility, abs=1e-9 * scale)
    assert utility(surrogate, found.point.mix, weights, up) == pytest.approx(found.utility, abs=0.01 * scale)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 8), st.integers(0, 10**6))
def test_an_optimum_inside_a_face_is_found_exactly(size: int, seed: int) -> None:
    """−‖Θλ − Θλ*‖² has its maximum 0 at λ*, wherever on the simplex that is."""
    generator = np.random.default_rng(seed)
    thetas = generator.normal(size=(size, size + 2))
    wanted = generator.dirichlet(np.ones(size)) * (generator.uniform(size=size) < 0.7)
    wanted = wanted / wanted.sum() if wanted.any() else np.eye(size)[0]
    target = wanted @ thetas
    squares = ((thetas - target) ** 2).sum(axis=1)
    pairs = list(combinations(range(size), 2))
    # −‖Σλ(θᵢ − t)‖² = −Σλᵢ‖θᵢ − t‖² + Σλᵢλⱼ‖θᵢ − θⱼ‖²
    surrogate = made(-squares[None], np.array([[((thetas[i] - thetas[j]) ** 2).sum() for i, j in pairs]]))

    found = maximiser(surrogate, [1.0], [True])

    assert found.exact == pytest.approx(wanted.tolist(), abs=1e-6)
    assert found.utility == pytest.approx(0, abs=1e-9)


@given(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0.05, 0.95))
def test_in_a_quadratic_world_it_is_the_choice_of_two_evaluations(
    first: float, second: float, mu: float
) -> None:
    """From three evaluations of experts at their optimum: λ*, which two of them give already."""
    one, two = (3.0, 1.0), (3.0 - first, 1.0 + second)
    half = (3.0 - first / 4, 1.0 + second * 3 / 4)
    ends = [(Fraction(1), Fraction(0)), (Fraction(0), Fraction(1)), (Fraction(1, 2), Fraction(1, 2))]
    surrogate = fit(ends, [one, two, half])
    assert surrogate is not None

    found = maximiser(surrogate, [1 - mu, mu], [True, True])

    assert found.exact == pytest.approx(choose(deltas(one, two, (True, True)), (1 - mu, mu)).mix, abs=1e-6)


def test_ties_go_to_the_fewest_ingredients_then_the_first() -> None:
    """A flat surface and a flat edge have their maximum at a vertex; two equal vertices, at the first."""
    flat = made(np.zeros((1, 3)), np.zeros((1, 3)))
    edge = made(np.array([[0.0, 1.0, 1.0]]), np.array([[0.0, 0.0, -1.0]]))

    assert maximiser(flat, [1.0], [True]).exact == (1, 0, 0)
    assert maximiser(edge, [1.0], [True]).exact == (0, 1, 0)
    assert maximiser(edge, [1.0], [False]).exact == (1, 0, 0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 10**6), st.data())
def test_the_predicted_front_is_a_front(size: int, rewards: int, seed: int, data: st.DataObject) -> None:
    """No λ of it dominates another, none on the simplex dominates any by much; sorted, exact, predicted as said."""
    surrogate = random_surrogate(size, rewards, seed)
    up = data.draw(st.lists(st.booleans(), min_size=rewards, max_size=rewards))
    signs = np.array([1 if u else -1 for u in up])

    found = predicted_front(surrogate, up)

    gains = np.array([point.values for point in found]) * signs
    spread = np.ptp(gains, axis=0).max() + 1e-12
    for i in range(len(found)):
        better = (gains >= gains[i]).all(axis=1) & (gains > gains[i] + 1e-6 * spread).any(axis=1)
        assert not better.any()
    assert [p.mix for p in found] == sorted({p.mix for p in found})
    assert all(sum(p.mix) == 1 and min(p.mix) >= 0 for p in found)
    assert all(p.values == pytest.approx(surrogate.predict(p.mix), abs=1e-9) for p in found)
    others = np.array([surrogate.predict(mix) for mix in lattice(size, 6)]) * signs
    least = np.array([(gains - other).min(axis=1).max() for other in others])
    assert (least > -0.05 * max(1.0, np.ptp(others))).all()


@pytest.mark.parametrize("both", [2.0, 0.0, -1.5])
def test_the_front_of_two_is_all_of_it_hollow_or_not(both: float) -> None:
    """Two experts, R̂ₖ = λₖ + β·λ₁λ₂: bulging, straight or hollow, everything between the experts' own optima is there."""
    surrogate = made(np.eye(2), np.array([[both], [both]]))
    # R₁ rises with λ₁ up to its vertex, R₂ with λ₂: between both vertices (or ends) nothing is dominated.
    low, high = (0.25, 0.75) if both == 2.0 else (0.0, 1.0)
    if both == -1.5:  # R₁ falls first, R₂ last: beyond 1/6 and 5/6 the ends dominate
        low, high = 1 / 3, 2 / 3

    shares = [float(point.mix[0]) for point in predicted_front(surrogate, [True, True])]

    inner = [k / 100 for k in range(101) if low <= k / 100 <= high]
    assert set(inner) <= set(shares)
    assert {0.0, 1.0} <= set(shares) if both <= 0 else (min(shares), max(shares)) == (0.25, 0.75)


def test_what_is_predicted_says_so() -> None:
    """A type of its own with standard errors, unknown ones as None; the vertices' are those of the evaluations."""
    known = made(np.eye(2), np.array([[1.0], [1.0]]), errors=0.1)
    unknown = made(np.eye(2), np.array([[1.0], [1.0]]))

    assert all(
        isinstance(p, Predicted) and p.kind == "predicted" for p in predicted_front(known, [True, True])
    )
    assert maximiser(known, [1.0, 0.0], [True, True]).point == Predicted(
        (Fraction(1), Fraction(0)), (1.0, 0.0), (pytest.approx(0.1), pytest.approx(0.1))
    )
    assert maximiser(unknown, [1.0, 0.0], [True, True]).point.errors == (None, None)
    mix = (Fraction(3, 10), Fraction(7, 10))
    found = next(p for p in predicted_front(known, [True, True]) if p.mix == mix)
    assert found.errors == pytest.approx(known.predicted_errors(mix))


def test_directions_and_units_of_rewards_do_not_matter() -> None:
    """A reward turned to be minimised, and one in thousandths: the same λ."""
    generator = np.random.default_rng(5)
    linear, mixed = generator.normal(size=(2, 3)), generator.normal(size=(2, 3)) + 2
    scale = np.array([[-1.0], [1024.0]])

    plain = predicted_front(made(linear, mixed), [True, True])
    turned = predicted_front(made(linear * scale, mixed * scale), [False, True])

    assert len(plain) > 20
    assert [p.mix for p in plain] == [p.mix for p in turned]


@given(st.integers(1, 9), st.integers(0, 10**6), st.sampled_from([1, 7, 100, 1000, FINEST]))
def test_rounded_shares_sum_to_one(size: int, seed: int, denominator: int) -> None:
    """Multiples of 1/denominator, each within it, sum 1; what is one already stays."""
    shares = np.random.default_rng(seed).dirichlet(np.ones(size)).tolist()

    found = rounded(shares, denominator)

    assert sum(found) == 1
    assert all(denominator % value.denominator == 0 and value >= 0 for value in found)
    assert all(
        abs(float(value) - share) < 1 / denominator + 1e-12
        for value, share in zip(found, shares, strict=True)
    )
    assert rounded([float(value) for value in found], denominator) == found


def test_rounding_by_hand() -> None:
    """The largest remainders go up, the first of equals."""
    assert rounded([1 / 3, 1 / 3, 1 / 3], 100) == (Fraction(34, 100), Fraction(33, 100), Fraction(33, 100))
    assert rounded([0.1 + 0.2, 0.7]) == (Fraction(3, 10), Fraction(7, 10))
    assert rounded([0.155, 0.845, 0.0], 10) == (Fraction(2, 10), Fraction(8, 10), Fraction(0))


def test_what_cannot_be_maximised_is_refused() -> None:
    """Weights and directions that are not one per reward, or are none; shares and denominators that are none."""
    surrogate = made(np.eye(2), np.zeros((2, 1)))
    large = made(np.zeros((1, 13)), np.zeros((1, 78)))
    for call in (
        lambda: maximiser(surrogate, [1.0], [True, True]),
        lambda: maximiser(surrogate, [0.0, 0.0], [True, True]),
        lambda: maximiser(surrogate, [1.0, -1.0], [True, True]),
        lambda: maximiser(surrogate, [1.0, math.nan], [True, True]),
        lambda: maximiser(surrogate, [1.0, 1.0], [True]),
        lambda: maximiser(surrogate, [1.0, 1.0], [True, True], denominator=0),
        lambda: predicted_front(surrogate, [True]),
        lambda: predicted_front(large, [True]),
        lambda: rounded([0.5, 0.4]),
        lambda: rounded([1.5, -0.5]),
        lambda: rounded([1.0], FINEST + 1),
    ):
        with pytest.raises(ValueError, match=r"weight|direction|denominator|shares|ingredients"):
            call()


def test_eight_ingredients_and_eight_rewards_take_no_time() -> None:
    """255 faces for 330 preferences, and the front of all candidates, in five seconds of one core."""
    surrogate = random_surrogate(8, 8, 1, lift=2.0)
    began = time.process_time()

    assert len(predicted_front(surrogate, [True] * 8)) > 300
    assert time.process_time() - began < 5
