"""Intervals of the front's figures: closed forms, brute force, simulations with a known truth; and whose values count."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_analysis import curve, ran, saved

from rsoup.analysis.data import data_of, directed
from rsoup.analysis.document import Asked, document
from rsoup.analysis.intervals import Intervals, Noise, intervals
from rsoup.analysis.measures import figures
from rsoup.cli import front as command
from rsoup.errors import UsageError
from rsoup.front.batch_shape import coverages, losses
from rsoup.front.chosen import choice_weights, scored
from rsoup.front.different import different
from rsoup.front.expected import expected_reward, utility_loss
from rsoup.front.pareto import all_scaled, reference_of, scaled
from rsoup.front.recount import recounted, unsettled
from rsoup.front.shape import coverage
from rsoup.front.share_interval import Noisy, share_interval
from rsoup.measured.table import read_table
from rsoup.measured.values import Measured, Quality, Row, Table
from rsoup.report.front_text import final

UP = (True, True)
T = np.linspace(0, 1, 9)
BULGE = np.stack([1 - T**2, 1 - (1 - T) ** 2], axis=1)


# --- many sets at once


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 15), st.integers(1, 6), st.integers(0, 9999))
def test_losses_of_many_sets_are_the_exact_ones(count: int, others: int, seed: int) -> None:
    """max over μ of what one set lacks to the other, by the integers' arithmetic, ties and duplicates included."""
    rng = np.random.default_rng(seed)
    ours, theirs = (rng.integers(-5, 6, size=(4, n, 2)).astype(float) for n in (count, others))

    expected = [utility_loss(a.tolist(), b.tolist()).value for a, b in zip(ours, theirs, strict=True)]
    assert losses(ours, theirs).tolist() == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(2, 4), st.integers(0, 9999))
def test_coverages_of_many_sets_are_those_of_each(count: int, rewards: int, seed: int) -> None:
    """The share and what is beyond, as for one set; the first two points are the experts."""
    rng = np.random.default_rng(seed)
    sets = rng.normal(size=(5, count, rewards))
    found = coverages(sets, [0, 1])

    for points, row in zip(sets, found, strict=True):
        one = coverage(points.tolist(), points[:2].tolist())
        assert row.tolist() == pytest.approx([c.share for c in one] + [c.beyond for c in one])


@settings(max_examples=40, deadline=None)
@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 9999))
def test_a_draw_is_counted_as_a_table_is(up: bool, normalised: bool, all_: bool, seed: int) -> None:
    """recounted(x) is `scaled` by the reference that `reference_of` takes from x itself."""
    rng = np.random.default_rng(seed)
    values, ways = rng.normal(size=(6, 2)), (up, True)
    experts = [0, 5] if all_ else []
    reference = reference_of(
        values.tolist(), ways, [values[i].tolist() for i in experts], normalised=normalised
    )

    found = recounted(values[None], ways, reference, experts)[0]

    expected = [scaled(row, ways, reference) for row in values.tolist()]
    assert found == pytest.approx(np.array(expected), abs=1e-12)
    assert expected == all_scaled(values.tolist(), ways, reference)


def test_a_span_within_noise_is_said() -> None:
    """Experts 1 apart with errors of 0.6 each are no two standard errors apart; with 0.2 they are."""
    values = [(0.0, 1.0), (0.6, 0.9), (1.0, 0.0)]
    reference = reference_of(values, UP, [values[0], values[2]])

    assert unsettled(values, [(0.6, 0.2)] * 3, reference, [0, 2], 0.95) == [0]
    assert unsettled(values, [(0.2, 0.2)] * 3, reference, [0, 2], 0.95) == []
    assert unsettled(values, [(0.6, 0.6)] * 3, reference_of(values, UP, normalised=False), [], 0.95) == []


# --- λ in theory


