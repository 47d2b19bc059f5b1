"""The front, its hypervolume, and the greedy soup: laws, moocore and the published algorithm as oracles."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import moocore
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.errors import UsageError
from rsoup.front.greedy import Step, Subset, Trial, greedy
from rsoup.front.pareto import (
    Reference,
    covered,
    front,
    hypervolume,
    is_exact,
    reference_of,
    scaled,
    volume,
)

Points = list[tuple[float, ...]]


@st.composite
def clouds(draw: st.DrawFn, rewards: tuple[int, int] = (1, 5)) -> tuple[Points, list[bool]]:
    """Up to 30 points with many ties, and a direction per reward."""
    count = draw(st.integers(*rewards))
    value = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10, allow_nan=False))
    points = draw(st.lists(st.tuples(*[value] * count), min_size=1, max_size=30))
    return points, draw(st.lists(st.booleans(), min_size=count, max_size=count))


def dominates(one: Sequence[float], other: Sequence[float], maximise: Sequence[bool]) -> bool:
    """The definition."""
    pairs = [(a, b) if up else (b, a) for a, b, up in zip(one, other, maximise, strict=True)]
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


@pytest.mark.fault("J19")
@given(clouds())
def test_the_front_is_its_definition(cloud: tuple[Points, list[bool]]) -> None:
    """i ∈ front ⇔ no j dominates i; and front(front(P)) = front(P)."""
    points, maximise = cloud

    found = front(points, maximise)

    assert found == [i for i, p in enumerate(points) if not any(dominates(q, p, maximise) for q in points)]
    assert front([points[i] for i in found], maximise) == list(range(len(found)))


@given(clouds())
def test_the_front_is_moocores(cloud: tuple[Points, list[bool]]) -> None:
    """The same points as moocore's, ties and duplicates kept."""
    points, maximise = cloud
    oracle = moocore.is_nondominated(points, maximise=maximise, keep_weakly=True)

    assert front(points, maximise) == [i for i, kept in enumerate(oracle) if kept]


@given(clouds(), st.randoms())
def test_the_order_does_not_matter(cloud: tuple[Points, list[bool]], random: object) -> None:
    """Shuffled points have the same front."""
    points, maximise = cloud
    order = list(range(len(points)))
    random.shuffle(order)  # type: ignore[attr-defined]

    found = front([points[i] for i in order], maximise)

    assert sorted(order[i] for i in found) == front(points, maximise)


def test_no_points_have_no_front_and_infinity_is_a_value() -> None:
    """[] for []; −∞ loses, ∞ wins."""
    assert front([], [True, False]) == []
    assert front([(math.inf, 0.0), (1.0, -math.inf), (1.0, 0.0)], [True, True]) == [0]


@pytest.mark.parametrize("points", [[(math.nan, 1.0)], [(1.0, 2.0), (1.0,)], [(1.0, 2.0, 3.0)]])
def test_what_cannot_be_compared_is_refused(points: Points) -> None:
    """NaN, and points without one value per reward."""
    with pytest.raises(ValueError, match=r"NaN|values for 2 rewards"):
        front(points, [True, True])


@settings(max_examples=50)
@given(clouds((2, 4)))
def test_the_hypervolume_is_moocores(cloud: tuple[Points, list[bool]]) -> None:
    """With directions and a raw reference, the same number as moocore's own."""
    points, maximise = cloud
    reference = [-2.0 if up else 2.0 for up in maximise]
    oracle = moocore.hypervolume(points, ref=reference, maximise=maximise)

    assert hypervolume(points, maximise, reference) == pytest.approx(oracle, rel=1e-9, abs=1e-9)


