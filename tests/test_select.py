"""`rsoup select`: λ for a preference, for comparisons, for a utility; side by side, honest about noise, made on request."""

from __future__ import annotations

import io
import json
import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from test_analysis import curve, saved, series

from rsoup.analysis.data import data_of, directed
from rsoup.analysis.selected import Wish, selected
from rsoup.cli import select as command
from rsoup.cli.published import Publish
from rsoup.cli.reading import Reading
from rsoup.console import Console
from rsoup.errors import RsoupError, UsageError
from rsoup.measured.table import read_table
from rsoup.measured.values import Measured, Quality, Row, Table
from rsoup.publish.asked import Options
from rsoup.select.ranking import linear, ranked
from rsoup.select.utility import Worth
from rsoup.select.weights import parse_preference


def ran(path: str, *, as_json: bool = True, quiet: bool = False, **options: Any) -> Any:
    """The document of `rsoup select`, or its text."""
    out, err = io.StringIO(), io.StringIO()
    reading = {name: options.pop(name) for name in tuple(options) if name in Reading.__dataclass_fields__}
    reading = {"rewards": ("x", "y"), "guards": ("g",), **reading}
    command.run(
        Reading(path, **reading),
        command.Asked(**options),
        console=Console(as_json=as_json, quiet=quiet, out=out, err=err),
    )
    return json.loads(out.getvalue()) if as_json else out.getvalue()


