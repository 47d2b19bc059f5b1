"""One set of points against another: published fronts, moocore as the oracle, brute force, invariances."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import moocore
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rsoup.front.pareto import front, hypervolume, reference_of, scaled
from rsoup.front.versus import DOMINATED, DOMINATES, EQUAL, INCOMPARABLE, needed, versus

Points = list[tuple[float, ...]]
MODEL_SOUPS = Path(__file__).parent / "data" / "model-soups"

# Single figures quoted from alexrame/rewardedsoups @ 1f4aef4, streamlit_app/data/imgen: (ava, cafe) of eleven rewarded
# soups of two experts, and of the five runs with mixed rewards between them.
IMGEN_SOUPS: Points = [
    (5.219117605104679, 0.8201335447317943), (5.22470276397144, 0.8199444008768518),
    (5.24126486344771, 0.8184839895906438), (5.252455203842459, 0.8163858414366004),
    (5.259257408644742, 0.8155618460051738), (5.266067076265142, 0.8154825578549301),
    (5.276803503241067, 0.8144214490430469), (5.288267661163829, 0.8137365690869136),
    (5.302629824325654, 0.8112323649394536), (5.302293261093125, 0.8090198991935101),
    (5.296301108477067, 0.8066531268461626),
]  # fmt: skip
IMGEN_MIXED: Points = [
    (5.234248517986282, 0.8167034926483909), (5.235488123845572, 0.8149505488649763),
    (5.2653643032583375, 0.8147667648230853), (5.275391924891113, 0.8137702660411292),
    (5.287197870731354, 0.8108862709775567),
]  # fmt: skip


def imgen() -> tuple[Points, Points]:
    """Soups and the seven runs (experts included), as gains over the experts' nadir in units of their range."""
    runs = [IMGEN_SOUPS[0], *IMGEN_MIXED, IMGEN_SOUPS[-1]]
    reference = reference_of(IMGEN_SOUPS, [True, True], [IMGEN_SOUPS[0], IMGEN_SOUPS[-1]])
    return tuple([scaled(p, [True, True], reference) for p in points] for points in (IMGEN_SOUPS, runs))  # type: ignore[return-value]


@st.composite
def pairs(draw: st.DrawFn, rewards: tuple[int, int] = (1, 3)) -> tuple[Points, Points]:
    """Two sets with many ties, of numbers that sums leave exact."""
    value = st.integers(-8, 8).map(lambda n: n / 4)
    count = draw(st.integers(*rewards))
    points = st.lists(st.tuples(*[value] * count), min_size=1, max_size=8)
    return draw(points), draw(points)


def dominates(one: tuple[float, ...], other: tuple[float, ...], epsilon: float = 0.0) -> bool:
    """The definition."""
    worse = any(a < b - epsilon for a, b in zip(one, other, strict=True))
    return not worse and any(a > b + epsilon for a, b in zip(one, other, strict=True))


# --- published fronts


def test_image_generation_is_as_published() -> None:
    """Hypervolumes .7018 and .5056, 9 of 11 and 7 of 7 on their fronts, five runs each beaten and beating none."""
    found = versus(*imgen())
    interior = found.standings[1:-1]

    assert found.our_volume == pytest.approx(0.7017934160, abs=1e-10)
    assert found.their_volume == pytest.approx(0.5056441600, abs=1e-10)
    assert (len(found.our_front), len(found.their_front)) == (9, 7)
    assert [standing.relation for standing in interior] == ["dominated"] * 5
    assert [standing.dominates for standing in interior] == [()] * 5
    assert all(standing.distance < 0 for standing in interior)
    assert found.standings[0].relation == "equal"
    assert (found.standings[0].distance, found.we_need) == (0.0, 0.0)
    assert (found.only_theirs, found.only_ours) == (
        0.0,
        pytest.approx(0.7017934160 - 0.5056441600, abs=1e-10),
    )


def test_text_generation_has_one_soup_above_the_mixed_run() -> None:
    """The run with equal shares is dominated by λ = 0.35 and by neither neighbour (summary, faithfulness)."""
    # alexrame/rewardedsoups @ 1f4aef4, streamlit_app/data/textgen: λ = .3, .35, .4 and the run with μ = .5
    soups = [
        (1.285310146510601, -0.8619011283293366),
        (1.314461067393422, -0.9449407045729459),
        (1.3942182363569737, -1.0821384081616996),
    ]

    (standing,) = versus(soups, [(1.311857362538576, -1.0048503437265754)]).standings

    assert (standing.dominated_by, standing.dominates, standing.incomparable) == ((1,), (), 2)
    assert standing.distance == pytest.approx(1.311857362538576 - 1.314461067393422)


