"""Preferences learnt from comparisons: files read strictly, the posterior by quadrature, simulated users as the oracle."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from rsoup.errors import AccessError, RefusedFileError, UsageError
from rsoup.select.bradley_terry import Preference, learn, next_question
from rsoup.select.comparisons import Comparison, parse_comparisons, read_comparisons
from rsoup.select.posterior import mode

Points = dict[str, tuple[float, ...]]
NAMES = ["p0", "p1", "0.5-0.5"]
TWO: Points = {"a": (0.0, 1.0), "b": (1.0, 0.0), "c": (0.6, 0.6), "d": (0.7, 0.5)}


# --- files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("better,worse\np0,p1\n", [Comparison("p0", "p1")]),
        ("worse,count,better\r\np0,3,p1\r\n", [Comparison("p1", "p0", count=3)]),
        ('\ufeff"better","worse"\n\n" p0 ",0.5-0.5\n,\n', [Comparison("p0", "0.5-0.5")]),
        ("a,b,winner\np0,p1,a\np0,p1,b\n", [Comparison("p0", "p1"), Comparison("p1", "p0")]),
        ("winner,b,a\np0,p1,p0\np1,p1,p0\n", [Comparison("p0", "p1"), Comparison("p1", "p0")]),
        ("a,b,winner,count\np0,p1,tie,7\n", [Comparison("p0", "p1", True, 7)]),
    ],
)
def test_comparisons_are_what_the_file_says(tmp_path: Path, text: str, expected: list[Comparison]) -> None:
    """Both shapes, columns in any order, counts, ties, blanks and a byte order mark."""
    (tmp_path / "pairs.csv").write_bytes(text.encode())

    assert read_comparisons(str(tmp_path / "pairs.csv"), NAMES) == tuple(expected)


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 0, "no comparison"),
        ("better,worse\n", 0, "no comparison"),
        ("better,worst\np0,p1\n", 1, "columns"),
        ("better,worse,winner\np0,p1,p0\n", 1, "columns"),
        ("better,worse,worse\np0,p1,p1\n", 1, "columns"),
        ("better,worse,user\np0,p1,u\n", 1, "columns"),
        ("p0,p1\np1,p0\n", 1, "columns"),
        ("better,worse\np0,p1\np0\n", 3, "1 cells instead of 2"),
        ("better,worse\np0,p1,\n", 2, "3 cells instead of 2"),
        ("better,worse\np0,p0\n", 2, "with itself"),
        ("better,worse\np0,\n", 2, "missing"),
        ("better,worse,count\np0,p1,0\n", 2, "count '0'"),
        ("better,worse,count\np0,p1,1.0\n", 2, "count '1.0'"),
        ("better,worse,count\np0,p1,\n", 2, "count ''"),
        ("better,worse,count\np0,p1,-3\n", 2, "count '-3'"),
        ("better,worse,count\np0,p1,1000000001\n", 2, "count"),
        ("better,worse,count\np0,p1,１\n", 2, "count"),
        ("a,b,winner\np0,p1,0.5-0.5\n", 2, "none of"),
        ("a,b,winner\np0,p1,A\n", 2, "none of"),
        ("a,b,winner\np0,p1,\n", 2, "none of"),
        ('better,worse\np0,"p1\n', 2, ""),
    ],
)
def test_what_is_no_comparison_is_refused_with_its_line(text: str, line: int, what: str) -> None:
    """E0262, the line, and what a file looks like."""
    with pytest.raises(UsageError) as refused:
        parse_comparisons(text, NAMES, "pairs.csv")

    assert (refused.value.code, bool(refused.value.hint)) == ("E0262", True)
    assert what in refused.value.message
    assert refused.value.where == (f"pairs.csv:{line}" if line else "pairs.csv")


def test_a_winner_that_could_be_either_is_refused() -> None:
    """A point called `a` or `tie` in the other column; where both readings are the same there is no doubt."""
    text = "a,b,winner\nb,a,{}\n"
    for winner in "ab":
        with pytest.raises(UsageError, match="is a column and another point's name"):
            parse_comparisons(text.format(winner), ["a", "b"], "pairs.csv")
    with pytest.raises(UsageError, match="is a column and another point's name"):
        parse_comparisons("a,b,winner\ntie,p1,tie\n", ["tie", "p1"], "pairs.csv")
    assert parse_comparisons("a,b,winner\na,b,a\n", ["a", "b"], "pairs.csv") == (Comparison("a", "b"),)


def test_names_of_no_point_are_listed_with_their_lines() -> None:
    """E0264: all of them, where each occurs first, the nearest point, and the points there are."""
    with pytest.raises(UsageError) as refused:
        parse_comparisons("better,worse\np0,O.5-O.5\nq,p1\nq,p0\n", NAMES, "pairs.csv")

    assert refused.value.code == "E0264"
    assert [problem.where for problem in refused.value.details] == ["line 2", "line 3"]
    assert "did you mean '0.5-0.5'?" in refused.value.details[0].what
    assert "2 of the names" in refused.value.message
    assert "'p0', 'p1' and '0.5-0.5'" in str(refused.value.hint)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Not there, a folder, not UTF-8."""
    (tmp_path / "latin.csv").write_bytes(b"better,worse\np\xe9,p1\n")
    with pytest.raises(UsageError, match="UTF-8"):
        read_comparisons(str(tmp_path / "latin.csv"), NAMES)
    with pytest.raises(AccessError):
        read_comparisons(str(tmp_path / "nothing.csv"), NAMES)
    with pytest.raises(RefusedFileError):
        read_comparisons(str(tmp_path), NAMES)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["a,b,winner", "p0", "p1", ",", "\n", "tie", '"', "9"])).map("".join)
)
def test_any_text_is_comparisons_or_refused(text: str) -> None:
    """Nothing but UsageError E0262 and E0264."""
    found: UsageError | None = None
    try:
        parse_comparisons(text, NAMES, "pairs.csv")
    except UsageError as refused:
        found = refused

    assert found is None or found.code in ("E0262", "E0264")


