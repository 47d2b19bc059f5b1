"""Hypothesis 1: gaps to the chord, their errors, and verdicts that noise is right about as often as they say."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats  # type: ignore[import-untyped]

from rsoup.front.connectivity import FAIL, INCONCLUSIVE, NOT_TESTED, PASS, Connectivity, connectivity

Mix = tuple[Fraction, ...]
Rows = list[list[float]]


def segment(steps: int) -> list[Mix]:
    """λ = (1, 0) … (0, 1)."""
    return [(1 - Fraction(i, steps), Fraction(i, steps)) for i in range(steps + 1)]


def experts(count: int) -> list[Mix]:
    """The corners of the simplex."""
    return [tuple(Fraction(i == j) for j in range(count)) for i in range(count)]


@st.composite
def studies(draw: st.DrawFn) -> tuple[list[Mix], Rows, list[bool]]:
    """All experts and some soups of 1 to 4 ingredients, 1 to 3 rewards each."""
    count, rewards = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    parts = st.tuples(*[st.integers(0, 5)] * count).filter(any)
    soups = [tuple(Fraction(p, sum(ps)) for p in ps) for ps in draw(st.lists(parts, max_size=8))]
    mixes = list(dict.fromkeys([*experts(count), *soups]))
    value = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10))
    values = [draw(st.lists(value, min_size=rewards, max_size=rewards)) for _ in mixes]
    return mixes, values, draw(st.lists(st.booleans(), min_size=rewards, max_size=rewards))


# --- gaps


@given(studies())
def test_a_gap_is_its_definition(study: tuple[list[Mix], Rows, list[bool]]) -> None:
    """±(R(λ) − Σ λᵢR(eᵢ)) in the reward's unit and over the experts' range; FAIL below 0, PASS else; worst = min."""
    mixes, values, maximise = study
    size = len(mixes[0])

    found = connectivity(mixes, values, maximise)

    soups = [i for i, mix in enumerate(mixes) if max(mix) < 1]
    assert (found.points, found.left_out, found.tests) == (len(soups), 0, 0)
    for k, (chord, up) in enumerate(zip(found.rewards, maximise, strict=True)):
        column = [row[k] for row in values]
        span = max(column[:size]) - min(column[:size])
        assert [gap.mix for gap in chord.gaps] == [mixes[i] for i in soups]
        for gap, i in zip(chord.gaps, soups, strict=True):
            straight = np.dot([float(share) for share in mixes[i]], column[:size])
            assert gap.gap == pytest.approx((column[i] - straight) * (1 if up else -1), abs=1e-13)
            assert gap.relative == (gap.gap / span if span else None)
            assert (gap.error, gap.deviations) == (None, None)
            assert gap.verdict == (FAIL if gap.gap < 0 else PASS)
        verdicts = [gap.verdict for gap in chord.gaps]
        assert chord.verdict == (FAIL if FAIL in verdicts else PASS if verdicts else NOT_TESTED)
        assert chord.worst == min(chord.gaps, key=lambda gap: gap.gap, default=None)
        assert (chord.span, chord.noisy) == (span, False)


@given(studies(), st.randoms())
def test_order_and_direction_do_not_matter(
    study: tuple[list[Mix], Rows, list[bool]], order: random.Random
) -> None:
    """Shuffled rows give the same gaps; −R to be minimised is R to be maximised."""
    mixes, values, maximise = study
    rows = list(range(len(mixes)))
    order.shuffle(rows)

    found = connectivity(mixes, values, maximise)
    turned = connectivity(
        [mixes[i] for i in rows], [[-value for value in values[i]] for i in rows], [not up for up in maximise]
    )

    assert turned.verdict == found.verdict
    for one, other in zip(found.rewards, turned.rewards, strict=True):
        assert sorted(one.gaps, key=lambda gap: gap.mix) == sorted(other.gaps, key=lambda gap: gap.mix)


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=2, max_size=5),
    st.lists(st.lists(st.integers(0, 97), min_size=5, max_size=5), min_size=1, max_size=9),
    st.booleans(),
)
def test_a_line_computed_in_floats_passes(corners: list[float], parts: list[list[int]], up: bool) -> None:
    """R(λ) = Σ λᵢR(eᵢ), whatever its rounding: every gap is 0 and the tolerance needed 0."""
    count = len(corners)
    soups = [tuple(Fraction(p, sum(ps)) for p in ps) for row in parts if any(ps := row[:count])]
    mixes = list(dict.fromkeys([*experts(count), *soups]))
    values = [[sum(float(share) * value for share, value in zip(mix, corners, strict=True))] for mix in mixes]

    found = connectivity(mixes, values, [up])

    assert found.verdict == (PASS if len(mixes) > count else NOT_TESTED)
    assert all(gap.gap == 0 for gap in found.rewards[0].gaps)
    assert found.rewards[0].passes_at in (0.0, None)


def test_only_the_experts_that_take_part_are_needed() -> None:
    """Of three ingredients with e₃ missing, the edge 1–2 is tested and everything else left out."""
    third, half = Fraction(1, 3), Fraction(1, 2)
    mixes = [*experts(3)[:2], (half, half, Fraction(0)), (half, Fraction(0), half), (third, third, third)]

    found = connectivity(mixes, [[0.0], [1.0], [0.5], [-9.0], [-9.0]], [True])

    assert (found.verdict, found.points, found.left_out) == (PASS, 1, 2)


@pytest.mark.parametrize(
    "mixes", [[], experts(1), experts(3), [(Fraction(1, 2), Fraction(1, 2)), experts(2)[0]]]
)
def test_nothing_to_test_is_said(mixes: list[Mix]) -> None:
    """No point, experts alone, a soup with a missing expert: NOT TESTED, for each reward and together."""
    found = connectivity(
        mixes, [[1.0, 2.0]] * len(mixes), [True, False], [[0.1, None]] * len(mixes), tolerance=1
    )

    assert found.verdict == NOT_TESTED
    assert {chord.verdict for chord in found.rewards} == {NOT_TESTED}
    assert {(chord.worst, chord.passes_at, chord.gaps) for chord in found.rewards} == {(None, None, ())}


def test_without_rewards_nothing_is_tested() -> None:
    """No column: NOT TESTED."""
    assert connectivity(segment(2), [[], [], []], []).verdict == NOT_TESTED


# --- published fronts (Ramé et al. 2023, repository alexrame/rewardedsoups, single figures)

AVA = [5.219117605104679, 5.22470276397144, 5.24126486344771, 5.302629824325654, 5.296301108477067]
CAFE = [0.8201335447317943, 0.8199444008768518, 0.8184839895906438, 0.8112323649394536, 0.8066531268461626]
IMAGES = [(1 - share, share) for share in (Fraction(i, 10) for i in (0, 1, 2, 8, 10))]


def test_the_published_image_front_fails_by_one_point_of_three_percent() -> None:
    """ava at λ = 0.1 is 2.8 % of the range below the chord: FAIL at 0, PASS at 3 %; cafe passes."""
    values = [list(pair) for pair in zip(AVA, CAFE, strict=True)]

    found = connectivity(IMAGES, values, [True, True])

    ava, cafe = found.rewards
    assert (found.verdict, ava.verdict, cafe.verdict) == (FAIL, FAIL, PASS)
    assert [gap.mix[1] for gap in ava.gaps if gap.verdict == FAIL] == [Fraction(1, 10)]
    assert ava.worst is not None
    assert ava.worst.relative == pytest.approx(-0.0276, abs=5e-5)
    assert ava.passes_at == pytest.approx(0.0276, abs=5e-5)
    assert connectivity(IMAGES, values, [True, True], tolerance=0.03).verdict == PASS


def test_the_published_captions_pass() -> None:
    """BLEU1 and ROUGE-L at λ = 0, ½, 1 on BLEU1: both above the chord."""
    found = connectivity(segment(2), [[0.8234, 0.61], [0.8395, 0.6095], [0.8497, 0.6038]], [True, True])

    assert found.verdict == PASS
    assert [round(chord.gaps[0].gap, 5) for chord in found.rewards] == [0.00295, 0.0026]


# --- noise


def test_the_error_of_a_gap_is_that_of_a_weighted_sum() -> None:
    """se² = se(λ)² + Σ λᵢ²seᵢ², and the deviations are gap/se; unknown where one that takes part is unknown."""
    mixes = [
        *experts(3),
        (Fraction(1, 4), Fraction(3, 4), Fraction(0)),
        (Fraction(1, 2), Fraction(0), Fraction(1, 2)),
    ]
    errors: list[list[float | None]] = [[0.3], [0.2], [None], [0.1], [0.1]]

    found = connectivity(mixes, [[0.0], [4.0], [1.0], [2.0], [2.0]], [True], errors)

    known, unknown = found.rewards[0].gaps
    error = math.sqrt(0.1**2 + (0.3 / 4) ** 2 + (0.2 * 3 / 4) ** 2)
    assert known.error == pytest.approx(error)
    assert known.deviations == pytest.approx(-1 / error)
    assert (unknown.error, unknown.deviations) == (None, None)


def holm(chances: Sequence[float], level: float) -> set[int]:
    """Holm's step-down, written from its adjusted p-values."""
    order = sorted(range(len(chances)), key=chances.__getitem__)
    adjusted, rejected = 0.0, set()
    for done, i in enumerate(order):
        adjusted = max(adjusted, (len(chances) - done) * chances[i])
        if adjusted <= level:
            rejected.add(i)
    return rejected