def scores(file: str) -> list[tuple[float, float]]:
    """ImageNet, and the mean of five shifted test sets, of each line of a file of model-soups."""
    shifted = ["ImageNetV2", "ImageNetR", "ImageNetSketch", "ObjectNet", "ImageNetA"]
    lines = map(json.loads, (MODEL_SOUPS / file).read_text(encoding="utf-8").splitlines())
    return [(line["ImageNet"], math.fsum(line[name] for name in shifted) / 5) for line in lines]


def test_model_soups_are_as_published() -> None:
    """Eight of 72 models are on their front, and the greedy soup dominates all 72."""
    models, greedy = scores("individual_model_results.jsonl"), scores("greedy_soup_results.jsonl")

    found = versus(greedy, models)

    assert set(found.their_front) == {61, 45, 47, 49, 27, 69, 48, 43}
    assert greedy[0] == pytest.approx((0.81026, 0.50863), abs=1e-5)
    assert found.count("dominated") == 72
    assert found.we_need < 0
    assert found.only_theirs == 0


def test_deep_sea_treasure_is_as_published() -> None:
    """The true fronts' hypervolumes from (0, −50): convex 994.3, concave 4255 and the gain between them."""
    # mo-gymnasium 1.3.2 (MIT): the true fronts of treasure and time, convex (Yang et al. 2019), concave (Vamplew et al. 2011)
    times = (-1.0, -3.0, -5.0, -7.0, -8.0, -9.0, -13.0, -14.0, -17.0, -19.0)
    convex = list(zip((0.7, 8.2, 11.5, 14.0, 15.1, 16.1, 19.6, 20.3, 22.4, 23.7), times, strict=True))
    concave = list(zip((1.0, 2.0, 3.0, 5.0, 8.0, 16.0, 24.0, 50.0, 74.0, 124.0), times, strict=True))

    assert hypervolume(convex, [True, True], (0.0, -50.0)) == pytest.approx(994.3)
    assert hypervolume(concave, [True, True], (0.0, -50.0)) == pytest.approx(4255.0)
    found = versus([(a, b + 50) for a, b in convex], [(a, b + 50) for a, b in concave])
    assert (found.our_volume, found.their_volume) == (pytest.approx(994.3), pytest.approx(4255.0))
    assert found.we_need == pytest.approx(124 - 23.7)
    assert len(found.our_front) == len(found.their_front) == 10


# --- definitions


@given(pairs(), st.sampled_from([0.0, 0.25, 1.0]))
def test_standings_are_their_definition(sets: tuple[Points, Points], epsilon: float) -> None:
    """Dominated by, dominates, equal within ε; the rest is incomparable; the four are everything."""
    ours, theirs = sets
    for standing, point in zip(versus(ours, theirs, epsilon=epsilon).standings, theirs, strict=True):
        assert standing.dominated_by == tuple(i for i, p in enumerate(ours) if dominates(p, point, epsilon))
        assert standing.dominates == tuple(i for i, p in enumerate(ours) if dominates(point, p, epsilon))
        near = [
            i for i, p in enumerate(ours) if all(abs(a - b) <= epsilon for a, b in zip(p, point, strict=True))
        ]
        assert standing.equal == tuple(near)
        known = len(standing.dominated_by) + len(standing.dominates) + len(standing.equal)
        assert known + standing.incomparable == len(ours)


@given(pairs())
def test_relations_are_their_definition(sets: tuple[Points, Points]) -> None:
    """Dominated by any of ours; else dominating one of our front; else equal to one; else incomparable."""
    ours, theirs = sets
    kept = [ours[i] for i in front(ours, [True] * len(ours[0]))]
    for standing, point in zip(versus(ours, theirs).standings, theirs, strict=True):
        if any(dominates(p, point) for p in ours):
            relation = DOMINATED
        elif any(dominates(point, p) for p in kept):
            relation = DOMINATES
        else:
            relation = EQUAL if point in ours else INCOMPARABLE
        assert standing.relation == relation