# --- the posterior


def by_quadrature(
    comparisons: Sequence[Comparison], points: Points, sharpness: float = 10.0
) -> dict[str, Any]:
    """Mean, deviation and bounds of μ₁ and the median of 1/τ, on a grid over (μ, log 1/τ); two rewards."""
    c = sharpness * (2**0.5 - 1)
    mu, logs = (np.arange(1500) + 0.5) / 1500, np.linspace(math.log(c) - 12, math.log(c) + 14, 2500)
    share, s = np.meshgrid(mu, np.exp(logs), indexing="ij")
    height = 2 * np.log(s) - 3 * np.log(c + s)  # s^(N−1)/(c+s)^(N+1), and s for the step in log s
    for each in comparisons:
        d = np.subtract(points[each.better], points[each.worse])
        margin = s * (share * d[0] + (1 - share) * d[1])
        lost = np.logaddexp(0, -margin)
        height -= each.count * ((lost + np.logaddexp(0, margin)) / 2 if each.tie else lost)
    mass = np.exp(height - height.max())
    mass /= mass.sum()
    over_mu, below = mass.sum(axis=1), np.cumsum(mass.sum(axis=1))
    mean = float(over_mu @ mu)
    return {
        "mean": mean,
        "deviation": math.sqrt(over_mu @ (mu - mean) ** 2),
        "low": float(mu[np.searchsorted(below, 0.025)]),
        "high": float(mu[np.searchsorted(below, 0.975)]),
        "sharpness": math.exp(logs[np.searchsorted(np.cumsum(mass.sum(axis=0)), 0.5)]),
    }


@pytest.mark.parametrize(
    "comparisons",
    [
        [],
        [Comparison("a", "b")],
        [Comparison("a", "b", count=50)],
        [Comparison("a", "b", tie=True, count=7)],
        [
            Comparison("a", "b"),
            Comparison("c", "a"),
            Comparison("c", "b", count=3),
            Comparison("d", "c", count=2),
        ],
        [Comparison("c", "d", count=1000), Comparison("d", "c", count=300), Comparison("b", "c", count=10)],
        [Comparison("c", "d", count=10**6), Comparison("c", "b", count=10**6)],
    ],
)
def test_the_posterior_is_that_of_quadrature(comparisons: list[Comparison]) -> None:
    """Mean, deviation, interval and sharpness, for none, few, many, contradicting, tied and separable comparisons."""
    exact = by_quadrature(comparisons, TWO)

    found = learn(comparisons, TWO)

    unit = exact["deviation"]
    assert found.mu[0] == pytest.approx(exact["mean"], abs=0.1 * unit)
    assert math.sqrt(found.covariance[0][0]) == pytest.approx(unit, rel=0.08)
    assert found.low[0] == pytest.approx(exact["low"], abs=0.25 * unit + 1e-3)
    assert found.high[0] == pytest.approx(exact["high"], abs=0.25 * unit + 1e-3)
    assert found.sharpness == pytest.approx(exact["sharpness"], rel=0.12)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 16])
