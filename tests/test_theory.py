"""The theory of two experts: known values, random quadratic worlds as oracles, and where it does not hold."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.front.parabola import between, misses
from rsoup.front.theory import (
    Choice,
    choose,
    curvatures,
    deltas,
    isotropic_mix,
    loss_against,
    near_optimality,
    smallest_m,
    unsuited,
)

UP = (True, True)
weights = st.floats(0.01, 0.99).map(lambda mu: (1 - mu, mu))


def lacking(a: np.ndarray, b: np.ndarray, mu: float, share: float) -> float:
    """What the soup with this share of expert 2 lacks to the optimum, eigendirection by eigendirection."""
    w = (1 - mu) * a + mu * b
    return float((w * (share - mu * b / w) ** 2).sum())


@st.composite
def spectra(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """(aⱼ, bⱼ, M): contributions to Δ₁ and Δ₂ with ratios within [1/M, M]."""
    generator = np.random.default_rng(draw(st.integers(0, 10**9)))
    m = draw(st.floats(1, 50))
    a = 10 ** generator.uniform(-2, 2, draw(st.integers(1, 6)))
    ratios = m ** generator.choice([-1.0, 1.0, *generator.uniform(-1, 1, 3)], len(a))
    return a, a * ratios, m


@pytest.mark.parametrize(
    ("m", "mu", "bound"),
    [
        (2, 0.2, 0.0221613394),
        (2, 0.5, 0.0459595960),
        (2, 0.7, 0.0306621786),
        (4, 0.2, 0.0900494777),
        (4, 0.5, 0.1388135593),
        (4, 0.7, 0.0878520245),
        (9, 0.2, 0.2176738536),
        (9, 0.5, 0.2348387097),
        (9, 0.7, 0.1437884610),
    ],
)
def test_known_bounds_are_attained_by_two_eigenvalues(m: float, mu: float, bound: float) -> None:
    """Δ₁ = 2, Δ₂ = 1.3M + 0.7/M: the value to ten digits, and the world with the ratios M and 1/M loses just that."""
    a, b = np.array([1.3, 0.7]), np.array([1.3 * m, 0.7 / m])
    delta, preference = (float(a.sum()), float(b.sum())), (1 - mu, mu)

    found = near_optimality(delta, preference, m).value

    assert found == pytest.approx(bound, abs=1e-10)
    assert lacking(a, b, mu, choose(delta, preference).mix[1]) == pytest.approx(bound, abs=1e-10)


@settings(max_examples=200)
@given(spectra(), weights)
def test_no_spectrum_loses_more_than_the_bound(
    world: tuple[np.ndarray, np.ndarray, float], preference: tuple[float, float]
) -> None:
    """What λ* lacks is within the bound for its M, and for every larger M; the bound grows with M up to M = ∞."""
    a, b, m = world
    delta = (float(a.sum()), float(b.sum()))
    lost = lacking(a, b, preference[1], choose(delta, preference).mix[1])

    bounds = [near_optimality(delta, preference, scale * m).value for scale in (1, 1.5, 10, 1e9, math.inf)]

    assert all(bound is not None for bound in bounds)
    assert lost <= bounds[0] * (1 + 1e-9) + 1e-12 * sum(delta)  # type: ignore[operator]
    assert all(x <= y * (1 + 1e-9) for x, y in pairwise(bounds))  # type: ignore[operator]
    assert bounds[3] == pytest.approx(bounds[4], rel=1e-6)


@given(spectra(), weights)
def test_the_choice_is_the_best_of_a_thousand(
    world: tuple[np.ndarray, np.ndarray, float], preference: tuple[float, float]
) -> None:
    """λ* lacks least of all λ; regret and gain are differences of what λ*, λ = μ̂ and the experts lack."""
    a, b, _ = world
    mu = preference[1]
    scale = float(a.sum() + b.sum())

    found = choose((float(a.sum()), float(b.sum())), preference)

    at_best = lacking(a, b, mu, found.mix[1])
    assert all(at_best <= lacking(a, b, mu, k / 999) + 1e-9 * scale for k in range(1000))
    assert sum(found.mix) == pytest.approx(1)
    assert found.regret == pytest.approx(lacking(a, b, mu, mu) - at_best, abs=1e-9 * scale)
    experts = min(lacking(a, b, mu, 0.0), lacking(a, b, mu, 1.0))
    assert found.gain == pytest.approx(experts - at_best, abs=1e-9 * scale)
    assert found.kept == pytest.approx(1 - found.regret / found.gain)


def test_a_choice_by_hand() -> None:
    """Δ = (1, 3), μ = ½: λ* = ¾, not ½; equal Δ make both rules one; a preference for one reward is its expert."""
    assert choose((1.0, 3.0), (0.5, 0.5)) == Choice((0.5, 0.5), (0.25, 0.75), 0.125, 0.125, 0.0)
    assert choose((1.0, 3.0), (2.0, 2.0)) == choose((1.0, 3.0), (0.5, 0.5))
    assert choose((2.0, 2.0), (0.7, 0.3)).mix == pytest.approx((0.7, 0.3))
    assert choose((2.0, 2.0), (0.7, 0.3)).regret == pytest.approx(0, abs=1e-12)
    assert choose((1.0, 3.0), (1.0, 0.0)) == Choice((1.0, 0.0), (1.0, 0.0), 0.0, 0.0, None)


@given(st.floats(0.1, 10), st.floats(0.1, 10), weights, st.floats(1, 100))
def test_swapping_the_experts_swaps_everything(
    first: float, second: float, preference: tuple[float, float], m: float
) -> None:
    """(Δ₁, Δ₂) and (Δ₂, Δ₁) with turned preferences: the turned λ*, the same bound."""
    here, there = choose((first, second), preference), choose((second, first), preference[::-1])

    assert here.mix == pytest.approx(there.mix[::-1])
    one = near_optimality((first, second), preference, m)
    other = near_optimality((second, first), preference[::-1], m)
    assert (one.value is None) == (other.value is None)
    assert (one.value or 0) == pytest.approx(other.value or 0)


def test_where_the_bound_does_not_hold_it_says_why() -> None:
    """Δ₂/Δ₁ outside [1/M, M], an expert beaten, equal experts; at the edge it is 0."""
    outside = near_optimality((1.0, 5.0), (0.5, 0.5), 4)
    beaten = near_optimality((-1.0, 5.0), (0.5, 0.5), 4)
    equal = near_optimality((0.0, 0.0), (0.5, 0.5), 4)
    half = near_optimality((0.0, 1.0), (0.5, 0.5), 4)

    assert (outside.value, outside.why) == (None, "Δ₂/Δ₁ = 5 needs M ≥ 5, and M = 4")
    assert (beaten.value, "beaten" in str(beaten.why)) == (None, True)
    assert (equal.value, "every λ" in str(equal.why)) == (None, True)
    assert (half.value, "equal in reward 1" in str(half.why)) == (None, True)
    assert near_optimality((1.0, 5.0), (0.5, 0.5), 5).value == pytest.approx(0, abs=1e-12)
    assert near_optimality((0.1, 0.3), (0.5, 0.5), 3).value == pytest.approx(0, abs=1e-12)
    assert near_optimality((2.0, 2.0), (0.5, 0.5), 1).value == 0
    assert near_optimality((2.0, 2.0), (1.0, 0.0), math.inf).value == 0


@given(st.floats(0.1, 10), st.floats(0.1, 10), st.floats(1.001, 30), weights)
def test_the_smallest_m_gives_the_loss_back(
    first: float, second: float, above: float, preference: tuple[float, float]
) -> None:
    """From the bound at M, M; and no smaller M has a bound that large."""
    m = above * max(first / second, second / first)
    loss = near_optimality((first, second), preference, m).value
    assert loss is not None

    found = smallest_m((first, second), [(preference, loss)])

    assert found.value == pytest.approx(m, rel=1e-6)
    assert found.from_experts == max(first / second, second / first)


def test_the_smallest_m_by_hand() -> None:
    """Without losses, or with none above 0, the ratio of Δ; the largest of several; too much loss fits no M."""
    two = near_optimality((1.0, 2.0), (0.5, 0.5), 3).value
    four = near_optimality((1.0, 2.0), (0.2, 0.8), 8).value
    assert two is not None
    assert four is not None

    assert smallest_m((1.0, 2.0)).value == 2
    assert smallest_m((1.0, 2.0), [((0.5, 0.5), -1.0)]).value == 2
    several = smallest_m((1.0, 2.0), [((0.5, 0.5), two), ((0.2, 0.8), four)])
    assert several.from_losses == pytest.approx((3, 8))
    assert several.value == pytest.approx(8)
    hopeless = smallest_m((1.0, 2.0), [((0.5, 0.5), two), ((0.5, 0.5), 5.0)])
    assert (hopeless.value, hopeless.from_losses[1], hopeless.why is not None) == (None, None, True)
    limit = near_optimality((1.0, 2.0), (0.5, 0.5), math.inf).value
    assert smallest_m((1.0, 2.0), [((0.5, 0.5), limit)]).value is None  # type: ignore[list-item]
    assert smallest_m((1.0, 2.0), [((1.0, 0.0), 0.1)]).value is None


@settings(max_examples=60)
@given(spectra(), weights)
def test_the_smallest_m_is_never_above_the_true_one(
    world: tuple[np.ndarray, np.ndarray, float], preference: tuple[float, float]
) -> None:
    """The optimum of a co-diagonal world shows a loss that its own M explains."""
    a, b, m = world
    delta = (float(a.sum()), float(b.sum()))
    lost = lacking(a, b, preference[1], choose(delta, preference).mix[1])
    if lost > 1e-9 * sum(delta):
        found = smallest_m(delta, [(preference, lost * (1 - 1e-9))])

        assert found.value is not None
        assert found.value <= m * (1 + 1e-6)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6), st.tuples(st.booleans(), st.booleans()), st.floats(-1, 2))
def test_a_quadratic_world_is_predicted_from_its_experts(
    seed: int, size: int, maximise: tuple[bool, bool], share: float
) -> None:
    """Any Hessians, any directions, λ beyond the ends too: the measured soup is what two evaluations say."""
    generator = np.random.default_rng(seed)
    thetas = generator.normal(size=(2, size))
    roots = generator.normal(size=(2, size, size))
    tops = generator.normal(size=2)

    def rewards(theta: np.ndarray) -> tuple[float, float]:
        away = [roots[k] @ (theta - thetas[k]) for k in (0, 1)]
        return tuple(float(tops[k] + (-1 if maximise[k] else 1) * away[k] @ away[k]) for k in (0, 1))  # type: ignore[return-value]

    experts = (rewards(thetas[0]), rewards(thetas[1]))
    mix = (1 - share, share)
    soup = rewards(mix[0] * thetas[0] + mix[1] * thetas[1])

    assert between(*experts, mix) == pytest.approx(soup, abs=1e-8)
    assert min(deltas(*experts, maximise)) >= 0
    found = misses([mix], [soup], experts)
    assert [m.rms for m in found] == pytest.approx([0, 0], abs=1e-8)


# alexrame/rewardedsoups @ 1f4aef4, captioning/README.md: (ROUGE-L, BLEU1) for λ = 0, 0.1, … 1
CAPTIONING = [
    (0.61, 0.8234), (0.6095, 0.8265), (0.6093, 0.8309), (0.6096, 0.8342), (0.6095, 0.8369), (0.6095, 0.8395),
    (0.6082, 0.8418), (0.6069, 0.844), (0.6054, 0.846), (0.6047, 0.8486), (0.6038, 0.8497),
]  # fmt: skip


def test_the_captioning_front_is_near_its_parabolas() -> None:
    """Largest miss and root mean square, in units of the range: 0.169 and 0.076 for ROUGE, 0.140 and 0.097 for BLEU1."""
    mixes = [(1 - k / 10, k / 10) for k in range(11)]

    rouge, bleu = misses(mixes, CAPTIONING, (CAPTIONING[0], CAPTIONING[-1]))

    assert (abs(rouge.largest) / rouge.span, rouge.rms / rouge.span) == pytest.approx(
        (0.169, 0.076), abs=5e-4
    )
    assert (abs(bleu.largest) / bleu.span, bleu.rms / bleu.span) == pytest.approx((0.140, 0.097), abs=5e-4)
    assert set(rouge.ratios) == {None}


def test_a_miss_in_standard_errors() -> None:
    """Soup and experts take part as their variances do; an expert itself has no ratio, nor what lacks an error."""
    experts, mixes = ((1.0, 0.0), (0.0, 1.0)), [(0.5, 0.5), (1.0, 0.0), (0.5, 0.5), (0.5, 0.5)]
    values = [(0.85, 0.75), (1.0, 0.0), (0.8, 0.8), (0.75, 0.75)]
    errors = [(0.01, 0.02), (0.01, 0.01), (None, 0.01), (0.0, 0.01)]

    first, second = misses(mixes, values, experts, errors=errors, expert_errors=((0.04, 0.08), (0.08, 0.0)))
    exact, _ = misses(mixes, values, experts, errors=errors, expert_errors=((0.0, 0.0), (0.0, 0.0)))

    assert first.misses == pytest.approx((0.1, 0, 0.05, 0))
    assert first.ratios[0] == pytest.approx(
        0.1 / math.sqrt(0.01**2 + (0.75 * 0.04) ** 2 + (0.25 * 0.08) ** 2)
    )
    assert first.ratios[1:3] == (None, None)
    assert second.ratios[2] == pytest.approx(0.05 / math.sqrt(0.01**2 + 0 + (0.25 * 0.08) ** 2))
    assert exact.ratios[3] is None


@settings(max_examples=60)
@given(st.integers(2, 6), st.integers(0, 10**6), st.booleans())
def test_isotropic_quadratics_are_recovered_exactly(count: int, seed: int, up: bool) -> None:
    """From N² evaluations and the distances: η, and the λ at which the gradient of the utility is 0."""
    generator = np.random.default_rng(seed)
    thetas = generator.normal(size=(count, 9))
    etas, wanted = generator.uniform(0.1, 3, count), generator.dirichlet(np.ones(count))
    away = np.linalg.norm(thetas[:, None] - thetas[None], axis=2)
    sign = 1 if up else -1
    values = [[sign * (5.0 - etas[k] * away[i, k] ** 2) for k in range(count)] for i in range(count)]

    found = curvatures(values, [up] * count, away.tolist())
    mix = isotropic_mix(found.values, wanted.tolist())

    assert found.values == pytest.approx(etas)
    assert found.how == "measured distances"
    gradient = sum(
        w * eta * (np.array(mix) @ thetas - theta) for w, eta, theta in zip(wanted, etas, thetas, strict=True)
    )
    assert np.allclose(gradient, 0, atol=1e-9)


@given(st.floats(0.1, 10), st.floats(0.1, 10), weights)
def test_both_rules_agree_for_two_experts(
    first: float, second: float, preference: tuple[float, float]
) -> None:
    """At one distance Lemma 1's λ is λ*; and a weight of 0 leaves its expert out."""
    found = curvatures([(first, 0.0), (0.0, second)], UP)

    assert found.how == "equal distances assumed"
    assert isotropic_mix(found.values, preference) == pytest.approx(choose((first, second), preference).mix)
    assert isotropic_mix([1.0, -3.0, 2.0], [1.0, 0.0, 2.0]) == pytest.approx((0.2, 0, 0.8))