@given(
    st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 3),
    st.sampled_from([0.8, 0.95, 0.99]), st.sampled_from([0.0, 0.1]), st.booleans(),
)  # fmt: skip
def test_verdicts_are_scipys(
    seed: int, steps: int, rewards: int, confidence: float, tolerance: float, repeated: bool
) -> None:
    """FAIL = rejected by Holm at (1 − c)/2 over all pairs, PASS = the two-sided interval is above; Welch's ν."""
    rng = np.random.default_rng(seed)
    mixes, shape = segment(steps), (steps + 1, rewards)
    values, errors = rng.normal(0, 1, shape), rng.exponential(0.3, shape) + 1e-3
    repeats = rng.integers(2, 6, shape) if repeated else np.full(shape, 10**9)
    maximise = [bool(up) for up in rng.integers(0, 2, rewards)]

    found = connectivity(
        mixes, values.tolist(), maximise, errors.tolist(), repeats.tolist() if repeated else None,
        tolerance=tolerance, confidence=confidence,
    )  # fmt: skip

    gaps, halves, below = [], [], []
    for k, up in enumerate(maximise):
        span = abs(values[0, k] - values[-1, k])
        for i in range(1, steps):
            weights = np.array([1, *map(float, mixes[i])])
            rows = [i, 0, steps]
            parts = (weights * errors[rows, k]) ** 2
            freedom = parts.sum() ** 2 / (parts**2 / (repeats[rows, k] - 1)).sum()
            margin = (1 if up else -1) * (weights * [1, -1, -1] @ values[rows, k]) + tolerance * span
            error = math.sqrt(parts.sum())
            gaps.append(margin)
            halves.append(stats.t.ppf((1 + confidence) / 2, freedom) * error)
            below.append(stats.t.cdf(margin / error, freedom))
    failed = holm(below, (1 - confidence) / 2)
    expected = [
        FAIL if i in failed else PASS if gap > half else INCONCLUSIVE
        for i, (gap, half) in enumerate(zip(gaps, halves, strict=True))
    ]
    assert [gap.verdict for chord in found.rewards for gap in chord.gaps] == expected
    assert found.tests == len(gaps)
    for k, chord in enumerate(found.rewards):
        part = slice(k * (steps - 1), (k + 1) * (steps - 1))
        allowed = tolerance * chord.span
        deepest = max([0.0, *(h - (g - allowed) for g, h in zip(gaps[part], halves[part], strict=True))])
        assert chord.passes_at == (
            pytest.approx(deepest / chord.span, rel=1e-7, abs=1e-9) if steps > 1 else None
        )