def test_without_comparisons_it_is_the_prior(size: int) -> None:
    """μ is uniform on the simplex, so that each μₖ is Beta(1, N−1); the median of 1/τ is what was given."""
    points = {str(k): tuple(float(j == k) for j in range(size)) for k in range(size)}
    found = learn([], points, confidence=0.9, sharpness=4.0)

    assert (found.comparisons, found.agreement) == (0, None)
    assert found.mu == pytest.approx([1 / size] * size, abs=0.02)
    assert found.sharpness == pytest.approx(4.0, rel=0.2)
    assert found.best == pytest.approx([1 / size] * size, abs=0.04)
    if size > 1:
        assert found.low == pytest.approx([scipy.stats.beta.ppf(0.05, 1, size - 1)] * size, abs=0.02)
        assert found.high == pytest.approx([scipy.stats.beta.ppf(0.95, 1, size - 1)] * size, abs=0.06)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=3, max_size=6),
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans(), st.integers(1, 1000)), max_size=6
    ),
)
def test_what_is_learnt_is_a_preference(
    rewards: list[tuple[float, ...]], rows: list[tuple[int, int, bool, int]]
) -> None:
    """μ̂ ≥ 0, Σμ̂ = 1, within its interval in [0, 1], finite, the same each time; shares of being best sum to 1."""
    points = {str(i): point for i, point in enumerate(rewards)}
    pairs = [Comparison(str(a), str(b), tie, count) for a, b, tie, count in rows if a != b]

    found = learn(pairs, points)

    assert math.fsum(found.mu) == pytest.approx(1)
    assert math.fsum(found.best) == pytest.approx(1)
    assert all(
        0 <= low <= mu <= high <= 1 for low, mu, high in zip(found.low, found.mu, found.high, strict=True)
    )
    assert 0 < found.sharpness < math.inf
    assert found == learn(pairs, points)


def test_ties_are_half_wins_and_counts_are_rows() -> None:
    """Two ties are one win of each; count = 3 is three rows, and their order does not matter."""
    tied = learn([Comparison("a", "c", tie=True, count=2)], TWO)
    halves = learn([Comparison("a", "c"), Comparison("c", "a")], TWO)
    assert tied.mu == pytest.approx(halves.mu)
    assert (tied.low, tied.agreement) == (pytest.approx(halves.low), 0.5)
    rows = [Comparison("a", "b"), *[Comparison("c", "a")] * 3]
    assert learn(rows, TWO) == learn([Comparison("a", "b"), Comparison("c", "a", count=3)], TWO)
    assert learn(rows[::-1], TWO).mu == pytest.approx(learn(rows, TWO).mu)


def test_agreement_is_the_share_of_answers_that_are_explained() -> None:
    """9 answers for the reward that matters and 1 against: 90 %; a tie counts half."""
    pairs = [Comparison("b", "a", count=9), Comparison("a", "b")]
    assert learn(pairs, TWO).agreement == pytest.approx(0.9)
    assert learn([*pairs, Comparison("a", "b", tie=True, count=10)], TWO).agreement == pytest.approx(0.7)