def by_rule(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The candidates by their rule."""
    return {one["rule"]: one for one in document["candidates"]}


@pytest.mark.parametrize("mu", ["0.2,0.8", "1/2,1/2", "x=0.9,y=0.1", "y=1"])
def test_every_rule_has_its_definition(tmp_path: Path, mu: str) -> None:
    """λ = μ̂; λ* of Lemma 3; the best measured point by brute force; the exact maximum of the quadratic."""
    found = by_rule(ran(saved(tmp_path / "t.csv", curve()), preference=mu))
    weights = parse_preference(mu, ["x", "y"])
    one, two = map(float, weights)

    assert found["lambda"]["lambda"] == [
        str(w) if w.denominator > 1 and 10 % w.denominator else f"{float(w):g}" for w in weights
    ]
    gains = [(1 - (i / 10) ** 2, 1 - (1 - i / 10) ** 2) for i in range(11)]
    best = max(range(11), key=lambda i: one * gains[i][0] + two * gains[i][1])
    assert float(found["measured"]["lambda"][1]) == pytest.approx(best / 10)
    assert found["measured"]["utility"] == pytest.approx(one * gains[best][0] + two * gains[best][1])
    # Normalised, the curve is 1 − λ², 1 − (1 − λ)²: both the theory's and the surrogate's maximum are at λ = μ̂.
    assert float(Fraction(found["theory"]["lambda"][1])) == pytest.approx(two, abs=1e-3)
    assert float(Fraction(found["predicted"]["lambda"][1])) == pytest.approx(two, abs=1e-3)


def test_raw_rewards_move_the_optimum(tmp_path: Path) -> None:
    """With Δ₁ = 2 and Δ₂ = 4 in their own units, λ* = 4μ/(2(1 − μ) + 4μ); and the notes warn."""
    document = ran(saved(tmp_path / "t.csv", curve()), preference="0.5,0.5", raw=True)
    found = by_rule(document)

    assert float(Fraction(found["theory"]["lambda"][1])) == pytest.approx(2 / 3, abs=1e-3)
    assert float(Fraction(found["predicted"]["lambda"][1])) == pytest.approx(2 / 3, abs=1e-3)
    assert float(found["measured"]["lambda"][1]) == pytest.approx(0.7)
    assert any("own units" in note for note in document["notes"])


def test_any_utility_with_conditions(tmp_path: Path) -> None:
    """The argmax of an expression over the points that meet every condition, guard metrics included."""
    path = saved(tmp_path / "t.csv", curve())
    document = ran(path, utility="min(x, y) if y > -2 else -10", require=("x>=0.5", "g<5.9"))
    rows = [r for r in curve() if float(str(r["x"])) >= 0.5 and float(str(r["g"])) < 5.9]
    best = max(rows, key=lambda r: min(float(str(r["x"])), float(str(r["y"]))))

    assert document["chosen"]["measured"]["x"]["value"] == best["x"]
    assert document["ranking"]["not_allowed"] == 11 - len(rows)
    assert [one["rule"] for one in document["candidates"]] == ["measured"]


def test_comparisons_give_a_preference_and_the_next_question(tmp_path: Path) -> None:
    """A user who only cares for x is recognised; the next pair is of two different points of the front."""
    path = saved(tmp_path / "t.csv", curve())
    pairs = "better,worse,count\n" + "".join(
        f"{a},{b},20\n" for a, b in (("0.9-0.1", "0.5-0.5"), ("0.8-0.2", "0.3-0.7"), ("1-0", "0.6-0.4"))
    )
    (tmp_path / "pairs.csv").write_text(pairs)
    document = ran(path, comparisons=str(tmp_path / "pairs.csv"))
    about = document["preference"]

    assert about["weights"]["x"] > 0.8
    assert about["learnt"]["low"]["x"] <= about["weights"]["x"] <= about["learnt"]["high"]["x"]
    assert document["next_question"]["a"] != document["next_question"]["b"]
    assert "ask next" in ran(path, comparisons=str(tmp_path / "pairs.csv"), as_json=False)


def noise_table(seed: int, report: bool) -> Table:
    """Eleven equal points whose values are noise only, measured once to choose and once to report."""
    generator = random.Random(seed)

    def score() -> dict[str, Measured]:
        return {name: Measured(generator.gauss(0, 1), 1.0, None) for name in ("x", "y")}

    rows = [
        Row(f"p{i}", "done", score(), score() if report else {}, (Fraction(i, 10), 1 - Fraction(i, 10)))
        for i in range(11)
    ]
    about = Quality(True, guard=False)
    return Table("noise", {"x": about, "y": about}, tuple(rows), ("a", "b"))


def test_noise_shows_no_gain_where_it_is_reported() -> None:
    """Chosen by one split, reported by another: the mean reported utility is 0, the selected one is far above."""
    chosen, reported = [], []
    for seed in range(300):
        data = data_of(noise_table(seed, True), normalised=False, reference=(0.0, 0.0))
        found = selected(data, Wish(weights=(0.5, 0.5)))
        best = found.ranking.order[0]
        chosen.append(found.worths[best].value or 0.0)
        row = data.rows[best]
        reported.append(sum(score.value for score in row.report.values()) / 2)

    error = math.sqrt(0.5 / 300)
    assert sum(chosen) / 300 > 0.8
    assert abs(sum(reported) / 300) < 4 * error


def test_the_winners_curse_is_told() -> None:
    """Without a report split a note and an estimate of the optimism; with one, neither is needed."""
    data = data_of(noise_table(1, False), normalised=False)
    found = selected(data, Wish(weights=(0.5, 0.5)))
    assert any("looks better than it is" in note for note in found.notes)
    assert found.ranking.optimism is not None
    assert found.ranking.optimism > 0.1
    assert found.ranking.clear is False
    again = selected(data_of(noise_table(1, True), normalised=False), Wish(weights=(0.5, 0.5)))
    assert not any("looks better than it is" in note for note in again.notes)


def test_ranking_is_by_utility_and_first_of_equals() -> None:
    """Points without a utility are left out; a lead beyond noise is called so."""
    worths = [Worth(1.0, 0.1), None, Worth(3.0, 0.1), Worth(3.0, 0.1), Worth(None, None, "1/0")]
    found = ranked(worths)
    assert (found.order, found.lead, found.clear) == ((2, 3, 0), 0.0, False)
    assert ranked([Worth(0.0, 0.1), Worth(1.0, 0.1)]).clear is True
    assert ranked([Worth(0.0, None), Worth(1.0, 0.1)]).clear is None
    assert ranked([Worth(0.0, 0.0), Worth(1.0, 0.0)]).clear is True
    assert ranked([Worth(1.0, 0.1)]).lead is None
    assert ranked([None]).order == ()


def test_errors_add_in_quadrature() -> None:
    """√Σ(μe)², and an unknown error counts only where its reward has a weight."""
    assert linear((0.6, 0.8), (1.0, 2.0), (1.0, 1.0)) == Worth(pytest.approx(2.2), pytest.approx(1.0))
    assert linear((1.0, 0.0), (1.0, 2.0), (0.5, None)).error == 0.5
    assert linear((0.5, 0.5), (1.0, 2.0), (0.5, None)).error is None


@pytest.mark.parametrize("text", ["0.3", "0.3,0.3", "0.5,0.5,0", "-0.5,1.5", "z=1", "x=0.5,x=0.5", "x=0.5"])
def test_preferences_are_exact_shares(text: str) -> None:
    """E0263: one share per reward, Σ = 1 exactly, none below 0."""
    with pytest.raises(UsageError) as refused:
        parse_preference(text, ["x", "y"])
    assert refused.value.code == "E0263"
    assert parse_preference("1/3,2/3", ["x", "y"]) == (Fraction(1, 3), Fraction(2, 3))


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("E0266", {}),
        ("E0266", {"preference": "1,0", "utility": "x"}),
        ("E0266", {"preference": "1,0", "rule": "best"}),
        ("E0266", {"utility": "x", "rule": "theory"}),
        ("E0266", {"preference": "1,0", "merge": True}),
        ("E0266", {"preference": "1,0", "out": "soup"}),
        ("E0266", {"preference": "1,0", "merge": True, "out": "soup"}),
        ("E0266", {"preference": "1,0", "publish": Publish("me/soup", Options())}),
        ("E0266", {"preference": "1,0", "merge": True, "out": "soup", "license": "mit"}),
        ("E0271", {"preference": "1,0", "require": ("x>5",)}),
        ("E0271", {"utility": "log(x - 100)"}),
        ("E0260", {"utility": "__import__('os')"}),
        ("E0261", {"utility": "z"}),
        ("E0261", {"preference": "1,0", "require": ("z>0",)}),
        ("E0243", {"preference": "1,0", "require": ("x",)}),
        ("E0701", {"comparisons": "nothing.csv"}),
    ],
)
def test_wishes_that_cannot_be_meant(tmp_path: Path, code: str, options: dict[str, Any]) -> None:
    """Each is refused with a hint."""
    path = saved(tmp_path / "t.csv", curve(3))
    with pytest.raises(RsoupError) as refused:
        ran(path, **options)
    assert (refused.value.code, bool(refused.value.hint)) == (code, True)


def test_without_experts_only_what_is_measured_is_chosen(tmp_path: Path) -> None:
    """No expert alone, no λ at all: the rules say why they propose nothing, the best point is still found."""
    inner = by_rule(ran(saved(tmp_path / "t.csv", curve()[3:6]), preference="0.5,0.5"))
    assert inner["lambda"]["why_not"]
    assert inner["theory"]["why_not"]
    assert inner["measured"]["point"]
    plain = [{k: v for k, v in row.items() if not k.startswith("lambda")} for row in curve()]
    document = ran(saved(tmp_path / "u.csv", plain), preference="0.5,0.5")
    assert document["chosen"]["point"].startswith("row-")
    assert document["chosen"]["command"] is None
    assert "row-" in ran(saved(tmp_path / "v.csv", plain), preference="0.5,0.5", as_json=False, quiet=True)


def test_a_sweeps_own_command_is_printed(tmp_path: Path) -> None:
    """The measured point's command is that of metrics.json; of another table, a merge of the ingredients' names."""
    document = ran(series(tmp_path), preference="0.5,0.5", rewards=(), guards=())
    assert document["chosen"]["command"] == "rsoup merge a b"
    other = ran(saved(tmp_path / "t.csv", curve(3)), preference="0.5,0.5")
    assert other["chosen"]["command"] == "rsoup merge a b --lambda 0.5,0.5 -o soup"


def test_three_rewards_by_lemma_1(tmp_path: Path) -> None:
    """Three experts of quadratic rewards: λᵢ ∝ μᵢηᵢ, and the text can be read."""
    points = [(i, j, 4 - i - j) for i in range(5) for j in range(5 - i)]
    rows = [
        {**{f"lambda_{n}": f"{k}/4" if k % 4 else str(k // 4) for n, k in zip("abc", p, strict=True)},
         **{r: -eta * (1 - k / 4) ** 2 for r, eta, k in zip("xyz", (1, 2, 4), p, strict=True)}}
        for p in points
    ]  # fmt: skip
    path = saved(tmp_path / "t.csv", rows)
    found = by_rule(ran(path, preference="0.2,0.3,0.5", rewards=("x", "y", "z"), guards=(), raw=True))

    shares = [0.2 * 1, 0.3 * 2, 0.5 * 4]
    expected = [share / sum(shares) for share in shares]
    assert [float(Fraction(s)) for s in found["theory"]["lambda"]] == pytest.approx(expected, abs=1e-3)
    assert "λ in theory" in ran(
        path, preference="0.2,0.3,0.5", rewards=("x", "y", "z"), guards=(), as_json=False
    )


def test_directions_come_from_the_table(tmp_path: Path) -> None:
    """A minimised reward is better when smaller, in preferences as in the front."""
    rows = [row | {"y": -float(str(row["y"]))} for row in curve()]
    table = directed(read_table(saved(tmp_path / "t.csv", rows)), ["x", "y"], ["g"], ["y"])
    found = selected(data_of(table), Wish(weights=(0.0, 1.0)))
    assert data_of(table).names[found.ranking.order[0]] == "0-1"
