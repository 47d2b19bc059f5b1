"""The surrogate and the λ it proposes: exact on quadratics, deterministic, on the simplex, never worse than a grid."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.front.pareto import hypervolume
from rsoup.front.refine import FINEST, added, neighbours, propose
from rsoup.front.surrogate import fit

Mix = tuple[Fraction, ...]


def lattice(size: int, steps: int) -> list[Mix]:
    """Every λ of `size` shares that are multiples of 1/steps."""
    return [
        tuple(Fraction(k, steps) for k in counts)
        for counts in product(range(steps + 1), repeat=size)
        if sum(counts) == steps
    ]


def quadratic(size: int, seed: int) -> Callable[[Mix], tuple[float, float]]:
    """Two random quadratics on the simplex, with constant and linear terms."""
    generator = np.random.default_rng(seed)
    a, b, c = (
        generator.normal(size=(2, size, size)),
        generator.normal(size=(2, size)),
        generator.normal(size=2),
    )

    def value(mix: Mix) -> tuple[float, float]:
        x = np.array([float(v) for v in mix])
        return tuple(float(x @ a[k] @ x + b[k] @ x + c[k]) for k in (0, 1))  # type: ignore[return-value]

    return value


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6))
def test_the_surrogate_is_exact_for_every_quadratic(size: int, seed: int) -> None:
    """From the {N,2} design (closed form) and from a finer lattice (least squares), with or without weights."""
    value = quadratic(size, seed)
    few, many = lattice(size, 2), lattice(size, 3)
    unseen = [*lattice(size, 5), tuple([Fraction(1, size)] * size)]
    errors = [[0.1 + i % 3, 1.0] for i in range(len(many))]
    fits = [fit(few, [value(m) for m in few]), fit(many, [value(m) for m in many])]
    fits.append(fit(many, [value(m) for m in many], errors))

    for found in fits:
        assert found is not None
        assert found.coefficients == size * (size + 1) // 2
        for mix in unseen:
            assert found.predict(mix) == pytest.approx(value(mix), abs=1e-9)


def test_least_squares_equal_the_closed_form_on_the_design() -> None:
    """The {N,2} design measured twice is no {N,2} design to the program, and has the same coefficients."""
    mixes = lattice(3, 2)
    values = [(float(i * i % 7), float(i)) for i in range(len(mixes))]
    closed, squares = fit(mixes, values), fit(mixes * 2, values * 2)

    assert closed is not None
    assert squares is not None
    assert np.allclose(closed.linear, squares.linear)
    assert np.allclose(closed.mixed, squares.mixed)
    assert (closed.residual, closed.leave_one_out) == ((None, None), (None, None))
    assert squares.residual == pytest.approx((0.0, 0.0), abs=1e-9)


def test_residual_and_leave_one_out_are_what_they_say() -> None:
    """Against fits without the point, one by one; in numpy's own least squares."""
    mixes = lattice(2, 5)
    values = [(math.exp(3 * float(m[0])),) for m in mixes]
    found = fit(mixes, values)
    assert found is not None

    misses = [v[0] - found.predict(m)[0] for m, v in zip(mixes, values, strict=True)]
    left_out = []
    for i, mix in enumerate(mixes):
        other = fit([m for m in mixes if m != mix], [v for k, v in enumerate(values) if k != i])
        assert other is not None
        left_out.append(values[i][0] - other.predict(mix)[0])

    assert found.residual[0] == pytest.approx(math.sqrt(math.fsum(m * m for m in misses) / 3))
    assert found.leave_one_out[0] == pytest.approx(math.sqrt(math.fsum(m * m for m in left_out) / 6))


def test_errors_weigh() -> None:
    """A point with a small error is met more closely; a missing error or one of 0 turns weights off."""
    mixes = lattice(2, 4)
    values = [(0.0,), (0.0,), (1.0,), (0.0,), (0.0,)]
    sure = [(1.0,), (1.0,), (1e-3,), (1.0,), (1.0,)]
    weighted, plain = fit(mixes, values, sure), fit(mixes, values)
    unknown = fit(mixes, values, [(1.0,), (None,), (1e-3,), (1.0,), (1.0,)])
    exact = fit(mixes, values, [(1.0,), (0.0,), (1e-3,), (1.0,), (1.0,)])

    assert weighted is not None
    assert plain is not None
    assert weighted.predict(mixes[2])[0] == pytest.approx(1.0, abs=1e-3)
    assert plain.predict(mixes[2])[0] < 0.9
    assert (weighted.weighted, plain.weighted) == ((True,), (False,))
    assert unknown == exact == plain