def test_known_hypervolumes() -> None:
    """Boxes one can count; nothing that is not better than the reference in every reward counts."""
    assert hypervolume([(1.0, 3.0), (2.0, 2.0), (0.5, 0.5)], [True, True], (0.0, 0.0)) == 5.0
    assert hypervolume([(1.0, 3.0)], [False, True], (2.0, 0.0)) == 3.0
    assert hypervolume([(0.0, 9.0), (-1.0, 9.0)], [True, True], (0.0, 0.0)) == 0.0
    assert hypervolume([(2.0,), (3.0,)], [False], (5.0,)) == 3.0
    assert hypervolume([], [True, True], (0.0, 0.0)) == 0.0
    assert volume([()]) == 0.0


def test_the_reference_is_the_nadir_of_the_experts() -> None:
    """Per reward the worst expert, divided by the experts' range: their box has the volume 1."""
    experts = [(1.0, 30.0), (5.0, 10.0)]

    reference = reference_of([*experts, (0.0, 50.0), (5.0, 10.0)], [True, False], experts)

    assert reference.values == (1.0, 30.0)
    assert reference.spans == (4.0, 20.0)
    assert "worst values among the experts" in reference.how
    assert covered([(5.0, 10.0)], [True, False], reference).value == 1.0
    assert scaled((3.0, 20.0), [True, False], reference) == (0.5, 0.5)


def test_a_reference_in_the_rewards_own_units() -> None:
    """Without normalising, spans are 1 and the hypervolume is the raw one."""
    experts = [(1.0, 3.0), (5.0, 1.0)]
    reference = reference_of(experts, [True, True], experts, normalised=False)

    found = covered([(4.0, 2.0)], [True, True], reference)

    assert (found.value, found.reference) == (3.0, (1.0, 1.0))
    assert "own units" in found.how


def test_the_measured_range_stands_in_and_says_so() -> None:
    """A missing expert, experts that are equal in one reward or in all, and nothing but one value."""
    points = [(0.0, 1.0), (2.0, 5.0), (2.0, 2.0)]

    missing = reference_of(points, [True, True], [(2.0, 5.0), None])
    one_equal = reference_of(points, [True, True], [(2.0, 5.0), (2.0, 2.0)], names=["a", "b"])
    all_equal = reference_of(points, [True, True], [(2.0, 2.0)])
    constant = reference_of([(7.0,)], [True])

    assert (missing.values, missing.spans) == ((0.0, 1.0), (2.0, 4.0))
    assert "not every expert" in missing.how
    assert (one_equal.values, one_equal.spans) == ((0.0, 2.0), (2.0, 3.0))
    assert "'a'" in one_equal.how
    assert "'b'" not in one_equal.how
    assert (all_equal.values, "equal in every reward" in all_equal.how) == ((0.0, 1.0), True)
    assert (constant.values, constant.spans) == ((7.0,), (1.0,))


@pytest.mark.parametrize("points", [[], [(math.inf,)], [(math.nan,)], [(1.0, 2.0)]])
def test_no_reference_of_nothing(points: Points) -> None:
    """No point, a value that is not finite, another number of values."""
    with pytest.raises(ValueError, match=r"no point|not finite|values for 1"):
        reference_of(points, [True])