@given(pairs((1, 4)))
def test_distances_are_moocores_indicator(sets: tuple[Points, Points]) -> None:
    """Per point and as sets, the additive ε-indicator of moocore."""
    ours, theirs = sets
    found = versus(ours, theirs)

    for standing, point in zip(found.standings, theirs, strict=True):
        assert standing.distance == moocore.epsilon_additive(ours, ref=[point], maximise=True)
    assert found.we_need == max(standing.distance for standing in found.standings)
    assert found.they_need == moocore.epsilon_additive(theirs, ref=ours, maximise=True)


@given(pairs())
def test_a_distance_is_the_gain_that_covers(sets: tuple[Points, Points]) -> None:
    """With it one of ours is as good as the point in every reward; with less none is."""
    ours, theirs = sets
    for standing, point in zip(versus(ours, theirs).standings, theirs, strict=True):
        for gain, covered in ((standing.distance, True), (standing.distance - 0.125, False)):
            assert covered == any(all(a + gain >= b for a, b in zip(p, point, strict=True)) for p in ours)
        assert (standing.distance <= 0) == bool(standing.dominated_by or standing.equal)


@given(pairs((2, 3)))
def test_volumes_are_moocores(sets: tuple[Points, Points]) -> None:
    """Of both sets and of all points; what each adds is the difference, and together they add up."""
    ours, theirs = ([tuple(v + 1 for v in p) for p in points] for points in sets)
    found = versus(ours, theirs)
    zero = [0.0] * len(ours[0])

    assert found.our_volume == pytest.approx(moocore.hypervolume(ours, ref=zero, maximise=True), abs=1e-9)
    assert found.their_volume == pytest.approx(moocore.hypervolume(theirs, ref=zero, maximise=True), abs=1e-9)
    assert found.both_volume == pytest.approx(
        moocore.hypervolume(ours + theirs, ref=zero, maximise=True), abs=1e-9
    )
    assert found.our_volume + found.only_theirs == pytest.approx(found.both_volume)
    assert found.their_volume + found.only_ours == pytest.approx(found.both_volume)


@given(pairs(), st.data())
def test_the_order_of_either_set_does_not_matter(sets: tuple[Points, Points], data: st.DataObject) -> None:
    """Shuffled sets, and ours doubled: the same relations, distances, volumes."""
    ours, theirs = sets
    order = data.draw(st.permutations(range(len(theirs))))
    found = versus(ours, theirs)
    changed = versus([*data.draw(st.permutations(ours)), *ours], [theirs[i] for i in order])

    assert [(changed.standings[order.index(i)].relation, changed.standings[order.index(i)].distance)
            for i in range(len(theirs))] == [(s.relation, s.distance) for s in found.standings]  # fmt: skip
    assert (changed.we_need, changed.they_need) == (found.we_need, found.they_need)
    assert changed.our_volume == pytest.approx(found.our_volume)


@given(pairs())
def test_the_sides_mirror_each_other(sets: tuple[Points, Points]) -> None:
    """Swapped, dominated is dominating, what they need is what we need, and only one need is below 0."""
    ours, theirs = sets
    found, mirrored = versus(ours, theirs), versus(theirs, ours)

    assert {(s.point, i) for s in found.standings for i in s.dominated_by} == {
        (i, s.point) for s in mirrored.standings for i in s.dominates
    }
    assert (found.we_need, found.our_volume, found.only_ours) == (
        mirrored.they_need, mirrored.their_volume, mirrored.only_theirs
    )  # fmt: skip
    assert found.we_need >= 0 or found.they_need >= 0


@settings(max_examples=50)
@given(pairs((2, 2)), st.lists(st.booleans(), min_size=2, max_size=2))
def test_directions_do_not_matter(sets: tuple[Points, Points], maximise: list[bool]) -> None:
    """A reward to be minimised is its negative to be maximised: through `scaled` the standings are the same."""
    ours, theirs = sets
    reference = reference_of([*ours, *theirs], [True, True])
    raw = [[tuple(v if up else -v for v, up in zip(p, maximise, strict=True)) for p in s] for s in sets]
    turned = reference_of([*raw[0], *raw[1]], maximise)

    direct = versus(*[[scaled(p, [True, True], reference) for p in s] for s in sets])
    mirrored = versus(*[[scaled(p, maximise, turned) for p in s] for s in raw])

    assert direct == mirrored


# --- with errors


