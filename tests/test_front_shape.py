"""Coverage, spread and knees of a front: fronts one can measure by hand, brute force, scipy's tree, invariances."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist as distances
from scipy.spatial.distance import squareform

from rsoup.front.pareto import front
from rsoup.front.shape import coverage, knees, spread

Points = list[tuple[float, ...]]


def clouds(rewards: tuple[int, int] = (1, 4), most: int = 15) -> st.SearchStrategy[Points]:
    """Points with many ties, of numbers that scaling by powers of two and turning leaves exact."""
    value = st.integers(-16, 16).map(lambda n: n / 4)
    return st.integers(*rewards).flatmap(
        lambda n: st.lists(st.tuples(*[value] * n), min_size=1, max_size=most)
    )


def circle(count: int) -> Points:
    """Points of a quarter of the unit circle, one in each equal angle."""
    angles = [math.pi / 2 * i / (count - 1) for i in range(count)]
    return [(math.sin(angle), math.cos(angle)) for angle in angles]


def best(points: Points) -> Points:
    """The different points of the front."""
    return sorted({points[i] for i in front(points, [True] * len(points[0]))})


# --- coverage


def test_coverage_is_the_share_of_the_experts_range() -> None:
    """Half of the range, beyond both ends, outside of it, and a single point."""
    experts = [(0.0, 10.0), (4.0, 0.0)]

    half = coverage([(1.0, 8.0), (3.0, 3.0), (0.0, 0.0)], experts)
    whole = coverage([(-1.0, 12.0), (5.0, -5.0)], experts)
    outside = coverage([(7.0, -8.0), (9.0, -9.0)], experts)
    single = coverage([(2.0, 5.0)], experts)

    assert [(c.low, c.high, c.share, c.beyond) for c in half] == [
        (1.0, 3.0, 0.5, -0.25),
        (3.0, 8.0, 0.5, -0.2),
    ]
    assert [(c.share, c.beyond) for c in whole] == [(1.0, 0.25), (1.0, 0.2)]
    assert [c.share for c in outside] == [0.0, 0.0]
    assert [c.share for c in single] == [0.0, 0.0]


def test_experts_that_are_equal_have_no_range_to_cover() -> None:
    """Share and beyond are None for that reward alone."""
    equal, other = coverage([(1.0, 1.0), (3.0, 0.0)], [(2.0, 0.0), (2.0, 1.0)])

    assert (equal.share, equal.beyond, equal.high) == (None, None, 3.0)
    assert other.share == 1.0


def test_two_seeds_of_one_reward_cover_little() -> None:
    """The front between two similar models spans less of every reward than that between two experts."""
    experts = [(1.0, 0.0), (0.0, 1.0)]
    seeds = coverage([(0.95, 0.05), (0.97, 0.02), (0.9, 0.06)], experts)
    soups = coverage(circle(11), experts)

    assert all(a.share < b.share for a, b in zip(seeds, soups, strict=True))  # type: ignore[operator]


@given(clouds(), st.data())
def test_coverage_has_no_unit(points: Points, data: st.DataObject) -> None:
    """Order, duplicates, dominated points, and aR + b with a > 0 change neither share nor beyond."""
    count = len(points[0])
    ends = data.draw(st.lists(st.sampled_from(points), min_size=1, max_size=4))
    stretch = data.draw(st.lists(st.sampled_from([0.25, 1.0, 8.0]), min_size=count, max_size=count))

    def moved(many: Points) -> Points:
        return [tuple(v * s - 3 for v, s in zip(p, stretch, strict=True)) for p in many]

    low = tuple(min(column) - 1 for column in zip(*points, strict=True))
    changed = coverage(moved([*data.draw(st.permutations(points)), points[0], low]), moved(ends))

    assert [(c.share, c.beyond) for c in changed] == [(c.share, c.beyond) for c in coverage(points, ends)]


# --- spread


def test_the_largest_gap_is_between_neighbours() -> None:
    """Steps of 3-4-5 triangles: the longest is found, whatever the order; equal steps are even."""
    found = spread([(6.0, 3.0), (0.0, 11.0), (3.0, 7.0), (14.0, -3.0), (2.0, 2.0)])
    even = spread([(0.0, 3.0), (1.0, 2.0), (2.0, 1.0), (3.0, 0.0)])

    assert (found.count, found.gap, found.between) == (4, 10.0, (0, 3))
    assert found.evenness == pytest.approx(
        0.75
    )  # shares 1/4, 1/4, 1/2 of the way: (1/4 + 1/4 + 1/3 − 1/3) / (2/3)
    assert even.evenness == pytest.approx(1.0)


def test_evenness_by_hand() -> None:
    """Steps of 1 and 3: (1/4 + 1/2 − 1/2) / (1/2) = 1/2."""
    assert spread([(0.0, 0.0, 4.0), (0.0, 1.0, 3.0), (0.0, 4.0, 0.0)]).evenness == pytest.approx(0.5)


@given(clouds((1, 4)))
def test_the_gap_is_the_longest_edge_of_scipys_tree(points: Points) -> None:
    """For any number of rewards, over the different points of the front."""
    kept = best(points)
    assume(len(kept) > 1)
    edges = minimum_spanning_tree(squareform(distances(np.array(kept)))).data

    found = spread(points)

    assert found.count == len(kept)
    assert found.gap == pytest.approx(edges.max())
    assert found.between is not None
    assert math.dist(*(points[i] for i in found.between)) == found.gap
    assert (found.evenness is None) == (len(kept) == 2)


@settings(max_examples=50)
@given(clouds((2, 3), most=9))
def test_the_gap_is_the_stride_that_reaches_every_point(points: Points) -> None:
    """With steps of the gap one gets from any point of the front to any other; with shorter ones not."""
    found, kept = spread(points), best(points)

    def reached(stride: float) -> bool:
        seen, new = {kept[0]}, [kept[0]]
        while new:
            here = new.pop()
            near = {p for p in kept if p not in seen and math.dist(p, here) <= stride}
            seen |= near
            new += near
        return len(seen) == len(kept)

    assume(found.gap is not None)
    assert found.gap is not None
    assert reached(found.gap)
    assert not reached(found.gap * 0.999)


@given(clouds(), st.data())
def test_spread_does_not_ask_for_the_order(points: Points, data: st.DataObject) -> None:
    """Shuffled, doubled, shifted, all doubled in size: the same evenness and twice the gap."""
    changed = spread([tuple(2 * v + 5 for v in p) for p in [*data.draw(st.permutations(points)), points[-1]]])
    found = spread(points)

    assert changed.gap == (found.gap and 2 * found.gap)
    assert changed.evenness == pytest.approx(found.evenness)
    assert changed.count == found.count


# --- knees


def test_the_knee_is_the_corner() -> None:
    """An L-shaped front has its knee at the corner, half of √2 beyond the chord, with a bend of 90°."""
    found = knees([(0.0, 10.0), (4.0, 10.0), (4.0, 0.0), (1.0, 1.0)])
    corner = knees([(0.0, 10.0), (3.9, 9.9), (4.0, 0.0)])

    assert found.knees == ()  # the corner dominates both ends
    assert corner.knees == (1,)
    assert corner.bulges[1].height == pytest.approx((0.975 + 0.99 - 1) / math.sqrt(2))
    assert corner.bulges[1].bend == pytest.approx(
        math.degrees(math.atan2(-0.01, 0.975) - math.atan2(-0.99, 0.025))
    )
    assert [b.bend for b in (corner.bulges[0], corner.bulges[2])] == [None, None]


def test_a_circles_knee_is_in_its_middle() -> None:
    """On a quarter circle the middle bulges by 1 − 1/√2 and all points bend alike: 90° over 10 steps."""
    found = knees(circle(11))

    assert found.knees == (5,)
    assert found.bulges[5].height == pytest.approx(1 - 1 / math.sqrt(2))
    assert [b.bend for b in found.bulges[1:-1]] == [pytest.approx(9.0)] * 9


@pytest.mark.parametrize(
    "points",
    [
        [(1.0, 2.0)],
        [(1.0, 2.0), (2.0, 1.0)],
        [(1.0, 2.0)] * 5,
        [(1.0, 2.0), (2.0, 1.0), (2.0, 1.0), (1.0, 2.0)],
        [(0.1 * i, 1 - 0.1 * i) for i in range(11)],
        [(1.0, 0.0), (0.4, 0.4), (0.0, 1.0)],
        [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.3, 0.3, 0.3)],
        [(3.0,), (2.0,), (3.0,)],
    ],
)
def test_what_does_not_bulge_has_no_knee(points: Points) -> None:
    """One point, two, equal ones, a straight front, a dented one, a dented triangle, a single reward."""
    assert knees(points).knees == ()


def test_a_dent_bends_inward() -> None:
    """Below the chord, heights and bends are below 0."""
    middle = knees([(1.0, 0.0), (0.4, 0.4), (0.0, 1.0)]).bulges[1]

    assert middle.height == pytest.approx(-0.2 / math.sqrt(2))
    assert middle.bend is not None
    assert middle.bend < 0


def test_a_knee_of_three_rewards_is_beyond_the_plane_of_the_extremes() -> None:
    """The plane goes through the best of each reward, also where those are not at the corners; else the corners'."""
    tilted = [(1.0, 0.2, 0.0), (0.0, 1.0, 0.2), (0.2, 0.0, 1.0)]
    middle = (0.6, 0.6, 0.6)  # on the plane Σz = 1.2 it would be at 0.4
    none = knees([(1.0, 0.9, 0.0), (0.9, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.9)])

    found = knees([*tilted, middle])

    assert found.knees == (3,)
    assert [b.height for b in found.bulges[:3]] == pytest.approx([0.0] * 3, abs=1e-12)
    assert found.bulges[3].height == pytest.approx(0.6 / math.sqrt(3))
    assert [b.bend for b in found.bulges] == [None] * 4
    assert "best point of each reward" in found.how
    assert "best point of each reward" in none.how