def test_what_does_not_determine_the_surrogate_gives_none() -> None:
    """Too few λ, enough of them on one edge, none at all."""
    edge = [(Fraction(k, 6), 1 - Fraction(k, 6), Fraction(0)) for k in range(7)]

    assert fit([], []) is None
    assert fit(lattice(2, 1), [(0.0,), (1.0,)]) is None
    assert fit(edge, [(1.0,)] * 7) is None


@pytest.mark.parametrize(
    ("mixes", "values", "errors"),
    [
        ([(Fraction(1),)], [], None),
        ([(Fraction(1),)], [(1.0,)], []),
        ([(Fraction(1),)], [(1.0,)], [(1.0, 2.0)]),
        ([(Fraction(1),)], [(math.nan,)], None),
        ([(Fraction(1, 2), Fraction(1, 3))], [(1.0,)], None),
        ([(Fraction(3, 2), Fraction(-1, 2))], [(1.0,)], None),
        ([(Fraction(1),), (Fraction(1), Fraction(0))], [(1.0,), (1.0,)], None),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    mixes: list[Mix], values: list[tuple[float]], errors: list[tuple[float]]
) -> None:
    """Shapes that differ, λ off the simplex, values that are not finite; and a λ of another size to predict."""
    with pytest.raises(ValueError, match=r"λ|row|finite"):
        fit(mixes, values, errors)
    found = fit([(Fraction(1),)], [(1.0,)])
    assert found is not None
    with pytest.raises(ValueError, match="2 for 1"):
        found.predict((Fraction(1), Fraction(0)))


@pytest.mark.parametrize(("size", "steps"), [(2, 10), (3, 4), (4, 3)])
def test_on_a_grid_the_candidates_are_the_grid_twice_as_fine(size: int, steps: int) -> None:
    """The midpoints of neighbours are the points of the finer lattice that are not measured, all of them."""
    grid = lattice(size, steps)

    middles = {tuple((a + b) / 2 for a, b in zip(grid[i], grid[j], strict=True)) for i, j in neighbours(grid)}

    assert middles == set(lattice(size, 2 * steps)) - set(grid)


FRONTS: dict[str, Callable[[float], tuple[float, float]]] = {
    "round": lambda t: (math.sin(t * math.pi / 2), math.cos(t * math.pi / 2)),
    "bent late": lambda t: (t**4, 1 - t**8),
    "elbow": lambda t: (min(1.0, 4 * t), min(1.0, 4 * (1 - t) / 3)),
    "logistic": lambda t: (1 / (1 + math.exp(-20 * (t - 0.8))), 1 - t**6),
    "hollow": lambda t: (t * t, (1 - t) ** 2),
}


@pytest.mark.parametrize("name", FRONTS)
def test_refined_is_at_least_as_good_as_a_grid(name: str) -> None:
    """From 5 values to 9: the same number of points as the grid of 9, at least its hypervolume."""
    curve = FRONTS[name]

    def values(mixes: list[Mix]) -> list[tuple[float, float]]:
        return [curve(float(mix[1])) for mix in mixes]

    mixes = lattice(2, 4)
    for _ in range(4):
        mixes += propose(mixes, values(mixes), (True, True), 1)
    refined = hypervolume(values(mixes), (True, True), (0.0, 0.0))
    grid = hypervolume(values(lattice(2, 8)), (True, True), (0.0, 0.0))

    assert len(mixes) == 9
    assert refined >= grid - 1e-9


def test_it_measures_where_the_front_bends() -> None:
    """A front that is flat up to λ = 0.7 and bends after it gets its points there."""
    grid = lattice(2, 10)
    values = [FRONTS["logistic"](float(mix[1])) for mix in grid]

    found = propose(grid, values, (True, True), 4)

    assert all(mix[1] > Fraction(3, 5) for mix in found)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 4), st.integers(1, 3), st.integers(0, 10**6), st.booleans(), st.integers(1, 6))
def test_laws_of_a_proposal(size: int, steps: int, seed: int, up: bool, count: int) -> None:
    """Exact, on the simplex, new, no twice, deterministic, whatever the order; minimising mirrors maximising."""
    grid = lattice(size, steps)
    shuffler = random.Random(seed)
    values = [tuple(shuffler.choice([0.0, 0.25, 1.0, shuffler.random()]) for _ in range(2)) for _ in grid]
    tried = [tuple(Fraction(1, 2) if k in (0, 1) else Fraction(0) for k in range(size))]
    order = list(range(len(grid)))
    shuffler.shuffle(order)
    mirrored = [(x, -y) for x, y in values]

    found = propose(grid, values, (True, up), count, tried=tried)

    assert all(sum(mix) == 1 and min(mix) >= 0 for mix in found)
    assert len(set(found)) == len(found) <= count
    assert not set(found) & {*grid, *tried}
    assert found == propose(
        [grid[i] for i in order], [values[i] for i in order], (True, up), count, tried=tried
    )
    assert found == propose(grid, mirrored, (True, not up), count, tried=tried)


