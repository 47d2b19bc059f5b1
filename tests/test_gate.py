"""`rsoup gate`: conditions, statistics, the choice of a point, exit codes, and what is written for CI."""

from __future__ import annotations

import io
import json
import math
import os
import random
import re
import statistics
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsoup.cli.gate import as_json
from rsoup.cli.gate import run as run_gate
from rsoup.cli.gate import text as as_text
from rsoup.console import Console
from rsoup.errors import RefusedFileError, RsoupError, TargetError, UsageError
from rsoup.gate import outputs
from rsoup.gate.choosing import decide, prepare
from rsoup.gate.judging import MET, NOT_MET, UNDECIDED, GateResult, Judgement, judge, margin
from rsoup.gate.requirements import (
    NoWorse,
    Require,
    parse_conditions,
    parse_confidence,
    parse_no_worse,
    parse_require,
)
from rsoup.measured.student import outside, two_sided
from rsoup.measured.table import read_table
from rsoup.measured.values import Measured, Quality, Row, Table

SUMMARY, OUTPUT = "GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"
HOSTILE = "a|b\n::set-output x<<EOF\r\npass<<E\x1b[31m<script>@you [x](http://y) `\ud800\uffff&]]>"


@pytest.fixture(autouse=True)
def _not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """What GitHub sets where these tests run is not theirs."""
    monkeypatch.delenv(SUMMARY, raising=False)
    monkeypatch.delenv(OUTPUT, raising=False)


def measured(value: float, error: float | None = None, n: int | None = None) -> dict[str, Any]:
    """A value as metrics.json has it."""
    return {"value": value, "error": error, "n": n}


def point(
    name: str, mix: str, status: str = "done", report: Any = None, **select: dict[str, Any]
) -> dict[str, Any]:
    """A point as metrics.json has it."""
    shares = dict(zip(("low", "high"), mix.split(","), strict=True))
    return {
        "point": name,
        "lambda": shares,
        "status": status,
        "select": select,
        "report": report,
        "scale": "1",
    }


def document(*points: dict[str, Any], **directions: str) -> dict[str, Any]:
    """A metrics.json."""
    metrics = {
        name: {"direction": said, "guard": name == "ppl"}
        for name, said in (directions or {"helpful": "maximise", "ppl": "minimise"}).items()
    }
    return {
        "schema": "rsoup-metrics/1",
        "ingredients": ["low", "high"],
        "metrics": metrics,
        "points": list(points),
    }


def saved(folder: Path, value: object, name: str = "metrics.json") -> str:
    """A JSON file of `value`."""
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def asked(path: str, *, as_json: bool = False, quiet: bool = False, **options: Any) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `rsoup gate`."""
    out, err = io.StringIO(), io.StringIO()
    console = Console(as_json=as_json, quiet=quiet, out=out, err=err)
    given: dict[str, Any] = {
        "require": (), "no_worse": (), "baseline": None, "baseline_point": None, "point": None, "mix": None,
        "minimise": (), "confidence": "0.95", "undecided": "fail", "summary": None, "junit": None,
    }  # fmt: skip
    code = run_gate(path, **{**given, **options}, console=console)
    return code, out.getvalue(), err.getvalue()


def refused(path: str, **options: Any) -> RsoupError:
    """The refusal of `rsoup gate`."""
    with pytest.raises(RsoupError) as caught:
        asked(path, **options)
    return caught.value


# --- statistics


@pytest.mark.parametrize(
    ("freedom", "t95", "t99"),  # printed tables of Student's t
    [(1, 12.7062, 63.6567), (2, 4.3027, 9.9248), (4, 2.7764, 4.6041), (9, 2.2622, 3.2498), (30, 2.0423, 2.7500), (120, 1.9799, 2.6174), (math.inf, 1.9600, 2.5758)],
)  # fmt: skip
def test_quantiles_are_those_of_the_tables(freedom: float, t95: float, t99: float) -> None:
    """The two-sided quantiles agree with printed tables to their last digit."""
    assert two_sided(0.95, freedom) == pytest.approx(t95, abs=6e-5)
    assert two_sided(0.99, freedom) == pytest.approx(t99, abs=6e-5)


@given(st.floats(0, 1e3))
def test_tails_are_the_closed_forms(t: float) -> None:
    """One degree of freedom is Cauchy's distribution, two have a root."""
    assert outside(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, abs=1e-12)
    assert outside(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)