def test_a_reward_that_never_differs_stays_open() -> None:
    """What no comparison tells about keeps the prior's wide interval, the others get narrow in their ratio."""
    points = {name: (*point, 0.5) for name, point in TWO.items()}
    found = learn([Comparison("c", "a", count=300), Comparison("c", "b", count=300)], points)

    assert found.high[2] - found.low[2] > 0.7


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("size", [1, 2, 4, 16])
def test_the_mode_is_the_top(size: int, scale: float) -> None:
    """No start of scipy's optimiser finds a higher w, and the slope there is 0."""
    random = np.random.default_rng(size)
    differences, counts = scale * random.uniform(-1, 1, (40, size)), random.integers(1, 9, 40).astype(float)

    def lost(logs: Any) -> float:
        w = np.exp(logs)
        margins = np.logaddexp(0, -differences @ w)
        return float(counts @ margins - 2 / 3 * logs.sum() + (size + 1) * np.log(3.0 + w.sum()))

    found = np.log(mode(differences, counts, 3.0))

    assert scipy.optimize.approx_fprime(found, lost, 1e-6) == pytest.approx(np.zeros(size), abs=2e-3)
    for start in (-3.0, 0.0, 3.0):
        other = scipy.optimize.minimize(lost, np.full(size, start))
        assert lost(found) <= other.fun + 1e-7


# --- simulated users


def curve(size: int, count: int, random: np.random.Generator) -> Points:
    """Points of a concave front: reward k is 1 − (1 − λₖ)²."""
    return {
        str(i): tuple(map(float, 1 - (1 - mix) ** 2))
        for i, mix in enumerate(random.dirichlet(np.ones(size), count))
    }


def answer(
    a: str, b: str, points: Points, mu: Any, sharpness: float, random: np.random.Generator
) -> Comparison:
    """What a user with this μ says: Bradley and Terry's law."""
    margin = sharpness * float(mu @ np.subtract(points[a], points[b]))
    return Comparison(a, b) if random.random() < 1 / (1 + math.exp(-margin)) else Comparison(b, a)


def asked(size: int, answers: int, sharpness: float, seed: int) -> tuple[Any, Preference]:
    """A random user, and what is learnt from its answers about random pairs of eleven points."""
    random = np.random.default_rng(seed)
    mu, points = random.dirichlet(np.ones(size)), curve(size, 11, random)
    pairs = [map(str, random.choice(11, 2, replace=False)) for _ in range(answers)]
    return mu, learn([answer(*pair, points, mu, sharpness, random) for pair in pairs], points)


@pytest.mark.parametrize(("size", "sharpness"), [(2, 30.0), (4, 60.0)])
def test_more_answers_find_the_preference(size: int, sharpness: float) -> None:
    """The mean error shrinks by more than a third with each eightfold number of pairs; 95 % intervals hold μ as often."""
    errors, inside = [], []
    for answers in (8, 64, 512):
        users = [asked(size, answers, sharpness, seed) for seed in range(24)]
        errors.append(np.mean([np.abs(np.subtract(found.mu, mu)).mean() for mu, found in users]))
        inside += [
            low <= m <= high
            for mu, found in users
            for m, low, high in zip(mu, found.low, found.high, strict=True)
        ]

    assert errors[1] < errors[0] / 1.5
    assert errors[2] < errors[1] / 1.5
    assert errors[2] < 0.05
    # 72 users; 0.89 is 2.3 standard errors below 0.95
    assert 0.89 < np.mean(inside) <= 1


@pytest.mark.long
def test_asking_what_is_open_learns_faster() -> None:
    """After 12 answers, users who were asked the next question are known at least 10 % better than with random pairs."""
    chosen, drawn = [], []
    for seed in range(30):
        random = np.random.default_rng(seed)
        mu, points = random.dirichlet(np.ones(2)), curve(2, 12, random)
        pairs: list[Comparison] = []
        for _ in range(12):
            question = next_question(learn(pairs, points), list(points.values()))
            assert question is not None
            pairs.append(answer(str(question.a), str(question.b), points, mu, 20.0, random))
        chosen.append(abs(learn(pairs, points).mu[0] - mu[0]))
        others = [map(str, random.choice(12, 2, replace=False)) for _ in range(12)]
        found = learn([answer(*pair, points, mu, 20.0, random) for pair in others], points)
        drawn.append(abs(found.mu[0] - mu[0]))

    assert np.mean(chosen) < 0.9 * np.mean(drawn)


def test_the_best_point_is_told_with_its_probability() -> None:
    """A user of the second reward alone: the expert of it is surely best; of equal points the first counts."""
    points = TWO | {"a again": TWO["a"]}
    found = learn([Comparison("a", "c", count=200), Comparison("d", "b", count=200)], points)

    assert found.best[0] > 0.99
    assert found.best[4] == 0
    assert learn([], {"x": (1.0, 0.0), "y": (0.0, 1.0), "z": (-1.0, -1.0)}).best[2] == 0