def test_the_share_of_two_numbers_is_covered_as_promised() -> None:
    """20 000 pairs of normal numbers: 95 % of the intervals hold a/(a + b), near to 0 as well as far from it."""
    rng = np.random.default_rng(0)
    for a, b, error in ((1.0, 2.0, 0.05), (1.0, 2.0, 0.5), (0.6, 0.3, 0.4)):
        hits = tries = 0
        for x, y in rng.normal([a, b], error, size=(4000, 2)):
            if x > 0 and y > 0:
                tries += 1
                low, high = share_interval(Noisy(x, [(error**2, math.inf)]), Noisy(y, [(error**2, math.inf)]))
                assert low <= x / (x + y) <= high
                hits += low <= a / (a + b) <= high
        assert 0.93 < hits / tries <= 1


def test_shares_in_closed_form() -> None:
    """Without errors λ itself; where both numbers may be 0, everything; a scale of both does not matter."""
    none, wide = [(0.0, math.inf)], [(1.0, math.inf)]

    assert share_interval(Noisy(1.0, none), Noisy(3.0, none)) == pytest.approx((0.25, 0.25))
    assert share_interval(Noisy(1.0, wide), Noisy(1.0, wide)) == (0.0, 1.0)
    small = share_interval(Noisy(1.0, [(0.01, 4.0)]), Noisy(2.0, [(0.02, 4.0)]))
    large = share_interval(Noisy(100.0, [(100.0, 4.0)]), Noisy(200.0, [(200.0, 4.0)]))
    assert small == pytest.approx(large)
    known = share_interval(Noisy(1.0, [(0.01, math.inf)]), Noisy(2.0, [(0.02, math.inf)]))
    assert small[0] < known[0] < 1 / 3 < known[1] < small[1]
    with pytest.raises(ValueError, match="above 0"):
        share_interval(Noisy(0.0, wide), Noisy(1.0, wide))


# --- coverage by simulation


def table(values: np.ndarray, error: float, report: np.ndarray | None = None) -> Table:
    """Soups of two experts, with their standard errors; and with report values, where given."""
    last = len(values) - 1
    rows = []
    for i, point in enumerate(values):
        scores = [
            {name: Measured(float(v), error) for name, v in zip("xy", p, strict=True)}
            for p in (point, *([] if report is None else [report[i]]))
        ]
        mix = (Fraction(last - i, last), Fraction(i, last))
        rows.append(Row(f"p{i}", "done", scores[0], scores[1] if report is not None else {}, mix))
    return Table("t", {n: Quality(True, guard=False) for n in "xy"}, tuple(rows), ("a", "b"))


def test_the_experts_noise_is_in_the_intervals() -> None:
    """At nominal 95 %, the true figures over the true reference are in nearly 90 % of them."""
    rng = np.random.default_rng(0)
    truth = data_of(table(BULGE, 0.0))
    volume, expected = figures(truth, Intervals({}))
    assert volume is not None
    true = {
        "hypervolume": volume["value"],
        "expected_reward": expected["value"],
        "largest_loss": expected["experts"]["largest_loss"],
        "share 0": 1.0,
    }
    hits = dict.fromkeys(true, 0)
    for _ in range(60):
        data = data_of(table(BULGE + rng.normal(0, 0.05, BULGE.shape), 0.05))
        found = intervals(data, Noise(400)).of
        for name, value in true.items():
            hits[name] += found[name].low <= value <= found[name].high
    assert min(hits["hypervolume"], hits["expected_reward"]) >= 53
    assert min(hits["largest_loss"], hits["share 0"]) >= 50