@given(st.floats(0.5, 0.999999), st.floats(1, 1e8))
def test_a_quantile_undoes_the_tail(confidence: float, freedom: float) -> None:
    """P(|T| > t) of the quantile is what was asked for."""
    if freedom <= 1e5:
        assert outside(two_sided(confidence, freedom), freedom) == pytest.approx(1 - confidence, abs=1e-10)
    assert two_sided(confidence, freedom) >= two_sided(confidence, math.inf) - 1e-12


def test_errors_of_two_add_in_quadrature() -> None:
    """3 and 4 make 5; equal errors of equal n have 2(n − 1) degrees of freedom (Welch, Satterthwaite)."""
    condition = NoWorse("m", Fraction(0), "m")

    def half(one: Measured, two: Measured) -> float:
        return judge(condition, one, two, maximise=True, confidence=0.95).half_width

    assert margin(condition, Measured(1, 3.0), Measured(0, 4.0), maximise=True) == (Fraction(1), 5.0)
    assert margin(condition, Measured(1, 3.0), Measured(0), maximise=False) == (Fraction(-1), 3.0)
    assert margin(condition, Measured(1), Measured(0), maximise=True) == (Fraction(1), None)
    assert half(Measured(0, 3.0), Measured(0, 4.0)) == pytest.approx(5 * 1.959964, rel=1e-6)
    assert half(Measured(0, 1.0, 4), Measured(0, 1.0, 4)) == pytest.approx(
        math.sqrt(2) * 2.446912, rel=1e-6
    )  # 6
    assert half(Measured(0, 1.0, 5), Measured(0)) == pytest.approx(2.776445, rel=1e-6)  # 4
    assert half(Measured(0, 1.0, 5), Measured(0, 0.0, 9)) == pytest.approx(2.776445, rel=1e-6)


def verdict(text: str, value: float, error: float | None = None, n: int | None = None) -> Judgement:
    """A --require judged at 95 %."""
    return judge(parse_require(text), Measured(value, error, n), None, maximise=True, confidence=0.95)


def test_the_three_verdicts() -> None:
    """0.806 ± 0.011 of 0.80 is not decided, with (1.96 · 0.011 / 0.006)² times the samples; far off, it is."""
    found = verdict("m>=0.80", 0.806, 0.011)
    assert found.verdict == UNDECIDED
    assert found.samples == pytest.approx((1.959964 * 0.011 / 0.006) ** 2, rel=1e-5)
    assert verdict("m>=0.80", 0.83, 0.011).verdict == MET
    assert verdict("m>=0.80", 0.77, 0.011).verdict == NOT_MET
    assert verdict("m<=0.80", 0.77, 0.011).verdict == MET
    assert verdict("m>=0.80", 0.83, 0.011, 2).verdict == UNDECIDED  # 12.7 standard errors of two repeats
    assert verdict("m>=0.80", 0.80, 0.011).samples is None


@pytest.mark.parametrize(
    ("text", "met"),
    [("m>=0.3", True), ("m<=0.3", True), ("m>0.3", False), ("m<0.3", False), ("m>=0.30000000001", False)],
)
@pytest.mark.parametrize("error", [None, 0.0])
def test_without_an_error_decimals_are_compared_exactly(text: str, met: bool, error: float | None) -> None:
    """A value on the limit meets >= and <= only."""
    assert verdict(text, 0.3, error).verdict == (MET if met else NOT_MET)


