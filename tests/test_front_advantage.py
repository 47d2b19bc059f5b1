"""The advantage over M trainings, and the decision over seeds: published values, enumeration by hand, simulations."""

from __future__ import annotations

import math
import time
from itertools import combinations, pairwise
from statistics import mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_front_versus import imgen

from rsoup.front.advantage import Cost, Noise, advantage, equally_spaced, nested_order, subsets
from rsoup.front.batches import expected_rewards, hypervolumes
from rsoup.front.decision import BETTER, INCONCLUSIVE, MATCH, WORSE, decide
from rsoup.front.expected import expected_reward
from rsoup.front.noise import bootstrap
from rsoup.front.pareto import volume

Points = list[tuple[float, ...]]


def expected(points: Any) -> float:
    """The exact expected reward."""
    return expected_reward(points).value


def quarters(least: int, most: int) -> st.SearchStrategy[Points]:
    """Points of two rewards in quarters from 0 to 4, with ties."""
    value = st.integers(0, 16).map(lambda n: n / 4)
    return st.lists(st.tuples(value, value), min_size=least, max_size=most)


# --- which M


@given(st.integers(2, 60), st.data())
def test_spaced_subsets_are_the_papers(count: int, data: st.DataObject) -> None:
    """round(i·(K − 1)/(M − 1)): M different indices with both ends, each at most half a step off."""
    size = data.draw(st.integers(2, count))
    found = equally_spaced(count, size)

    assert found == tuple(round(i * (count - 1) / (size - 1)) for i in range(size))
    assert (found[0], found[-1], len(set(found))) == (0, count - 1, size)
    assert all(abs(j * (size - 1) - i * (count - 1)) * 2 <= size - 1 for i, j in enumerate(found))


def test_spaced_subsets_are_not_nested() -> None:
    """Of 11 runs, the fourth of four is missing among five."""
    assert equally_spaced(11, 4) == (0, 3, 7, 10)
    assert equally_spaced(11, 5) == (0, 2, 5, 8, 10)
    for count, size in ((5, 1), (5, 6), (1, 2)):
        with pytest.raises(ValueError, match="both ends"):
            equally_spaced(count, size)


@given(st.integers(2, 40), st.data())
def test_the_nested_order_halves_the_longest_gap(count: int, data: st.DataObject) -> None:
    """Every index once, the extremes first; each next one leaves no gap longer than there was."""
    extremes = data.draw(st.lists(st.integers(0, count - 1), max_size=4, unique=True))
    order = nested_order(count, extremes)

    assert sorted(order) == list(range(count))
    assert order[: len(extremes)] == tuple(extremes)
    for size in range(len(extremes), count):
        taken = sorted([-1, *order[:size], count])
        longest = max(b - a for a, b in pairwise(taken))
        before = max(i for i in taken if i < order[size])
        after = min(i for i in taken if i > order[size])
        assert after - before == longest
        assert abs((after - order[size]) - (order[size] - before)) <= 1


def test_the_nested_order_of_eleven() -> None:
    """Ends, middle, quarters."""
    assert nested_order(11, [0, 10])[:5] == (0, 10, 5, 2, 7)
    assert nested_order(3, []) == (1, 0, 2)


@given(st.integers(2, 8), st.data())
def test_all_subsets_are_enumerated(count: int, data: st.DataObject) -> None:
    """C(K − E, M − E) of them, with every extreme, each once."""
    extremes = data.draw(st.lists(st.integers(0, count - 1), max_size=count, unique=True))
    size = data.draw(st.integers(len(extremes), count))
    found, exact = subsets(count, size, extremes)

    assert exact
    assert sorted(found) == sorted(s for s in combinations(range(count), size) if set(extremes) <= set(s))