def published(scores: Sequence[float], soup: dict[Subset, float], accept_equal: bool) -> Subset:
    """The greedy soup as model-soups writes it, candidates of equal score in the given order."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    kept, best = [order[0]], scores[order[0]]
    for candidate in order[1:]:
        found = soup[tuple(sorted([*kept, candidate]))]
        if found > best or (accept_equal and found == best):
            best = found
            kept.append(candidate)
    return tuple(sorted(kept))


def run(
    scores: Sequence[float], maximise: bool, soup: dict[Subset, float], equal: bool = False
) -> tuple[Step, int]:
    """(the finished step, how many soups were evaluated on the way)."""
    evaluated: dict[Subset, float] = {}
    while (step := greedy(scores, maximise, evaluated, equal)).evaluate is not None:
        assert step.evaluate not in evaluated
        evaluated[step.evaluate] = soup[step.evaluate]
    return step, len(evaluated)


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4).map(float), min_size=1, max_size=6), st.booleans(), st.integers(0, 2**32))
def test_greedy_is_the_published_algorithm(scores: list[float], equal: bool, seed: int) -> None:
    """The same soup with either rule, in N − 1 evaluations, never worse than the best; minimising mirrors it."""
    subsets = [tuple(i for i in range(len(scores)) if mask >> i & 1) for mask in range(1, 2 ** len(scores))]
    soup = {subset: float((hash(subset) ^ seed) % 7) for subset in subsets}

    step, evaluations = run(scores, True, soup, equal)
    mirrored, _ = run([-s for s in scores], False, {k: -v for k, v in soup.items()}, equal)

    assert step.kept == mirrored.kept == published(scores, soup, equal)
    assert evaluations == len(scores) - 1
    assert step.score >= max(scores)
    assert sorted(trial.candidate for trial in step.trail) == list(range(len(scores)))
    assert tuple(sorted(t.candidate for t in step.trail if t.kept)) == step.kept


def test_greedy_step_by_step() -> None:
    """What is asked next, what was tried; equal is kept only where asked; NaN never is."""
    first = greedy([0.5, 0.7], True, {})
    equal = {(0, 1): 0.7}

    assert first == Step((0, 1), (1,), 0.7, (Trial(1, 0.7, kept=True),))
    assert greedy([0.5, 0.7], True, equal).kept == (1,)
    assert greedy([0.5, 0.7], True, equal, accept_equal=True).kept == (0, 1)
    assert greedy([0.5, 0.7], True, {(0, 1): math.nan}, accept_equal=True).kept == (1,)


@pytest.mark.parametrize("scores", [[], [1.0, math.nan], [math.inf]])
def test_greedy_without_scores_is_refused(scores: list[float]) -> None:
    """E0240: no candidates, or one without a finite score."""
    with pytest.raises(UsageError) as caught:
        greedy(scores, True, {})

    assert (caught.value.code, caught.value.hint is not None) == ("E0240", True)


@pytest.mark.parametrize("rewards", [1, 3, 8])
@pytest.mark.parametrize("infinite", [False, True])
def test_large_sets_have_the_front_that_small_ones_have(rewards: int, infinite: bool) -> None:
    """Whether a library or the few lines of our own decide, the front is that of brute force; infinite values included."""
    generator = random.Random(rewards)
    points = [tuple(float(generator.randint(0, 9)) for _ in range(rewards)) for _ in range(400)]
    if infinite:
        points += [(math.inf, *point[1:]) for point in points[:5]] + [
            (-math.inf, *point[1:]) for point in points[:5]
        ]
    up = [k % 2 == 0 for k in range(rewards)]

    def beats(p: tuple[float, ...], q: tuple[float, ...]) -> bool:
        signed = [(a, b) if u else (-a, -b) for a, b, u in zip(p, q, up, strict=True)]
        return all(a >= b for a, b in signed) and any(a > b for a, b in signed)

    assert front(points, up) == [i for i, q in enumerate(points) if not any(beats(p, q) for p in points)]


@pytest.mark.parametrize(("rewards", "count"), [(5, 5100), (6, 320), (7, 110), (8, 60)])
def test_what_cannot_be_computed_in_time_is_close(rewards: int, count: int) -> None:
    """Beyond the sizes that are exact, the hypervolume is within 1 % of moocore's exact one, and the words say so."""
    generator = random.Random(rewards)
    raw = [[abs(generator.gauss(0, 1)) for _ in range(rewards)] for _ in range(count)]
    points = [tuple(x / math.hypot(*point) for x in point) for point in raw]
    exact = moocore.hypervolume(points, ref=[0.0] * rewards, maximise=True)

    assert not is_exact(points)
    assert volume(points) == pytest.approx(exact, rel=0.01)
    reference = Reference((0.0,) * rewards, (1.0,) * rewards, "from 0")
    assert "approximate" in covered(points, (True,) * rewards, reference).how
    assert is_exact(points[:30])
    assert "approximate" not in covered(points[:30], (True,) * rewards, reference).how