@given(st.floats(-1e300, 1e300), st.floats(0, 1e300), st.booleans())
def test_a_mirrored_metric_has_the_same_verdict(value: float, error: float, maximise: bool) -> None:
    """Turning sign and direction of everything around changes no verdict."""
    condition = NoWorse("m", Fraction(1, 100), "m")
    one = judge(condition, Measured(value, error), Measured(0.5, 0.1), maximise=maximise, confidence=0.9)
    two = judge(
        condition,
        Measured(-value, error),
        Measured(-0.5, 0.1),
        maximise=not maximise,
        confidence=0.9,
    )
    assert (one.verdict, one.half_width, one.difference) == (two.verdict, two.half_width, two.difference)


@pytest.mark.parametrize("repeats", [2, 5])
def test_a_point_on_the_limit_seldom_passes(repeats: int) -> None:
    """Of 4000 seeded runs of a point exactly on the limit, 2.5 % are said to be met, and 2.5 % not."""
    generator = random.Random(repeats)
    two_sided_quantile = two_sided(0.95, repeats - 1)
    assert verdict("m>=0", 1, 1, repeats).half_width == pytest.approx(two_sided_quantile)
    outcomes = []
    for _ in range(4000):
        values = [generator.gauss(0, 1) for _ in range(repeats)]
        error = statistics.stdev(values) / math.sqrt(repeats)
        outcomes.append(verdict("m>=0", statistics.fmean(values), error, repeats).verdict)
    for outcome in (MET, NOT_MET):
        assert outcomes.count(outcome) / 4000 == pytest.approx(0.025, abs=4 * math.sqrt(0.025 * 0.975 / 4000))


# --- conditions


def test_conditions_as_typed() -> None:
    """A metric may hold what a condition does not need."""
    assert parse_require("harmless>=0.80") == Require("harmless", ">=", Fraction(4, 5), "harmless>=0.80")
    assert parse_require(" a b:c < -1e-3 ") == Require("a b:c", "<", Fraction(-1, 1000), "a b:c < -1e-3")
    assert parse_no_worse("lm-eval:gsm8k:0.01") == NoWorse(
        "lm-eval:gsm8k", Fraction(1, 100), "lm-eval:gsm8k:0.01"
    )
    assert parse_no_worse("helpful").allowed == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "m>=",
        ">=1",
        "m=1",
        "m==1",
        "m>=nan",
        "m>=1e999",
        "m>=80%",
        "m>=1_0",
        "m>=<1",
        "m>=1/0",
        "m>=１",
    ],
)
def test_no_condition(text: str) -> None:
    """Anything else is E0243."""
    with pytest.raises(UsageError) as caught:
        parse_require(text)
    assert caught.value.code == "E0243"


@pytest.mark.parametrize("text", ["", ":0.1", "m:-0.1", "m:1x", "m:"])
def test_no_comparison(text: str) -> None:
    """A number below 0, or none."""
    with pytest.raises(UsageError) as caught:
        parse_no_worse(text)
    assert caught.value.code == "E0243"


@pytest.mark.parametrize("text", ["95", "0.4", "1", "nan", "x", ""])
def test_no_confidence(text: str) -> None:
    """A share, not a percentage."""
    with pytest.raises(UsageError) as caught:
        parse_confidence(text)
    assert caught.value.code == "E0249"
    with pytest.raises(UsageError, match="no condition"):
        parse_conditions((), ())


# --- the command


def test_exit_codes(tmp_path: Path) -> None:
    """0 met, 4 not met (E0402), 4 not decided (E0403) unless that passes; the table is shown each time."""
    path = saved(tmp_path, {"helpful": 0.71, "helpful_stderr": 0.01})

    code, out, err = asked(path, require=["helpful>=0.6"])
    assert (code, err) == (0, "")
    assert out.startswith("✓ gate: 1 of 1 met\n")
    code, out, err = asked(path, require=["helpful>=0.8", "helpful>=0.705"])
    assert code == 4
    assert out.startswith("✗ gate: 1 of 2 not met, 1 not decided\n")
    assert "about 15 times the samples needed" in out
    assert "error[E0402]" in err
    code, out, err = asked(path, require=["helpful>=0.705"])
    assert code == 4
    assert "? 95 % interval 0.690 to 0.730" in out
    assert "error[E0403]" in err
    assert asked(path, require=["helpful>=0.705"], undecided="pass")[0] == 0
    assert [asked(path, require=["helpful>=0.701"], confidence=share)[0] for share in ("0.5", "0.95")] == [
        0,
        4,
    ]