def test_too_many_subsets_are_sampled() -> None:
    """A stated number of them, the same for the same seed, every inner point as often as any other."""
    found, exact = subsets(31, 12, [0, 30], most=1000, sample=5000, seed=1)

    assert (exact, len(found)) == (False, 5000)
    assert found == subsets(31, 12, [0, 30], most=1000, sample=5000, seed=1)[0]
    assert found != subsets(31, 12, [0, 30], most=1000, sample=5000, seed=2)[0]
    assert all(len(set(s)) == 12 and {0, 30} <= set(s) for s in found)
    seen = np.bincount(np.array(found).ravel(), minlength=31)
    assert stats.chisquare(seen[1:-1]).pvalue > 1e-3


def test_exactly_as_many_as_may_be_are_enumerated() -> None:
    """C(5, 2) = 10: with at most 10 all, with at most 9 a sample."""
    assert subsets(7, 4, [0, 6], most=10)[1]
    assert not subsets(7, 4, [0, 6], most=9)[1]


@pytest.mark.parametrize("extremes", [[0, 0], [0, 5], [-1]])
def test_extremes_that_are_no_points_are_refused(extremes: list[int]) -> None:
    """Twice the same, or none of the points."""
    with pytest.raises(ValueError, match="different points"):
        nested_order(5, extremes)
    with pytest.raises(ValueError, match="different points"):
        subsets(5, 3, extremes)
    with pytest.raises(ValueError, match="extremes"):
        subsets(5, 1, [0, 4])


# --- the curve


def test_image_generation_is_as_published() -> None:
    """Expected rewards .75, .7601, .7672 of 2, 3, 4 runs, .7693 of all 7; the soups' .8411 is .0718 above."""
    ours, theirs = imgen()
    found = advantage(ours, theirs, expected, cost=Cost(2, 11))
    spaced = {row.trainings: row.spaced.value for row in found.curve if row.spaced}

    assert found.ours == pytest.approx(0.8410796474, abs=1e-10)
    assert [found.ours - spaced[m] for m in (2, 3, 4)] == pytest.approx([0.75, 0.7601, 0.7672], abs=5e-5)
    assert found.ours - spaced[7] == pytest.approx(0.7692692595, abs=1e-10)
    assert spaced[7] == pytest.approx(0.0718, abs=5e-5)
    assert [found.worth(kind) for kind in (lambda r: r.spaced, lambda r: r.nested, lambda r: r.average)] == [
        7,
        7,
        7,
    ]
    assert [row.cost for row in found.curve] == [Cost(m, m) for m in range(2, 8)]
    assert found.cost == Cost(2, 11)


@settings(max_examples=50)
@given(quarters(1, 5), quarters(2, 6))
def test_the_curve_is_its_definition(ours: Points, theirs: Points) -> None:
    """Spaced, nested, and mean, least and largest over all subsets with both ends; here of hypervolume."""
    found = advantage(ours, theirs, volume)

    assert [row.trainings for row in found.curve] == list(range(2, len(theirs) + 1))
    for row in found.curve:
        every = [
            volume(ours) - volume([theirs[i] for i in (0, *inner, len(theirs) - 1)])
            for inner in combinations(range(1, len(theirs) - 1), row.trainings - 2)
        ]
        assert row.spaced is not None
        picked = [theirs[i] for i in equally_spaced(len(theirs), row.trainings)]
        assert row.spaced.value == pytest.approx(volume(ours) - volume(picked))
        assert row.average.value == pytest.approx(mean(every))
        assert (row.average.low, row.average.high) == pytest.approx((min(every), max(every)))
        assert row.average.deviation == pytest.approx(float(np.std(every)))
        assert (row.average.subsets, row.average.exact) == (len(every), True)
        assert row.average.low - 1e-12 <= row.nested.value <= row.average.high + 1e-12