@given(pairs(), st.floats(0.01, 1), st.sampled_from([None, 3]))
def test_what_is_certain_is_its_definition(
    sets: tuple[Points, Points], error: float, repeats: int | None
) -> None:
    """Every difference beyond q·se·√2, q scipy's quantile at α/(2nm)."""
    ours, theirs = sets
    law = stats.norm if repeats is None else stats.t(2 * (repeats - 1))
    half = law.isf(0.05 / (2 * len(ours) * len(theirs))) * error * math.sqrt(2)
    shapes = [[[error] * len(p) for p in points] for points in sets]
    counts = [[[repeats] * len(p) for p in points] for points in sets]

    found = versus(
        ours,
        theirs,
        our_errors=shapes[0],
        their_errors=shapes[1],
        our_repeats=counts[0],
        their_repeats=counts[1],
    )

    for standing, point in zip(found.standings, theirs, strict=True):
        assert standing.certainly_dominated_by == tuple(
            i for i, p in enumerate(ours) if all(a - b > half for a, b in zip(p, point, strict=True))
        )
        assert standing.certainly_dominates == tuple(
            i for i, p in enumerate(ours) if all(b - a > half for a, b in zip(p, point, strict=True))
        )


@given(pairs())
def test_exact_values_are_certain(sets: tuple[Points, Points]) -> None:
    """Errors of 0: what dominates does so certainly; without errors nothing is said."""
    ours, theirs = sets
    exact = [[[0.0] * len(p) for p in points] for points in sets]

    for standing in versus(ours, theirs, our_errors=exact[0], their_errors=exact[1]).standings:
        assert standing.certainly_dominated_by == standing.dominated_by
        assert standing.certainly_dominates == standing.dominates
    assert versus(ours, theirs).standings[0].certainly_dominates is None


def test_an_epsilon_of_the_noise_makes_equals() -> None:
    """Points within ε of each other in every reward are equal; a trade within ε does not hide a clear gain."""
    (standing,) = versus([(1.0, 1.0), (2.0, 0.99), (2.0, 0.5)], [(1.01, 0.99)], epsilon=0.05).standings

    assert (standing.equal, standing.dominated_by, standing.incomparable) == ((0,), (1,), 1)
    assert standing.relation == "dominated"


def test_relations_are_to_our_front() -> None:
    """Above one of ours that is itself dominated does not count; below any does."""
    ours: Points = [(3.0, 3.0), (1.0, 1.0), (4.0, 0.0), (3.5, -1.0)]
    inside, beside, above, same = versus(ours, [(2.0, 2.0), (3.9, 1.0), (4.0, 0.5), (3.0, 3.0)]).standings

    assert (inside.relation, inside.dominated_by, inside.dominates) == (DOMINATED, (0,), (1,))
    assert (beside.relation, beside.dominates) == (INCOMPARABLE, (1, 3))
    assert (above.relation, above.dominates) == (DOMINATES, (2, 3))
    assert (same.relation, same.equal, same.dominates) == (EQUAL, (0,), (1,))


# --- refusals and speed


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ([], [(1.0,)], {}),
        ([(1.0,)], [], {}),
        ([(math.nan,)], [(1.0,)], {}),
        ([(1.0,)], [(math.inf,)], {}),
        ([(1.0,)], [(1.0, 2.0)], {}),
        ([(1.0,)], [(1.0,)], {"epsilon": -1.0}),
        ([(1.0,)], [(1.0,)], {"confidence": 1.0}),
        ([(1.0,)], [(1.0,)], {"our_errors": [(1.0,)]}),
        ([(1.0,)], [(1.0,)], {"our_errors": [(1.0,)], "their_errors": [(-1.0,)]}),
    ],
)
def test_what_cannot_be_compared_is_refused(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    """No points, NaN, infinity, other rewards, a negative ε or error, an odd confidence, errors of one side."""
    with pytest.raises(ValueError, match=r"point|finite|rewards|ε|confidence|error"):
        versus(ours, theirs, **options)


def test_needs_of_nothing_are_refused() -> None:
    """Both sets need points of the same rewards."""
    for ours, theirs in (([], [(1.0,)]), ([(1.0,)], []), ([(1.0,)], [(1.0, 1.0)])):
        with pytest.raises(ValueError, match="point"):
            needed(ours, theirs)  # type: ignore[arg-type]


def test_thousands_of_points_take_seconds_at_most() -> None:
    """1500 against 1500 of two rewards, with errors."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.random((2, 1500, 2)).tolist()
    errors = np.full((1500, 2), 0.01).tolist()

    start = time.process_time()
    found = versus(ours, theirs, our_errors=errors, their_errors=errors)

    assert time.process_time() - start < 6
    assert len(found.standings) == 1500