def test_json_is_one_document_even_when_the_gate_is_shut(tmp_path: Path) -> None:
    """The document has the verdicts and the error; -q is the point's name."""
    path = saved(
        tmp_path, document(point("0.3-0.7", "0.3,0.7", helpful=measured(0.71, 0.01, 1), ppl=measured(9)))
    )

    code, out, err = asked(path, as_json=True, require=["helpful>=0.8", "ppl<10"])
    found = json.loads(out)
    assert (code, err) == (4, "")
    assert (found["pass"], found["point"], found["lambda"], found["error"]["code"]) == (
        False,
        "0.3-0.7",
        "0.3,0.7",
        "E0402",
    )
    assert [c["verdict"] for c in found["conditions"]] == [NOT_MET, MET]
    assert asked(path, quiet=True, require=["ppl<10"]) == (0, "0.3-0.7\n", "")


def test_no_worse(tmp_path: Path) -> None:
    """The direction is the metric's; the baseline's point the one of the same name, or the one that is named."""
    new = saved(tmp_path, document(point("a", "1,0", helpful=measured(0.698, 0.0), ppl=measured(9.5))))
    old = saved(tmp_path, document(
        point("a", "1,0", helpful=measured(0.712, 0.0), ppl=measured(9)), point("b", "0,1", helpful=measured(0.7, 0.0), ppl=measured(10)),
    ), "old.json")  # fmt: skip

    code, out, _ = asked(new, baseline=old, no_worse=["helpful:0.01", "ppl:1"])
    assert code == 4
    assert "0.698 vs 0.712  ✗ -0.014, allowed -0.01" in out
    assert asked(new, baseline=old, no_worse=["helpful:0.014", "ppl:0.5"])[0] == 0
    assert asked(new, baseline=old, no_worse=["ppl:0.49"])[0] == 4
    assert asked(new, baseline=old, baseline_point="b", no_worse=["ppl", "helpful:0.01"])[0] == 0
    assert refused(new, baseline=old, baseline_point="c", no_worse=["ppl"]).code == "E0247"
    assert refused(new, no_worse=["ppl"]).code == "E0244"
    assert refused(new, baseline=old, require=["ppl<10"]).code == "E0244"
    assert (
        refused(
            saved(tmp_path, document(point("z", "1,0", ppl=measured(1)))), baseline=old, no_worse=["ppl"]
        ).code
        == "E0247"
    )


def test_directions(tmp_path: Path) -> None:
    """A flat table says no direction: more is better but for --minimise, which no table may contradict."""
    new, old = saved(tmp_path, {"loss": 2.0}, "new.json"), saved(tmp_path, {"loss": 1.0}, "old.json")
    assert asked(new, baseline=old, no_worse=["loss"])[0] == 0
    assert asked(new, baseline=old, no_worse=["loss"], minimise=["loss"])[0] == 4
    assert refused(new, baseline=old, no_worse=["loss"], minimise=["lss"]).code == "E0245"
    table = saved(tmp_path, document(point("a", "1,0", helpful=measured(1)), helpful="maximise"))
    assert refused(table, require=["helpful>0"], minimise=["helpful"]).code == "E0248"