# --- the next question


@settings(max_examples=40)
@given(st.lists(st.tuples(*[st.integers(-3, 3).map(float)] * 3), min_size=1, max_size=8))
def test_the_next_question_is_the_most_telling_pair(rewards: list[tuple[float, ...]]) -> None:
    """The largest p(1 − p) dᵀCov(μ)d of all pairs, the first of equal ones, never two equal points."""
    points = {f"x{i}": point for i, point in enumerate(rewards)}
    preference = learn([Comparison("x0", "x1", count=2)] if len(rewards) > 1 else [], points, sharpness=1.0)
    mu, covariance = np.array(preference.mu), np.array(preference.covariance)
    scores = {}
    for b in range(len(rewards)):
        for a in range(b):
            d = np.subtract(rewards[a], rewards[b])
            p = 1 / (1 + math.exp(-preference.sharpness * float(mu @ d)))
            scores[a, b] = (p * (1 - p) * float(d @ covariance @ d), p, float(d @ covariance @ d))

    found = next_question(preference, rewards)

    most = max((score for score, _, _ in scores.values()), default=0.0)
    assert (found is None) == (most < 1e-20)
    if found is not None:
        score, p, variance = scores[found.a, found.b]
        assert score == pytest.approx(most, rel=1e-6)
        assert rewards[found.a] != rewards[found.b]
        assert (found.probability, found.deviation) == (pytest.approx(p), pytest.approx(math.sqrt(variance)))


def test_where_no_pair_tells_anything_none_is_asked() -> None:
    """One point, equal points, one reward."""
    found = learn([], TWO)
    assert next_question(found, [(1.0, 2.0)]) is None
    assert next_question(found, [(1.0, 2.0)] * 5) is None
    assert next_question(learn([], {"a": (1.0,), "b": (2.0,)}), [(1.0,), (2.0,)]) is None
    question = next_question(found, [(1.0, 2.0), (1.0, 2.0), (2.0, 1.0)])
    assert question is not None
    assert (question.a, question.b) == (0, 2)


# --- what cannot be meant


def test_rewards_that_cannot_be_compared_are_refused() -> None:
    """ValueError for the caller's mistakes; E0265 for more rewards than comparisons can tell, and hopeless scales."""
    for points in ({}, {"a": ()}, {"a": (1.0,), "b": (1.0, 2.0)}, {"a": (math.nan,)}, {"a": (math.inf, 1.0)}):
        with pytest.raises(ValueError, match=r"rewards|finite"):
            learn([], points)
    for options in ({"confidence": 1.0}, {"confidence": 0.0}, {"sharpness": 0.0}, {"sharpness": math.nan}):
        with pytest.raises(ValueError, match="confidence"):
            learn([], TWO, **options)
    with pytest.raises(ValueError, match="other rewards"):
        next_question(learn([], TWO), [(1.0,), (2.0,)])
    with pytest.raises(KeyError):
        learn([Comparison("a", "x")], TWO)
    far = {name: tuple(1e100 * x for x in point) for name, point in TWO.items()}
    for points in ({"a": (0.0,) * 17}, far):
        with pytest.raises(UsageError) as refused:
            learn([Comparison("a", "b"), Comparison("c", "a")] if points is far else [], points)
        assert (refused.value.code, bool(refused.value.hint)) == ("E0265", True)


def test_thousands_of_points_and_answers_take_seconds() -> None:
    """3000 points of 8 rewards: 5000 answers about all of them, and the best of 4.5 million pairs to ask next."""
    random = np.random.default_rng(0)
    points = {str(i): tuple(map(float, row)) for i, row in enumerate(random.random((3000, 8)))}
    mu = random.dirichlet(np.ones(8))
    pairs = [map(str, random.choice(3000, 2, replace=False)) for _ in range(5000)]
    answers = [answer(*pair, points, mu, 30.0, random) for pair in pairs]
    began = time.process_time()

    found = learn(answers, points)
    question = next_question(found, list(points.values()))

    assert time.process_time() - began < 20
    assert question is not None
    assert np.abs(np.subtract(found.mu, mu)).max() < 0.04