@settings(max_examples=50)
@given(quarters(1, 4), quarters(2, 8))
def test_nested_and_averaged_curves_fall(ours: Points, theirs: Points) -> None:
    """Where more points never lower the measure, more trainings never raise the advantage; all end at one value."""
    found = advantage(ours, theirs, expected, many=expected_rewards)

    for kind in (lambda row: row.nested.value, lambda row: row.average.value):
        curve = [kind(row) for row in found.curve]
        assert all(b <= a + 1e-12 for a, b in pairwise(curve))
    last = found.curve[-1]
    assert last.spaced is not None
    assert last.spaced.value == last.nested.value == last.average.value


def test_the_spaced_curve_need_not_fall() -> None:
    """The middle of five runs is among three of them and not among four: the advantage rises, then falls."""
    theirs: Points = [(0.0, 1.0), (0.2, 0.9), (0.9, 0.9), (0.9, 0.2), (1.0, 0.0)]
    found = advantage([(0.8, 0.8)], theirs, expected)
    spaced = [row.spaced.value for row in found.curve if row.spaced]

    assert spaced[2] > 0 > spaced[1] == pytest.approx(spaced[3])
    assert found.worth(lambda row: row.spaced) == 4  # though three of them beat it
    assert found.worth(lambda row: row.nested) == 2


@settings(max_examples=30)
@given(quarters(1, 4), quarters(3, 6), st.data())
def test_the_average_does_not_ask_for_the_order(ours: Points, theirs: Points, data: st.DataObject) -> None:
    """Inner points shuffled, ours shuffled and doubled: the same average; extremes named by index: the same."""
    inner = data.draw(st.permutations(theirs[1:-1]))
    found = advantage(ours, theirs, volume)
    shuffled = advantage(
        [*data.draw(st.permutations(ours)), ours[0]], [theirs[0], *inner, theirs[-1]], volume
    )
    moved = advantage(ours, [*inner, theirs[0], theirs[-1]], volume, extremes=[len(inner), len(inner) + 1])

    assert [row.average.value for row in shuffled.curve] == pytest.approx(
        [row.average.value for row in found.curve]
    )
    assert [row.average.value for row in moved.curve] == pytest.approx(
        [row.average.value for row in found.curve]
    )
    assert all(row.spaced is None for row in moved.curve)


def test_three_experts_are_always_among_the_runs() -> None:
    """With an expert per reward the curve begins at three, and there are no spaced subsets."""
    theirs: Points = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5), (0.4, 0.4, 0.4)]
    found = advantage([(0.6, 0.6, 0.6)], theirs, volume, extremes=[0, 1, 2], each_cost=Cost(1, 20))

    assert [row.trainings for row in found.curve] == [3, 4, 5]
    assert found.curve[0].average.value == pytest.approx(0.216)
    assert found.curve[1].average.value == pytest.approx(0.216 - (0.125 + 0.064) / 2)
    assert all(row.spaced is None for row in found.curve)
    assert (found.cost, found.curve[2].cost) == (Cost(3, 1), Cost(5, 100))


def test_what_a_soup_is_worth() -> None:
    """The largest M that it is not worse than; none where two trainings beat it; with a tolerance, more."""
    theirs: Points = [(0.0, 1.0), (0.6, 0.9), (0.9, 0.6), (1.0, 0.0)]

    def worth(points: Points, within: float = 0.0) -> tuple[int | None, ...]:
        found = advantage(points, theirs, expected)
        return tuple(found.worth(kind, within=within) for kind in (lambda r: r.spaced, lambda r: r.average))

    assert worth(theirs) == (4, 4)
    assert worth([(0.5, 0.5)]) == (None, None)
    assert worth([(0.0, 1.0), (1.0, 0.0)]) == (2, 2)
    assert worth([(0.0, 1.0), (1.0, 0.0)], within=1.0) == (4, 4)