def test_the_point_is_chosen_by_select_and_judged_on_report(tmp_path: Path) -> None:
    """The largest worst margin wins; its report decides; without one, that is said."""
    b = point(
        "b",
        "0.5,0.5",
        report={"helpful": measured(0.55, 0.001), "ppl": measured(9, 0.1)},
        helpful=measured(0.8, 0.01),
        ppl=measured(8, 0.1),
    )
    points = [
        point("a", "1,0", helpful=measured(0.9, 0.01), ppl=measured(11, 0.1)),
        b,
        point("c", "0,1", "failed"),
    ]
    path = saved(tmp_path, document(*points))

    code, out, err = asked(str(tmp_path), require=["helpful>=0.6", "ppl<=10"])
    assert code == 4
    assert "point b, λ = 0.5,0.5\n  helpful>=0.6  0.5500 ± 0.0010  ✗" in out
    assert "1 point is failed" in err
    assert "same numbers" not in err
    code, out, err = asked(path, require=["helpful>=0.6"])
    assert code == 0
    assert "point a" in out
    assert "same numbers" in err
    assert "same numbers" not in asked(path, require=["helpful>=0.6"], mix="1,0")[2]
    assert asked(path, require=["helpful>=0.6"], mix="1/2,0.50", quiet=True)[1] == "b\n"


def test_points_that_cannot_be_judged(tmp_path: Path) -> None:
    """Unknown, failed, twice, ambiguous, none, without the value."""
    path = saved(tmp_path, document(
        point("a", "1,0", helpful=measured(1)), point("a2", "1,0", helpful=measured(1)), point("c", "0,1", "failed"),
    ))  # fmt: skip
    for options in (
        {"point": "x"},
        {"point": "c"},
        {"mix": "1,0"},
        {"mix": "0.4,0.6"},
        {"point": "a", "mix": "1,0"},
    ):
        assert refused(path, require=["helpful>0"], **options).code == "E0246"
    assert refused(path, require=["ppl>0"]).code == "E0245"
    assert refused(path, require=["hlpful>0"]).code == "E0245"
    assert "'helpful' and 'ppl'" in str(refused(path, require=["hlpful>0"]))
    assert refused(path, require=["helpful>0"], undecided="maybe").code == "E0249"
    assert refused(saved(tmp_path, document(point("c", "0,1", "pending"))), require=["ppl>0"]).code == "E0246"


# --- tables