def test_every_headline_has_its_interval(tmp_path: Path) -> None:
    """Hypervolume, expected reward, what the experts lack, coverage, λ*, in the document and in words; none without errors."""
    rows = [row | {"x_stderr": 0.02, "y_stderr": 0.04} for row in curve()]
    path = saved(tmp_path / "t.csv", rows)
    about = json.loads(ran(path, as_json=True, questions=command.Questions(compare=(path,)))[1])

    two = about["theory"]["two_experts"]["choices"][1]
    known = [
        (about["hypervolume"]["value"], about["hypervolume"]["interval"]),
        (about["expected_reward"]["value"], about["expected_reward"]["interval"]),
        (
            about["expected_reward"]["experts"]["largest_loss"],
            about["expected_reward"]["experts"]["interval"],
        ),
        (about["coverage"]["rewards"]["x"]["share"], about["coverage"]["rewards"]["x"]["share_interval"]),
        (two["lambda"]["b"], {k: two["interval"][k]["b"] for k in ("low", "high")}),
    ]
    for value, between in known:
        assert between["low"] <= value <= between["high"]
    assert two["interval"]["low"]["a"] == pytest.approx(1 - two["interval"]["high"]["b"])
    both = about["compared"][0]["expected_reward"]["largest_loss_of_soups"]
    assert (both["value"], both["interval"]["low"], both["interval"]["high"]) == (0, 0, 0)
    text = ran(path)[1]
    assert "who lack at most" in text.split("λ in theory")[0]
    assert f"b {two['lambda']['b']:.2f} ({two['interval']['low']['b']:.2f} to " in text
    exact = json.loads(ran(saved(tmp_path / "u.csv", curve()), as_json=True)[1])
    assert exact["expected_reward"]["experts"]["interval"] is None
    assert exact["theory"]["two_experts"]["choices"][1]["interval"] is None


def test_three_rewards_have_intervals_too() -> None:
    """Up to 150 points of five rewards: around the figure itself, though over fewer preferences."""
    rng = np.random.default_rng(0)
    points = rng.dirichlet(np.ones(3), 40) + np.array([0.0, 1.0, 2.0])
    rows = tuple(
        Row(f"p{i}", "done", {n: Measured(float(v), 0.02) for n, v in zip("xyz", p, strict=True)}, {})
        for i, p in enumerate(points)
    )
    whole = Table("t", {n: Quality(True, guard=False) for n in "xyz"}, rows)
    about = document(whole, data_of(whole), (), Asked(Noise(400)))
    between = about["expected_reward"]["interval"]

    assert between["low"] < about["expected_reward"]["value"] < between["high"]
    assert between["high"] - between["low"] < 0.2


def test_experts_that_noise_may_have_parted_leave_no_interval() -> None:
    """Their range within noise: no interval, and a note that says so."""
    noisy = table(BULGE * 0.1, 0.1)
    about = document(noisy, data_of(noisy), (), Asked(Noise(400)))

    assert about["hypervolume"]["interval"] is None
    assert any("not beyond noise" in note for note in about["notes"])


def test_a_confidence_takes_its_draws(tmp_path: Path) -> None:
    """0.999 draws more than was asked for; what takes more than can be drawn is E0275."""
    rows = [row | {"x_stderr": 0.02, "y_stderr": 0.04} for row in curve(3)]
    path = saved(tmp_path / "t.csv", rows)
    found = json.loads(ran(path, as_json=True, questions=command.Questions(confidence="0.999"))[1])

    assert found["hypervolume"]["interval"]["draws"] >= 2000
    with pytest.raises(UsageError) as refused:
        ran(path, questions=command.Questions(confidence="0.999999"))
    assert refused.value.code == "E0275"


# --- one evaluation chooses, another scores


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 9999))
def test_what_chooses_and_scores_is_the_expected_reward(count: int, rewards: int, seed: int) -> None:
    """Σ W·r of the same values is E max Σ μ·r; the weights sum to 1; of other values it is never more."""
    rng = np.random.default_rng(seed)
    one, other = (rng.normal(size=(count, rewards)).tolist() for _ in range(2))
    weights = choice_weights(one)

    tolerance = 1e-12 if rewards < 3 else 0.01
    assert weights.sum() == pytest.approx(1)
    assert scored(weights, one) == pytest.approx(expected_reward(one).value, abs=tolerance)
    assert scored(weights, other) <= expected_reward(other).value + tolerance


