"""What the surrogate does not know: standard errors, lack of fit, λ that determine nothing; numpy as the oracle."""

from __future__ import annotations

import math
import time
from fractions import Fraction
from itertools import combinations, permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.front.adequacy import lack_of_fit, undetermined
from rsoup.front.surrogate import fit

Mix = tuple[Fraction, ...]


def lattice(size: int, steps: int) -> list[Mix]:
    """Every λ of `size` shares that are multiples of 1/steps."""
    return [
        tuple(Fraction(k, steps) for k in counts)
        for counts in product(range(steps + 1), repeat=size)
        if sum(counts) == steps
    ]


def design(mixes: list[Mix]) -> np.ndarray:
    """Scheffé's columns, written down once more."""
    rows = []
    for mix in mixes:
        x = [float(v) for v in mix]
        rows.append([*x, *(x[i] * x[j] for i, j in combinations(range(len(x)), 2))])
    return np.array(rows)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 3), st.integers(0, 10**6))
def test_standard_errors_come_from_those_of_the_points(size: int, steps: int, seed: int) -> None:
    """The covariance is (XᵀWX)⁻¹, W = 1/error², in the closed form as by least squares; a prediction's is xᵀΣx."""
    generator = np.random.default_rng(seed)
    mixes = lattice(size, steps)
    errors = 10 ** generator.uniform(-3, 1, (len(mixes), 2))

    found = fit(mixes, generator.normal(size=(len(mixes), 2)).tolist(), errors.tolist())

    assert found is not None
    assert found.errors_from == ("errors", "errors")
    unseen = [*lattice(size, 4), tuple([Fraction(1, size)] * size)]
    for k in (0, 1):
        scaled = design(mixes) / errors[:, k, None]
        oracle = np.linalg.inv(scaled.T @ scaled)
        assert np.allclose(found.covariance[k], oracle, rtol=1e-6, atol=1e-9 * abs(oracle).max())
        assert found.coefficient_errors()[k] == pytest.approx(np.sqrt(np.diag(oracle)), rel=1e-6)
        for mix, row in zip(unseen, design(unseen), strict=True):
            wanted = math.sqrt(max(row @ oracle @ row, 0))
            assert found.predicted_errors(mix)[k] == pytest.approx(wanted, rel=1e-5, abs=1e-9)


def test_standard_errors_by_hand() -> None:
    """At a vertex that of its point; β₁₂ of errors 1, 2 and 3 has √(16·9 + 4·1 + 4·4); the midpoint has its own 3."""
    mixes = [(Fraction(1), Fraction(0)), (Fraction(0), Fraction(1)), (Fraction(1, 2), Fraction(1, 2))]
    found = fit(mixes, [(0.0,), (0.0,), (1.0,)], [(1.0,), (2.0,), (3.0,)])
    exact = fit(mixes, [(0.0,), (0.0,), (1.0,)], [(0.0,), (0.0,), (3.0,)])

    assert found is not None
    assert exact is not None
    assert found.coefficient_errors() == ((1.0, 2.0, pytest.approx(math.sqrt(164))),)
    assert [found.predicted_errors(mix)[0] for mix in mixes] == pytest.approx([1, 2, 3])
    assert [exact.predicted_errors(mix)[0] for mix in mixes] == pytest.approx([0, 0, 3])
    with pytest.raises(ValueError, match="3 for 2"):
        found.predicted_errors((Fraction(1), Fraction(0), Fraction(0)))


def test_three_other_points_have_no_closed_form_but_the_same_laws() -> None:
    """As many points as coefficients, none left over: each is met, errors are propagated, residuals unknown."""
    mixes = [(Fraction(k, 4), 1 - Fraction(k, 4)) for k in (0, 1, 4)]
    values, errors = [(1.0,), (3.0,), (2.0,)], [(0.1,), (0.2,), (0.3,)]

    found, plain = fit(mixes, values, errors), fit(mixes, values)

    assert found is not None
    assert plain is not None
    assert [found.predict(mix)[0] for mix in mixes] == pytest.approx([1, 3, 2])
    assert [found.predicted_errors(mix)[0] for mix in mixes] == pytest.approx([0.1, 0.2, 0.3])
    assert (found.residual, found.chi_square, found.leave_one_out) == ((None,), (None,), (None,))
    assert plain.predicted_errors(mixes[0]) == (None,)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 3), st.integers(0, 10**6))