def test_csv(tmp_path: Path) -> None:
    """A header, a row per point, λ by ingredient, standard errors beside their metrics."""
    path = saved(tmp_path, "point,lambda_a,lambda_b,m,m_stderr\r\nx,1,0,0.5,0.1\r\ny,0,1,0.9,\r\n", "t.csv")
    table = read_table(path)
    assert [(row.name, row.lambda_text, row.select["m"]) for row in table.rows] == [
        ("x", "1,0", Measured(0.5, 0.1)), ("y", "0,1", Measured(0.9)),
    ]  # fmt: skip
    assert asked(path, require=["m>=0.8"], quiet=True)[:2] == (0, "y\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"m": NaN}'), ("a.json", '{"m": Infinity}'), ("a.json", '{"m": 1, "m": 2}'), ("a.json", '{"m": true}'),
        ("a.json", '{"m": "1"}'), ("a.json", "{}"), ("a.json", "[]"), ("a.json", "3"), ("a.json", '{"m_stderr": 1}'),
        ("a.json", '{"m": 1, "m_stderr": -1}'), ("a.json", '[{"point": "a", "m": 1}, {"point": "a", "m": 2}]'),
        ("a.json", '{"m": 1' + "0" * 400 + "}"), ("a.json", "[" * 100000), ("a.json", '{"schema": "rsoup-metrics/2"}'),
        ("a.csv", ""), ("a.csv", "m,m\n1,2\n"), ("a.csv", "m\n1,2\n"), ("a.csv", "m\nx\n"), ("a.csv", "m\nnan\n"), ("a.csv", 'm\n"1\n'),
        ("a.csv", "point,lambda_a,scale,step,status,front,m\nx,1,1,,done,True,2\n"), ("a.csv", "lambda,m\n1;2,3\n"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path: Path, name: str, text: str) -> None:
    """NaN, duplicates, other types: E0808, exit 8."""
    error = refused(saved(tmp_path, text, name), require=["m>0"])
    assert isinstance(error, RefusedFileError)
    assert error.code == "E0808"


@pytest.mark.parametrize("broken", [
    {"ingredients": ["low", "low"]}, {"ingredients": "low"}, {"metrics": {"helpful": {"direction": "up"}}}, {"points": []},
    {"metrics": {"helpful": {"direction": "maximise", "guard": 1}}}, {"metrics": []},
    {"points": [point("a", "1,0", "lost")]}, {"points": [point("a", "x,0")]}, {"points": [point("a", "1,0", other=measured(1))]},
    {"points": [point("a", "1,0", helpful=measured(1, -1.0))]}, {"points": [point("a", "1,0", helpful=measured(1, 1.0, 0))]},
    {"points": [{**point("a", "1,0"), "lambda": {"low": "1"}}]}, {"points": [point("a", "1,0"), point("a", "0,1")]},
])  # fmt: skip
def test_documents_that_are_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    """Each broken part of a metrics.json is E0808."""
    good = document(point("a", "1,0", helpful=measured(1)))
    assert asked(saved(tmp_path, good), require=["helpful>0"])[0] == 0
    assert refused(saved(tmp_path, {**good, **broken}), require=["helpful>0"]).code == "E0808"


# --- what is written for CI


def hostile() -> GateResult:
    """A point and a metric whose names try everything."""
    row = Row(HOSTILE, "done", {HOSTILE: Measured(0.5)}, {}, (Fraction(1, 3), Fraction(2, 3)))
    table = Table("t", {HOSTILE: Quality(None, guard=False)}, (row,))
    conditions = (
        Require(HOSTILE, ">=", Fraction(4, 5), f"{HOSTILE}>=0.8"),
        Require(HOSTILE, ">", Fraction(0), "0"),
    )
    return decide(prepare(table, conditions), None, confidence=0.95, undecided_passes=False)


def github_values(text: str) -> dict[str, str]:
    """The outputs as GitHub's runner reads them: NAME<<DELIMITER, lines, DELIMITER."""
    lines, found = iter(text.split("\n")), {}
    for line in lines:
        if line:
            name, delimiter = line.split("<<", 1)
            body = []
            while (part := next(lines)) != delimiter:
                body.append(part)
            found[name] = "\n".join(body)
    return found


def test_no_name_sets_another_output() -> None:
    """The runner reads three values, and the name as it is."""
    found = github_values(outputs.step_outputs(hostile()))
    assert found == {"pass": "false", "point": HOSTILE, "lambda": "1/3,2/3"}


def test_junit_is_xml_whatever_the_names() -> None:
    """A test case for each condition; the one that is not met failed."""
    suites = ElementTree.fromstring(outputs.junit(hostile()))
    suite = suites.find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    cases = suite.findall("testcase")
    assert [case.find("failure") is not None for case in cases] == [True, False]
    assert "<script>" in str(cases[0].get("name"))
    assert "\\u{d800}\\u{ffff}" in str(cases[0].get("name"))


def test_junit_of_what_is_not_decided(tmp_path: Path) -> None:
    """A failure, or skipped where it passes."""
    table = read_table(saved(tmp_path, {"m": 0.5, "m_stderr": 1}))
    for undecided, tag in (("fail", "failure"), ("pass", "skipped")):
        gated = prepare(table, (parse_require("m>0"),))
        result = decide(gated, None, confidence=0.95, undecided_passes=undecided == "pass")
        assert result.passed == (undecided == "pass")
        assert [
            child.tag
            for child in ElementTree.fromstring(outputs.junit(result)).iter("testcase")
            for child in child
        ] == [tag]


def test_no_name_is_markup() -> None:
    """The table has its rows and columns; no tag, link, mention or code is without its backslash."""
    text = outputs.markdown(hostile())
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert [len(re.findall(r"(?<!\\)\|", row)) for row in rows] == [5] * 4
    assert not re.search(r"(?<!\\)[<>`\[\]@_]", text)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\ud800-\udfff]", text)