def test_a_sample_of_subsets_says_so() -> None:
    """Not exact, their number, and close to the mean over all of them."""
    generator = np.random.default_rng(0)
    theirs, ours = generator.random((12, 2)).tolist(), generator.random((5, 2)).tolist()
    every = advantage(ours, theirs, volume, many=hypervolumes)
    some = advantage(ours, theirs, volume, many=hypervolumes, most=100, sample=400)

    rows = list(zip(every.curve, some.curve, strict=True))
    assert [b.average.exact for _, b in rows] == [math.comb(10, a.trainings - 2) <= 100 for a, _ in rows]
    for a, b in rows:
        assert a.average.exact
        assert b.average.value == pytest.approx(
            a.average.value, abs=5 * a.average.deviation / math.sqrt(400) + 1e-12
        )
        assert b.average.subsets == (a.average.subsets if b.average.exact else 400)


# --- with errors


def test_exact_values_have_no_interval() -> None:
    """Errors of 0: every interval is the value, also where a draw takes 25 of 70 subsets."""
    generator = np.random.default_rng(0)
    many = generator.random((3, 2)).tolist(), generator.random((10, 2)).tolist()
    for ours, theirs in (imgen(), many):
        noise = Noise([(0.0, 0.0)] * len(ours), [(0.0, 0.0)] * len(theirs), draws=100)
        found = advantage(ours, theirs, expected, many=expected_rewards, noise=noise)
        assert found.curve[-1].trainings == len(theirs)
        for row in found.curve:
            for among in (row.spaced, row.nested, row.average):
                assert among is not None
                assert among.interval is not None
                assert among.interval.value == among.value
                assert (among.interval.low, among.interval.high) == pytest.approx((among.value, among.value))
    assert advantage(*many, expected).curve[0].average.interval is None


def test_an_expert_in_both_sets_is_one_measurement() -> None:
    """Soups that are the very runs have no advantage and no noise in it; measured apart, they have."""
    theirs: Points = [(0.0, 1.0), (0.7, 0.7), (1.0, 0.0)]
    shared = (
        advantage(theirs, theirs, expected, noise=Noise([(0.1, 0.1)] * 3, [(0.1, 0.1)] * 3)).curve[-1].average
    )
    apart = (
        advantage(theirs, theirs, expected, noise=Noise([(0.1, 0.1)] * 3, [(0.1, 0.11)] * 3))
        .curve[-1]
        .average
    )

    assert shared.interval is not None
    assert apart.interval is not None
    assert (shared.interval.low, shared.interval.high) == (0.0, 0.0)
    assert apart.interval.high - apart.interval.low > 0.1


def test_the_averages_interval_is_the_bootstrap_of_the_average() -> None:
    """For M = 3 of 5: the interval of volume(ours) − the mean over the three subsets, from the same draws."""
    generator = np.random.default_rng(0)
    ours, theirs = generator.random((3, 2)).tolist(), generator.random((5, 2)).tolist()
    errors, counts = [[0.1, 0.1]] * 8, [[4, 4]] * 8
    noise = Noise(errors[:3], errors[3:], counts[:3], counts[3:], draws=100, confidence=0.9)

    def figure(points: Any) -> float:
        runs = points[3:]
        return volume(points[:3]) - mean(volume([runs[0], runs[i], runs[4]]) for i in (1, 2, 3))

    direct = bootstrap([*ours, *theirs], errors, counts, figure, draws=100, seed=5, confidence=0.9)
    found = advantage(ours, theirs, volume, noise=noise, seed=5).curve[1].average.interval

    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((direct.value, direct.low, direct.high))
    assert (found.bias, found.freedom) == pytest.approx((direct.bias, direct.freedom))