def test_extremes_without_a_plane_have_corners() -> None:
    """Where one point is the best in two rewards, bulges are counted from Σz = 1, and that is said."""
    found = knees([(1.0, 1.0, 0.0), (0.0, 0.5, 1.0), (0.5, 0.0, 1.0), (0.9, 0.9, 0.9)])

    assert "corners" in found.how
    assert found.knees == (3,)
    assert found.bulges[3].height == pytest.approx((0.9 * 3 - 1) / math.sqrt(3))


def test_a_plane_that_rises_in_a_reward_is_no_plane_of_extremes() -> None:
    """Extremes (1, .6, .6), (0, 1, 0), (0, 0, 1) lie on −.2z₁ + z₂ + z₃ = 1: it is the corners' plane."""
    found = knees([(1.0, 0.6, 0.6), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.7, 0.7)])

    assert "corners" in found.how
    assert found.knees == (0,)
    assert found.bulges[3].height == pytest.approx(0.9 / math.sqrt(3))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=2, max_size=12))
def test_heights_are_distances_to_the_chord(steps: list[tuple[int, int]]) -> None:
    """For two rewards: the cross product with the chord by its length, in the unit square of the front."""
    points: Points = [(0.0, 0.0)]
    for right, down in steps:
        points.append((points[-1][0] + right, points[-1][1] - down))
    kept = best(points)
    low, span = np.min(kept, axis=0), np.ptp(kept, axis=0)
    unit = {p: (np.array(p) - low) / span for p in kept}
    start, chord = unit[kept[0]], unit[kept[-1]] - unit[kept[0]]

    for bulge in knees(points).bulges:
        step = unit[points[bulge.point]] - start
        distance = (chord[1] * -step[0] + chord[0] * step[1]) / np.hypot(*chord)
        assert bulge.height == pytest.approx(distance, abs=1e-12)