def test_files_of_github_are_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there stays, also without a newline at its end; --summary is instead of GitHub's."""
    path = saved(tmp_path, {"m": 1})
    summary, output = tmp_path / "summary", tmp_path / "output"
    output.write_text("other=1")
    monkeypatch.setenv(SUMMARY, str(summary))
    monkeypatch.setenv(OUTPUT, str(output))

    assert asked(path, require=["m>0"], junit=str(tmp_path / "g.xml"), summary=str(tmp_path / "s.md"))[0] == 0
    assert output.read_text().startswith("other=1\npass<<")
    assert github_values(output.read_text().removeprefix("other=1\n"))["pass"] == "true"
    assert not summary.exists()
    assert (tmp_path / "s.md").read_text().startswith("### ✅ rsoup gate: 1 of 1 met\n")
    assert ElementTree.parse(tmp_path / "g.xml").getroot().get("failures") == "0"
    assert asked(path, require=["m>1"])[0] == 4
    asked(path, require=["m>0"])
    assert summary.read_text().count("### ") == 2
    assert sorted(os.listdir(tmp_path)) == ["g.xml", "metrics.json", "output", "s.md", "summary"]


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    """Writing over what is read is E0249, and nothing is touched."""
    path = saved(tmp_path, {"m": 1})
    for options in ({"junit": path}, {"summary": path}):
        assert refused(path, require=["m>0"], **options).code == "E0249"
    assert json.loads(Path(path).read_text()) == {"m": 1}


@given(
    st.floats(-1e150, 1e150), st.floats(0, 1e150), st.floats(-1e150, 1e150), st.sampled_from([None, 1, 2, 9])
)
def test_no_number_is_too_large_for_the_answer(
    value: float, error: float, other: float, n: int | None
) -> None:
    """Whatever a table may hold is judged, worded and written as JSON without NaN or infinity."""
    rows = tuple(
        Row(name, "done", {"m": Measured(v, error, n)}, {}) for name, v in (("a", value), ("b", other))
    )
    table = Table("t", {"m": Quality(None, guard=False)}, rows)
    conditions = (Require("m", ">", Fraction(0), "m>0"), NoWorse("m", Fraction(0), "m"))
    gated = prepare(table, conditions, baseline=table, baseline_point="b")
    result = decide(gated, None, confidence=0.999999, undecided_passes=False)
    json.dumps(as_json(result, None), allow_nan=False)
    assert as_text(result)
    ElementTree.fromstring(outputs.junit(result))


@pytest.mark.parametrize("as_json", [False, True])
def test_a_file_that_cannot_be_written_is_exit_6_after_the_verdict(
    tmp_path: Path, as_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict is on stdout, alone; the others are still written."""
    path = saved(tmp_path, {"m": 1})
    monkeypatch.setenv(SUMMARY, str(tmp_path / "none" / "summary"))

    code, out, err = asked(path, as_json=as_json, require=["m>0"], junit=str(tmp_path / "g.xml"))
    assert code == TargetError.exit_code
    assert json.loads(out)["pass"] if as_json else out.startswith("✓")
    assert "error[E060" in err
    assert (tmp_path / "g.xml").exists()
    assert asked(path, require=["m>0"], summary=str(tmp_path))[0] == TargetError.exit_code


def test_the_command_line(tmp_path: Path) -> None:
    """Options reach the gate, and its code is the exit code."""
    import typer
    from typer.testing import CliRunner

    from rsoup.cli.gate_command import gate as command

    app = typer.Typer()
    app.command()(command)
    path = saved(tmp_path, {"m": 1, "l": 2})
    runner = CliRunner()
    assert (
        runner.invoke(
            app, [path, "--require", "m>=1", "--no-worse", "l", "--baseline", path, "--minimise", "l"]
        ).exit_code
        == 0
    )
    ended = runner.invoke(app, [path, "--require", "m>1", "--json"])
    assert (ended.exit_code, json.loads(ended.stdout)["error"]["code"]) == (4, "E0402")
    assert "rsoup gate run/ --require" in runner.invoke(app, ["--help"]).stdout