def test_deltas_and_losses_have_directions() -> None:
    """Positive where each expert is the best in its own reward, whichever way is better; so is a loss."""
    assert deltas((3.0, 10.0), (1.0, 4.0), (True, False)) == (2.0, 6.0)
    assert deltas((3.0, 10.0), (1.0, 4.0), (False, True)) == (-2.0, -6.0)
    assert unsuited((2.0, 6.0)) is None
    assert unsuited((math.inf, 6.0)) == "a Δ is not finite"
    assert loss_against((0.5, 0.5), (3.0, 1.0), [(1.0, 1.0), (2.0, 0.0)], (True, False)) == 0
    assert loss_against((1.0, 1.0), (3.0, 1.0), [(1.0, 1.0), (2.0, 1.0)], (True, True)) == 0.5


def test_what_is_no_theory_of_two_experts_is_refused() -> None:
    """Other numbers of rewards, values that are not finite, weights and shares that are none, M below 1."""
    nan = math.nan
    for call in (
        lambda: deltas((1.0,), (1.0,), (True,)),
        lambda: deltas((1.0, nan), (1.0, 1.0), UP),
        lambda: choose((0.0, 1.0), (0.5, 0.5)),
        lambda: choose((1.0, 1.0), (0.0, 0.0)),
        lambda: choose((1.0, 1.0), (1.5, -0.5)),
        lambda: choose((1.0, 1.0), (nan, 0.5)),
        lambda: near_optimality((1.0, 1.0), (0.5, 0.5), 0.9),
        lambda: near_optimality((1.0, 1.0), (0.5, 0.5), nan),
        lambda: smallest_m((0.0, 1.0)),
        lambda: smallest_m((1.0, 1.0), [((0.5, 0.5), nan)]),
        lambda: loss_against((0.5, 0.5), (1.0, 1.0), [], UP),
        lambda: loss_against((0.5, 0.5), (1.0, nan), [(1.0, 1.0)], UP),
        lambda: between((1.0, 1.0), (0.0, 1.0), (0.5, 0.4)),
        lambda: between((1.0, 1.0, 1.0), (0.0, 1.0, 1.0), (0.5, 0.5)),
        lambda: misses([], [], ((1.0, 0.0), (0.0, 1.0))),
        lambda: misses([(0.5, 0.5)], [(1.0, 1.0)], ((1.0, 0.0), (0.0, 1.0)), errors=[]),
        lambda: misses([(0.5, 0.5)], [(1.0,)], ((1.0, 0.0), (0.0, 1.0))),
        lambda: misses([(0.5, 0.5)], [(1.0, nan)], ((1.0, 0.0), (0.0, 1.0))),
        lambda: curvatures([(1.0,)], (True,)),
        lambda: curvatures([(1.0, 0.0), (0.0, nan)], UP),
        lambda: curvatures([(1.0, 0.0), (0.0, 1.0)], UP, [(0.0, 0.0), (0.0, 0.0)]),
        lambda: curvatures([(1.0, 0.0), (0.0, 1.0)], UP, [(0.0, 1.0)]),
        lambda: isotropic_mix([1.0, 1.0], [1.0]),
        lambda: isotropic_mix([1.0, 1.0], [0.0, 0.0]),
        lambda: isotropic_mix([1.0, -1.0], [0.5, 0.5]),
    ):
        with pytest.raises(ValueError, match=r"reward|finite|weight|M is|Δ|equal|loss|soups|Lemma|distance"):
            call()