def test_intervals_hold_the_true_advantage() -> None:
    """200 noisy measurements of soups and runs: the true advantage over M lies inside 90 to 99 % of 95 % intervals."""
    angles = np.linspace(0, math.pi / 2, 11)
    true = np.stack([np.sin(angles), np.cos(angles)], axis=1)
    runs = 0.95 * true[::2]
    truth = {
        m: advantage(true.tolist(), runs.tolist(), expected).curve[m - 2].average.value for m in (2, 4, 6)
    }
    generator = np.random.default_rng(0)
    inside = dict.fromkeys(truth, 0)
    for seed in range(200):
        ours = true + 0.03 * generator.standard_normal(true.shape)
        theirs = runs + 0.03 * generator.standard_normal(runs.shape)
        noise = Noise([(0.03, 0.03)] * 11, [(0.03, 0.03)] * 6, draws=200)
        found = advantage(
            ours.tolist(), theirs.tolist(), expected, many=expected_rewards, noise=noise, seed=seed
        )
        for m, value in truth.items():
            interval = found.curve[m - 2].average.interval
            assert interval is not None
            inside[m] += interval.low <= value <= interval.high

    assert all(180 <= count <= 198 for count in inside.values())


def test_the_worth_has_a_range() -> None:
    """Surely worth fewer trainings than it may be; without errors nothing is known of either."""
    theirs: Points = [(0.0, 1.0), (0.6, 0.9), (0.9, 0.6), (1.0, 0.0)]
    ours: Points = [(0.0, 1.0), (0.85, 0.75), (1.0, 0.0)]
    found = advantage(ours, theirs, expected, noise=Noise([(0.04, 0.04)] * 3, [(0.04, 0.041)] * 4))
    least, most = found.worth_between(lambda row: row.average)

    assert least is not None
    assert most is not None
    assert least < most == 4
    assert advantage(ours, theirs, expected).worth_between(lambda row: row.average) == (None, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        ([], [(1.0, 1.0)] * 2, {}),
        ([(1.0, 1.0)], [(1.0, 1.0)], {}),
        ([(1.0, 1.0)], [(1.0,)] * 2, {}),
        ([(math.nan, 1.0)], [(1.0, 1.0)] * 2, {}),
        ([(1.0, 1.0)], [(1.0, 1.0)] * 2, {"extremes": [0, 2]}),
        ([(1.0, 1.0)], [(1.0, 1.0)] * 2, {"noise": Noise([(1.0, 1.0)], [(1.0, 1.0)])}),
        ([(1.0, 1.0)], [(1.0, 1.0)] * 2, {"noise": Noise([(None, 1.0)], [(1.0, 1.0)] * 2)}),
    ],
)
def test_what_has_no_curve_is_refused(ours: Any, theirs: Any, options: dict[str, Any]) -> None:
    """Nothing of ours, one of theirs, other rewards, NaN, extremes that are not there, errors of another shape."""
    with pytest.raises(ValueError, match=r"point|two|finite|rewards|error"):
        advantage(ours, theirs, volume, **options)


def test_a_measure_that_is_not_finite_is_refused() -> None:
    """Of our points or of some of theirs."""
    for measure in (lambda _: math.nan, lambda points: math.inf if len(points) == 2 else 1.0):
        with pytest.raises(ValueError, match="measure is not finite"):
            advantage([(1.0,)], [(1.0,), (2.0,), (3.0,)], measure)


def test_a_curve_of_twenty_one_runs_takes_seconds_at_most() -> None:
    """2¹⁹ subsets: those of up to 20 000 a size, samples of the others, all at once."""
    points = np.random.default_rng(0).random((21, 2)).tolist()

    start = time.process_time()
    found = advantage(points, points, expected, many=expected_rewards)

    assert time.process_time() - start < 6
    assert [row.average.exact for row in found.curve] == [
        math.comb(19, m - 2) <= 20_000 for m in range(2, 22)
    ]


# --- the decision over seeds


def test_the_four_verdicts() -> None:
    """Above 0, above −δ, below 0 as a whole, or neither."""
    spread = [-0.02, -0.01, -0.005, 0.0, 0.005, 0.01, 0.02] * 2

    def verdict(shift: float, delta: float) -> str:
        return decide([d + shift for d in spread], delta).verdict

    assert verdict(0.05, 0.01) == BETTER
    assert verdict(0.0, 0.01) == MATCH
    assert verdict(-0.05, 0.01) == WORSE
    assert verdict(-0.01, 0.01) == WORSE  # certainly below 0, and not certainly within δ
    assert verdict(-0.005, 0.008) == INCONCLUSIVE
    assert verdict(-0.05, 0.1) == MATCH  # certain, and smaller than δ