def measured(
    rng: np.random.Generator, truth: np.ndarray, noise: float, repeats: int | None
) -> tuple[Rows, Rows, list[list[int]] | None]:
    """Values and their errors: a known standard error, or `repeats` values with their estimated one."""
    if repeats is None:
        values = truth + rng.normal(0, noise, truth.shape)
        return values.tolist(), np.full(truth.shape, noise).tolist(), None
    drawn = truth + rng.normal(0, noise * math.sqrt(repeats), (repeats, *truth.shape))
    errors = drawn.std(axis=0, ddof=1) / math.sqrt(repeats)
    return drawn.mean(axis=0).tolist(), errors.tolist(), np.full(truth.shape, repeats).tolist()


def share(verdict: str, found: Sequence[Connectivity]) -> float:
    """How often the verdict on all rewards is this one."""
    return sum(one.verdict == verdict for one in found) / len(found)


def simulated(
    truth: np.ndarray, noise: float, repeats: int | None, tolerance: float, times: int = 500
) -> list[Connectivity]:
    """So many measurements of one truth, a row per λ on a segment."""
    rng = np.random.default_rng(7)
    found = []
    for _ in range(times):
        values, errors, counts = measured(rng, truth, noise, repeats)
        found.append(
            connectivity(
                segment(len(truth) - 1), values, [True] * truth.shape[1], errors, counts, tolerance=tolerance
            )
        )
    return found