@given(clouds((2, 4)), st.data())
def test_knees_have_no_unit_and_no_order(points: Points, data: st.DataObject) -> None:
    """Shuffled and with each reward stretched, the same points are knees, with the same heights and bends."""
    count = len(points[0])
    order = data.draw(st.permutations(range(len(points))))
    stretch = data.draw(st.lists(st.sampled_from([0.25, 1.0, 8.0]), min_size=count, max_size=count))
    changed = knees([tuple(v * s + 1 for v, s in zip(points[i], stretch, strict=True)) for i in order])
    found = knees(points)

    assert sorted(order[i] for i in changed.knees) == list(found.knees)
    assert {(order[b.point], b.height, b.bend) for b in changed.bulges} == {
        (b.point, b.height, b.bend) for b in found.bulges
    }


# --- all of them


@pytest.mark.parametrize(
    "bad", [[], [()], [(1.0, 2.0), (1.0,)], [(math.nan, 0.0)], [(math.inf, 0.0)], [(1e200, 0.0)]]
)
def test_what_is_no_point_is_refused(bad: Points) -> None:
    """None at all, of different lengths, NaN, infinite, too large for distances."""
    for measure in (spread, knees, lambda points: coverage(points, points)):
        with pytest.raises(ValueError, match=r"point|finite|large"):
            measure(bad)


def test_experts_of_other_rewards_are_refused() -> None:
    """Coverage needs as many rewards of the experts as of the points."""
    with pytest.raises(ValueError, match="different numbers"):
        coverage([(1.0, 2.0)], [(1.0, 2.0, 3.0)])


def test_thousands_of_points_take_no_time() -> None:
    """2000 points of 8 rewards, most of them on the front, in seconds at most on any machine."""
    points = [tuple(row) for row in np.random.default_rng(0).random((2000, 8)).tolist()]

    start = time.process_time()
    spread(points)
    knees(points)
    coverage(points, points[:8])

    assert time.process_time() - start < 3