def test_few_seeds_decide_nothing() -> None:
    """Fewer than ten are inconclusive, whatever they say, and it is said why; the number can be set."""
    found = decide([1.0] * 9, 0.1)

    assert (found.verdict, found.few, found.seeds) == (INCONCLUSIVE, True, 9)
    assert "10 seeds are needed" in found.how
    assert decide([1.0] * 9, 0.1, least=9).verdict == BETTER
    assert decide([0.0] * 10, 0.0).verdict == INCONCLUSIVE  # exactly equal is not above −0


@pytest.mark.parametrize("law", ["normal", "skewed", "flat"])
@pytest.mark.parametrize("seeds", [10, 20])
def test_the_interval_of_the_mean_is_covered(law: str, seeds: int) -> None:
    """A nominal 95 % interval holds the true mean of 600 samples in 90 to 99 % of them, with ten seeds too."""
    generator = np.random.default_rng(0)
    draw = {
        "normal": generator.standard_normal,
        "skewed": generator.standard_gamma,
        "flat": generator.random,
    }[law]
    true = {"normal": 0.0, "skewed": 4.0, "flat": 0.5}[law]
    inside = 0
    for seed in range(600):
        sample = draw(4.0, size=seeds) if law == "skewed" else draw(size=seeds)
        found = decide(sample.tolist(), 0.1, seed=seed, draws=1000)
        inside += found.low <= true <= found.high

    assert 0.90 * 600 <= inside <= 0.99 * 600


def test_the_interval_is_wider_than_the_plain_percentiles() -> None:
    """For ten normal differences it is about Student's, 2.26 standard errors to each side."""
    sample = stats.norm.ppf((np.arange(10) + 0.5) / 10)
    found = decide(sample.tolist(), 0.1, draws=100_000)

    assert (found.high - found.low) / 2 == pytest.approx(
        stats.t.ppf(0.975, 9) * sample.std(ddof=1) / math.sqrt(10), rel=0.05
    )


@settings(max_examples=25)
@given(
    st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=15),
    st.sampled_from([0.25, 4.0]),
    st.data(),
)
def test_decisions_have_no_order_and_no_unit(
    differences: list[float], scale: float, data: st.DataObject
) -> None:
    """Shuffled, or all multiplied by a > 0 with δ: the same verdict and the interval times a."""
    found = decide(differences, 1.0, draws=200, least=2)
    shuffled = decide(data.draw(st.permutations(differences)), 1.0, draws=200, least=2)
    scaled = decide([scale * d for d in differences], scale, draws=200, least=2)

    assert found == shuffled
    assert (scaled.verdict, scaled.low, scaled.high) == (found.verdict, scale * found.low, scale * found.high)
    assert found.low <= found.high


@pytest.mark.parametrize(
    ("differences", "delta", "confidence"),
    [([], 0.1, 0.95), ([1.0], 0.1, 0.95), ([1.0, math.nan], 0.1, 0.95), ([1.0, 2.0], -0.1, 0.95),
     ([1.0, 2.0], math.nan, 0.95), ([1.0, 2.0], math.inf, 0.95), ([1.0, 2.0], 0.1, 1.0), ([1.0, 2.0], 0.1, 0.0)],
)  # fmt: skip
def test_what_decides_nothing_is_refused(differences: list[float], delta: float, confidence: float) -> None:
    """Fewer than two seeds, NaN, δ below 0 or not finite, an odd confidence."""
    with pytest.raises(ValueError, match=r"two seeds|finite|confidence"):
        decide(differences, delta, confidence)