def test_ties_go_to_the_smaller_denominator_then_in_order() -> None:
    """A symmetric front has no best side: the first λ of the two is taken, every time."""
    mixes = lattice(2, 2)

    assert propose(mixes, [(0.0, 1.0), (0.8, 0.8), (1.0, 0.0)], (True, True), 1) == [
        (Fraction(1, 4), Fraction(3, 4))
    ]


def test_without_a_surrogate_the_widest_gap_is_split() -> None:
    """Two points determine no quadratic; nor do three on one edge of a triangle."""
    zero = Fraction(0)
    edge = [(Fraction(1), zero, zero), (Fraction(1, 4), Fraction(3, 4), zero), (zero, Fraction(1), zero)]

    assert propose(lattice(2, 1), [(0.0, 1.0), (1.0, 0.0)], (True, True), 1) == [
        (Fraction(1, 2), Fraction(1, 2))
    ]
    assert propose(edge, [(0.0, 1.0), (0.1, 0.9), (1.0, 0.0)], (True, True), 1) == [
        (Fraction(1, 8), Fraction(7, 8), zero)
    ]


def test_without_any_gain_the_gap_is_split_too() -> None:
    """All values equal: nothing is promised, and there is still a next λ."""
    assert len(propose(lattice(2, 4), [(1.0, 1.0)] * 5, (True, True), 3)) == 3


def test_nothing_left_gives_fewer() -> None:
    """Neighbours nearer than FINEST are not split; one ingredient, no points and no count give nothing."""
    near = [(Fraction(1, 2), Fraction(1, 2)), (Fraction(1, 2) - FINEST / 2, Fraction(1, 2) + FINEST / 2)]

    assert propose(near, [(0.0, 1.0), (1.0, 0.0)], (True, True), 3) == []
    assert propose([(Fraction(1),)], [(1.0,)], (True,), 3) == []
    assert propose([], [], (True,), 3) == []
    assert propose(lattice(2, 1), [(0.0, 1.0), (1.0, 0.0)], (True, True), 0) == []


def test_a_mix_beyond_the_simplex_takes_part_in_the_front_only() -> None:
    """What it dominates is not proposed around, and nothing is proposed beside it."""
    grid = lattice(2, 4)
    values = [FRONTS["round"](float(mix[1])) for mix in grid]
    beyond = (Fraction(-1), Fraction(2))

    found = propose([*grid, beyond], [*values, (2.0, 2.0)], (True, True), 3)

    assert len(found) == 3
    assert all(min(mix) >= 0 for mix in found)


def test_errors_take_part() -> None:
    """Standard errors reach the surrogate: a point nobody trusts does not bend it."""
    grid = lattice(2, 6)
    values = [FRONTS["round"](float(mix[1])) for mix in grid]
    values[2] = (values[2][0] - 0.4, values[2][1] - 0.4)
    trusted = [(9.0, 9.0) if i == 2 else (1e-3, 1e-3) for i in range(7)]

    found = propose(grid, values, (True, True), 6, errors=trusted)

    assert len(found) == 6
    assert found != propose(grid, values, (True, True), 6)


@pytest.mark.parametrize("values", [[(1.0,)], [(1.0,), (math.nan,)], [(1.0,), (1.0, 2.0)]])
def test_what_cannot_be_proposed_for_is_refused(values: list[tuple[float, ...]]) -> None:
    """Shapes that differ, values that are not finite, a λ given twice."""
    with pytest.raises(ValueError, match=r"row|finite|values for"):
        propose(lattice(2, 1), values, (True,), 1)
    with pytest.raises(ValueError, match="once"):
        propose([(Fraction(1),)] * 2, [(1.0,)] * 2, (True,), 1)


@given(
    st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=1, max_size=8),
    st.tuples(*[st.floats(0.01, 1)] * 3),
)
def test_what_a_point_adds(points: list[tuple[float, ...]], point: tuple[float, ...]) -> None:
    """HV(P ∪ {p}) − HV(P), which inclusion and exclusion over few points gives, too."""
    zero, up = (0.0,) * 3, (True,) * 3
    inclusive = hypervolume([*points, point], up, zero) - hypervolume(points, up, zero)

    def union(boxes: list[tuple[float, ...]]) -> float:
        every = (c for k in range(1, len(boxes) + 1) for c in combinations(boxes, k))
        return math.fsum(
            (-1) ** (len(c) + 1) * math.prod(map(min, *c) if len(c) > 1 else c[0]) for c in every
        )

    assert added(points, point) == pytest.approx(inclusive, abs=1e-9)
    assert added(points, point) == pytest.approx(union([*points, point]) - union(points), abs=1e-9)
    assert added(points, (0.0, 1.0, 1.0)) == 0.0