def test_without_errors_the_residuals_speak(size: int, seed: int) -> None:
    """σ̂²(XᵀX)⁻¹ with σ̂² = Σr²/(points − coefficients), numpy's; None where no point is left over."""
    generator = np.random.default_rng(seed)
    mixes = lattice(size, 4)
    column = generator.normal(size=len(mixes))

    found = fit(mixes, column[:, None].tolist())
    alone = fit(lattice(size, 2), [(1.0,)] * len(lattice(size, 2)))
    part = fit(mixes, column[:, None].tolist(), [(None,), *[(1.0,)] * (len(mixes) - 1)])

    x = design(mixes)
    _, (squares,), _, _ = np.linalg.lstsq(x, column, rcond=None)
    oracle = squares / (len(mixes) - x.shape[1]) * np.linalg.inv(x.T @ x)
    assert found is not None
    assert np.allclose(found.covariance[0], oracle, atol=1e-9 * abs(oracle).max())
    assert (found.errors_from, found.chi_square) == (("residuals",), (None,))
    assert part == found
    assert alone is not None
    assert (alone.covariance, alone.errors_from, alone.predicted_errors(mixes[0])) == (
        (None,),
        (None,),
        (None,),
    )


def test_errors_cover_what_they_promise() -> None:
    """Over 1000 noisy worlds the misses of a prediction have its standard error; χ² has its degrees of freedom."""
    generator = np.random.default_rng(7)
    mixes, mix = lattice(3, 3), tuple(Fraction(k, 7) for k in (1, 2, 4))
    truth, noise = generator.normal(size=6), generator.uniform(0.1, 1, len(mixes))
    values = design(mixes) @ truth + noise * generator.normal(size=(1000, len(mixes)))

    found = fit(mixes, values.T.tolist(), np.repeat(noise[:, None], 1000, axis=1).tolist())

    assert found is not None
    ratios = [
        (guess - (design([mix]) @ truth).item()) / error
        for guess, error in zip(found.predict(mix), found.predicted_errors(mix), strict=True)
        if error is not None
    ]
    assert len(ratios) == 1000
    assert np.mean(ratios) == pytest.approx(0, abs=0.1)
    assert np.std(ratios) == pytest.approx(1, abs=0.07)
    assert np.mean([chi for chi in found.chi_square if chi is not None]) == pytest.approx(4, abs=0.3)


def cubic(mix: Mix) -> float:
    """A quadratic, and 54λ₁λ₂λ₃."""
    a, b, c = map(float, mix)
    return 1 + 2 * a - b + 3 * a * b - c * b + 54 * a * b * c


CENTRE = tuple([Fraction(1, 3)] * 3)


def test_lack_of_fit_is_the_cubic_part() -> None:
    """A coefficient of 54 is missed by 54/27 = 2 at the centroid; in standard errors of points and centroid alike."""
    mixes = [*lattice(3, 2), CENTRE, CENTRE]
    values = [(cubic(mix),) for mix in mixes[:-2]] + [(cubic(CENTRE) - 0.5,), (cubic(CENTRE) + 0.5,)]
    errors = [(0.1,)] * 6 + [(0.3,), (0.4,)]
    weights = np.array([-1, -1, -1, 4, 4, 4]) / 9  # of vertices and middles in R̂(1/3, 1/3, 1/3)

    plain, told = lack_of_fit(mixes, values), lack_of_fit(mixes, values, errors)

    assert plain is not None
    assert told is not None
    assert (plain.miss, plain.repeats) == (pytest.approx((2,)), 2)
    assert (plain.error, plain.ratio, plain.errors_from) == ((None,), (None,), (None,))
    wanted = math.sqrt(0.25**2 + 0.1**2 * (weights**2).sum())
    assert told.error == pytest.approx((wanted,))
    assert told.ratio == pytest.approx((2 / wanted,))
    assert told.errors_from == ("errors",)
    assert told.measured[0] - told.predicted[0] == pytest.approx(told.miss[0])


def test_lack_of_fit_from_residuals_is_a_t_statistic() -> None:
    """Without errors it is a prediction interval: t² of a fit with a dummy for the centroid, by numpy."""
    generator = np.random.default_rng(3)
    mixes = lattice(3, 3)
    column = generator.normal(size=len(mixes))
    dummy = np.array([[float(mix == CENTRE)] for mix in mixes])
    x = np.hstack([design(mixes), dummy])
    beta, (squares,), _, _ = np.linalg.lstsq(x, column, rcond=None)
    error = math.sqrt(squares / (len(mixes) - 7) * np.linalg.inv(x.T @ x)[-1, -1])

    found = lack_of_fit(mixes, column[:, None].tolist())

    assert found is not None
    assert found.errors_from == ("residuals",)
    assert (found.miss[0], found.error[0]) == pytest.approx((beta[-1], error))
    part = [(None,) if mix == CENTRE else (1.0,) for mix in mixes]
    unknown = lack_of_fit(mixes, column[:, None].tolist(), part)
    assert unknown is not None
    assert (unknown.error, unknown.ratio, unknown.errors_from) == ((None,), (None,), (None,))