LINE = np.linspace([0.0, 1.0, 5.0], [1.0, 0.0, 7.0], 11)
ARC = np.array([4 * i * (10 - i) / 100 for i in range(11)])[:, None]


@pytest.mark.parametrize("repeats", [None, 3, 5])
def test_a_straight_line_with_noise_fails_rarely(repeats: int | None) -> None:
    """9 soups × 3 rewards on the chord itself: a FAIL anywhere in at most 5 of 100, and never a PASS of the noise."""
    found = simulated(LINE, 0.05, repeats, 0.0)

    assert share(FAIL, found) <= 0.05
    assert share(PASS, found) <= 0.05
    assert share(INCONCLUSIVE, found) >= 0.9


@pytest.mark.parametrize("repeats", [None, 3])
def test_a_violation_passes_rarely(repeats: int | None) -> None:
    """One soup 0.1 ranges lower than the tolerance allows: a PASS in at most 5 of 100, however large the noise."""
    truth = LINE[:, :1] + 0.5 * ARC
    truth[5] = LINE[5, :1] - 0.15
    for noise in (0.03, 0.1, 1.0):
        assert share(PASS, simulated(truth, noise, repeats, 0.05, 300)) <= 0.05


def test_a_collapsing_merge_fails() -> None:
    """Soups that fall half a range below the chord are found in every measurement, at 10 % tolerance too."""
    assert share(FAIL, simulated(LINE - 0.5 * ARC, 0.05, None, 0.1, 200)) == 1


def test_a_concave_front_passes_with_enough_samples() -> None:
    """Well above the chord: INCONCLUSIVE with large errors, PASS with small ones; and a line with a tolerance."""
    assert share(INCONCLUSIVE, simulated(LINE + 0.3 * ARC, 0.3, None, 0.0, 200)) > 0.9
    assert share(PASS, simulated(LINE + 0.3 * ARC, 0.01, None, 0.0, 200)) == 1
    assert share(PASS, simulated(LINE, 0.005, None, 0.05, 200)) == 1