def test_the_report_values_score_what_the_select_values_found() -> None:
    """Eleven equal points: by one evaluation their expected reward looks too good, by two it is right on average."""
    rng = np.random.default_rng(0)
    two, one = [], []
    for _ in range(80):
        select, report = rng.normal(0, 0.1, (2, 11, 2))
        both = table(select, 0.1, report)
        apart = data_of(both, split="report", normalised=False, reference=(0.0, 0.0))
        two.append(figures(apart, Intervals({}))[1]["value"])
        same = data_of(table(report, 0.1), normalised=False, reference=(0.0, 0.0))
        one.append(figures(same, Intervals({}))[1]["value"])
        found = {i for i in range(11) if not any((q >= select[i]).all() and (q > select[i]).any() for q in select)}  # fmt: skip
        assert set(apart.front) == found
        assert set(apart.valued) == found | {0, 10}
    assert abs(np.mean(two)) < 4 * np.std(two) / math.sqrt(80)
    assert np.mean(one) > 0.1


def test_the_reader_is_told_which_values_count() -> None:
    """In the definitions and the notes; points of the front without report values are counted; without a choice, a warning."""
    values = np.vstack([BULGE, BULGE[:1] + 1])
    both = table(BULGE, 0.1, BULGE + 0.01)
    about = document(both, data_of(both, split="report"), (), Asked(Noise(400)))
    assert any("report values score it" in note for note in about["notes"])
    assert "found by the select values" in about["hypervolume"]["definition"]
    assert "select split" in about["front"]["definition"]
    lines = " ".join(final(about, unicode=True, colour=False))
    assert "found by the select values" in lines
    assert "chosen by the select values" in lines

    part = table(values, 0.1, values)
    part = replace(part, rows=(*part.rows[:-1], replace(part.rows[-1], report={})))
    with_gap = data_of(part, split="report")
    assert with_gap.chosen_by is None  # the only point of the select front has no report values
    assert any("looks better than it is" in note for note in document(part, with_gap)["notes"])
    missing = replace(both, rows=(*both.rows[:3], replace(both.rows[3], report={}), *both.rows[4:]))
    reported = data_of(missing, split="report")
    assert reported.only(reported.valued).names == [reported.names[i] for i in reported.valued]
    assert reported.not_reported == ("p3",)
    assert any("1 of the front has no report values" in note for note in document(missing, reported)["notes"])


def test_different_measurements_are_drawn_once() -> None:
    """Equal values, errors and repeats are one measurement; another error makes it another."""
    found = different(
        [(1.0, 2.0), (3.0, 4.0), (1.0, 2.0), (1.0, 2.0)],
        [(0.1, 0.1), (0.1, 0.1), (0.1, 0.1), (0.2, 0.1)],
        [(None, None)] * 4,
    )

    assert found.rows == (0, 1, 0, 2)
    assert found.values == ((1.0, 2.0), (3.0, 4.0), (1.0, 2.0))


def test_directions_do_not_change_intervals(tmp_path: Path) -> None:
    """A reward with its sign turned and minimised has the same intervals."""
    rows = [row | {"x_stderr": 0.02, "y_stderr": 0.04} for row in curve()]
    found: list[Any] = []
    for sign, minimise in ((1, []), (-1, ["y"])):
        path = saved(tmp_path / f"t{sign}.csv", [row | {"y": sign * float(str(row["y"]))} for row in rows])
        whole = directed(read_table(path), ["x", "y"], ["g"], minimise)
        found.append(document(whole, data_of(whole), (), Asked(Noise(2000))))
    one, other = (about["hypervolume"]["interval"] for about in found)
    assert one["low"] == pytest.approx(other["low"], rel=0.02)
    assert one["high"] == pytest.approx(other["high"], rel=0.02)