def test_no_lack_of_fit_without_a_centroid_to_spare() -> None:
    """Not measured; needed for the fit (two ingredients, three points); nothing else measured."""
    assert lack_of_fit(lattice(3, 2), [(1.0,)] * 6) is None
    assert lack_of_fit(lattice(2, 2), [(1.0,)] * 3) is None
    assert lack_of_fit([CENTRE], [(1.0,)]) is None
    assert lack_of_fit([], []) is None
    found = lack_of_fit(lattice(2, 4), [(1.0,)] * 5)
    assert found is not None
    assert found.miss == pytest.approx((0,))
    with pytest.raises(ValueError, match="finite"):
        lack_of_fit([*lattice(3, 2), CENTRE], [*[(1.0,)] * 6, (math.nan,)])


def test_a_path_among_eight_is_told() -> None:
    """Fifty λ from one mix of eight to another: a line, three coefficients of 36; what is needed determines them."""
    start = [Fraction(k + 1, 36) for k in range(8)]
    path = [
        tuple(s * (1 - Fraction(t, 49)) + Fraction(1, 8) * Fraction(t, 49) for s in start) for t in range(50)
    ]

    found = undetermined(path)

    assert fit(path, [(1.0,)] * 50) is None
    assert found is not None
    assert (found.points, found.coefficients, found.rank, found.dimension) == (50, 36, 3, 1)
    assert (
        found.why
        == "50 different λ lie on one line of the simplex: they tell 3 of the 36 coefficients of 8 ingredients"
    )
    assert len(found.needed) == 33
    assert undetermined([*path, *found.needed]) is None
    assert fit([*path, *found.needed], [(1.0,)] * 83) is not None


def test_other_ways_to_determine_nothing() -> None:
    """Too few, the same one again, an edge that was never mixed, a conic; and what is missing in each."""
    few, once = undetermined(lattice(3, 2)[:-1]), undetermined([CENTRE] * 9)
    edges = [mix for mix in lattice(3, 6) if not (mix[1] and mix[2])]
    conic = [tuple(Fraction(v, 7) for v in order) for order in permutations((4, 2, 1))]

    assert few is not None
    assert few.why == "5 different λ are too few for the 6 coefficients of 3 ingredients"
    assert few.needed == ((Fraction(1), Fraction(0), Fraction(0)),)
    assert once is not None
    assert (once.points, once.rank, once.dimension, len(once.needed)) == (1, 1, 0, 5)
    assert once.why.startswith("one λ lie")
    two = undetermined(lattice(3, 1)[:2])
    assert two is not None
    assert (two.dimension, two.why) == (
        1,
        "2 different λ lie on one line of the simplex: they tell 2 of the 6 coefficients of 3 ingredients",
    )
    never = undetermined(edges)
    assert never is not None
    assert (never.missing, never.needed) == (((1, 2),), ((Fraction(0), Fraction(1, 2), Fraction(1, 2)),))
    round_one = undetermined(conic)
    assert round_one is not None
    assert (round_one.rank, round_one.dimension, len(round_one.missing)) == (5, 2, 6)
    assert "on one quadratic curve" in round_one.why


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(0, 34), max_size=14), st.integers(1, 4))
def test_undetermined_is_when_there_is_no_fit(size: int, chosen: list[int], steps: int) -> None:
    """None ⇔ a fit exists; the needed λ are as many as coefficients are open, and are enough."""
    every = lattice(size, steps)
    mixes = [every[k % len(every)] for k in [0, *chosen]]

    found = undetermined(mixes)

    assert (found is None) == (fit(mixes, [(1.0,)] * len(mixes)) is not None)
    if found is not None:
        assert len(found.needed) == found.coefficients - found.rank
        assert undetermined([*mixes, *found.needed]) is None
        assert found.rank == np.linalg.matrix_rank(design(mixes))


@pytest.mark.parametrize("mixes", [[], [(Fraction(1),), (Fraction(1), Fraction(0))], [(Fraction(1, 2),)]])
def test_what_is_no_mix_is_refused(mixes: list[Mix]) -> None:
    """None at all, different lengths, off the simplex."""
    with pytest.raises(ValueError, match="λ"):
        undetermined(mixes)


def test_thousands_of_points_take_no_time() -> None:
    """3000 λ of eight ingredients, eight rewards with errors: fitted, questioned, in five seconds of one core."""
    generator = np.random.default_rng(0)
    counts = generator.multinomial(100, np.ones(8) / 8, 3000)
    mixes = [tuple(Fraction(int(k), 100) for k in row) for row in counts]
    values, errors = generator.normal(size=(3000, 8)).tolist(), np.full((3000, 8), 0.1).tolist()
    began = time.process_time()

    found = fit(mixes, values, errors)

    assert found is not None
    assert undetermined(mixes) is None
    assert len(found.predicted_errors(mixes[0])) == 8
    assert time.process_time() - began < 5