@given(st.integers(0, 10**6), st.booleans())
def test_the_tolerance_that_passes_is_the_smallest(seed: int, noisy: bool) -> None:
    """PASS a little above `passes_at`, no PASS a little below; and more tolerance never makes a verdict worse."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (6, 1)).tolist()
    errors = rng.exponential(0.2, (6, 1)).tolist() if noisy else None

    def verdict(tolerance: float) -> str:
        return connectivity(segment(5), values, [True], errors, tolerance=tolerance).verdict

    needed = connectivity(segment(5), values, [True], errors).rewards[0].passes_at

    assert needed is not None
    assert verdict(needed * (1 + 1e-9) + 1e-12) == PASS
    assert needed == 0 or verdict(needed * (1 - 1e-9)) != PASS
    ranks = [[FAIL, INCONCLUSIVE, PASS].index(verdict(t)) for t in (0.0, 0.1, 0.5, 1.0, 5.0, 100.0)]
    assert ranks == sorted(ranks)


def test_errors_of_zero_are_numbers_as_they_are() -> None:
    """All errors 0: the verdicts without errors, and nothing shares the confidence."""
    values = [[0.0], [0.4], [1.0]]

    found = connectivity(segment(2), values, [True], [[0.0]] * 3)

    assert (found.verdict, found.tests, found.rewards[0].noisy) == (FAIL, 0, False)
    assert found.rewards[0].passes_at == connectivity(segment(2), values, [True]).rewards[0].passes_at


@pytest.mark.parametrize("middle", [0.4, 0.6])
def test_a_gap_whose_error_is_unknown_beside_known_ones_is_not_decided(middle: float) -> None:
    """The reward is known to be noisy, so a number without an error shows nothing."""
    found = connectivity(segment(2), [[0.0], [middle], [1.0]], [True], [[0.1], [None], [0.1]])

    assert (found.verdict, found.rewards[0].passes_at, found.tests) == (INCONCLUSIVE, None, 0)


def test_one_reward_that_fails_fails_all() -> None:
    """FAIL, then INCONCLUSIVE, then PASS decides; each reward keeps its own verdict."""
    values = [[0.0, 0.0, 0.0], [0.9, 0.5, 0.1], [1.0, 1.0, 1.0]]
    errors = [[0.01, 0.01, 0.01]] * 3

    found = connectivity(segment(2), values, [True] * 3, errors)
    some = connectivity(segment(2), [row[:2] for row in values], [True] * 2, [row[:2] for row in errors])

    assert [chord.verdict for chord in found.rewards] == [PASS, INCONCLUSIVE, FAIL]
    assert (found.verdict, some.verdict) == (FAIL, INCONCLUSIVE)


def test_equal_experts_have_no_range() -> None:
    """No relative gap and no tolerance: below is FAIL, at whatever tolerance; equal is PASS."""
    low = connectivity(segment(2), [[1.0], [0.9], [1.0]], [True], tolerance=100.0)
    even = connectivity(segment(2), [[1.0], [1.0], [1.0]], [True])

    assert (low.verdict, low.rewards[0].gaps[0].relative, low.rewards[0].passes_at) == (FAIL, None, None)
    assert even.verdict == PASS


def test_many_tests_need_more_evidence_than_one() -> None:
    """3 standard errors below: FAIL alone, INCONCLUSIVE as the one suspicion among 99."""
    error = 0.1 / math.sqrt(1.5)  # so that the gap at the middle has the error 0.1
    few = connectivity(segment(2), [[0.0], [-0.3], [0.0]], [True], [[error]] * 3)
    many = connectivity(segment(100), [[-0.3 * (i == 50)] for i in range(101)], [True], [[error]] * 101)

    assert few.rewards[0].gaps[0].deviations == pytest.approx(-3)
    assert (few.verdict, many.verdict) == (FAIL, INCONCLUSIVE)


def test_identical_rewards_count_each() -> None:
    """A reward given twice is two tests."""
    found = connectivity(segment(2), [[0.0, 0.0], [0.1, 0.1], [0.0, 0.0]], [True, True], [[0.1, 0.1]] * 3)

    assert found.tests == 2


@pytest.mark.parametrize(
    ("mixes", "values", "options"),
    [
        (segment(2), [[0.0], [math.nan], [1.0]], {}),
        (segment(2), [[0.0], [math.inf], [1.0]], {}),
        (segment(2), [[0.0], [1.0]], {}),
        (segment(2), [[0.0], [1.0], [1.0, 2.0]], {}),
        ([*segment(2), segment(2)[1]], [[0.0]] * 4, {}),
        ([(Fraction(1, 2), Fraction(1, 3)), *experts(2)], [[0.0]] * 3, {}),
        ([(Fraction(3, 2), Fraction(-1, 2)), *experts(2)], [[0.0]] * 3, {}),
        ([*experts(2), *experts(3)], [[0.0]] * 5, {}),
        (segment(2), [[0.0]] * 3, {"errors": [[0.1], [-0.1], [0.1]]}),
        (segment(2), [[0.0]] * 3, {"errors": [[0.1], [math.nan], [0.1]]}),
        (segment(2), [[0.0]] * 3, {"errors": [[0.1]] * 2}),
        (segment(2), [[0.0]] * 3, {"repeats": [[3], [0], [3]]}),
        (segment(2), [[0.0]] * 3, {"tolerance": -0.1}),
        (segment(2), [[0.0]] * 3, {"tolerance": math.nan}),
        (segment(2), [[0.0]] * 3, {"confidence": 1.0}),
        (segment(2), [[0.0]] * 3, {"confidence": 0.0}),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_refused(mixes: list[Mix], values: Rows, options: dict[str, object]) -> None:
    """NaN, shapes that differ, a λ twice or off the simplex, errors and levels that are none."""
    with pytest.raises(ValueError, match=r"row|simplex|finite|below|between|length"):
        connectivity(mixes, values, [True], **options)  # type: ignore[arg-type]


def test_extreme_values_and_errors_do_not_overflow() -> None:
    """Values of 1e300 with errors of 1e-300, and the other way round."""
    huge = connectivity(segment(2), [[-1e300], [1e300], [1e300]], [True], [[1e-300]] * 3, tolerance=1e300)
    tiny = connectivity(segment(2), [[-1e-300], [1e-300], [1e-300]], [True], [[1e300]] * 3)

    assert (huge.verdict, tiny.verdict) == (PASS, INCONCLUSIVE)


def test_thousands_of_soups_and_eight_rewards_are_fast() -> None:
    """3000 λ of 8 ingredients × 8 rewards with errors from repeats, in seconds of one core at most."""
    rng = random.Random(1)
    mixes = experts(8)
    while len(mixes) < 3000:
        parts = [rng.randint(1, 10**6) for _ in range(8)]
        mixes.append(tuple(Fraction(part, sum(parts)) for part in parts))
    values, errors = ([[rng.random() for _ in range(8)] for _ in mixes] for _ in range(2))
    start = time.process_time()

    found = connectivity(mixes, values, [True] * 8, errors, [[3] * 8] * len(mixes))

    assert time.process_time() - start < 10
    assert found.tests == 2992 * 8
