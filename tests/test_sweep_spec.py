"""What is typed of a sweep: metrics, times, commands, sweep files; all problems at once, nothing guessed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from rsoup.errors import RsoupError, UsageError
from rsoup.recipe import Ingredient
from rsoup.recipe_yaml import load as load_recipe
from rsoup.request import Request
from rsoup.sweep import asking
from rsoup.sweep.score import Metric
from rsoup.sweep.spec import Design, EvaluatorSpec, SweepSpec
from rsoup.sweep.study import Study
from rsoup.sweep.sweep_yaml import dump, load, loads

ROOT = Path(__file__).resolve().parent.parent
TWO = Request([Ingredient("a", ("x",)), Ingredient("b", ("y",))])
SCORED = EvaluatorSpec((Metric("r", "$.r"),), run="python score.py {model}")

FULL = """
base: base
method: slerp
ingredients:
  - {name: a, checkpoint: x}
  - {name: b, checkpoint: y}
  - {name: m, checkpoint: z}
points:
  grid: 5
  scheffe: true
  list: [[0.3, 0.7, 0], {a: 1/3, b: 2/3, m: 0}]
  random: 3
  sobol: 2
  seed: 7
  scales: {grid: 3}
  refine: 2
evaluate:
  - run: python score.py {model}
    timeout: 10min
    files: [data.jsonl]
    version: "2"
    metrics_file: "{out}/metrics.json"
    output_limit: 1MB
    rewards:
      helpful: $.helpful
      length: {metric: "$.len[0]", direction: minimise, error: $.len_se}
      acc: lm-eval:gsm8k:acc,none
    guards: {ppl: {direction: minimise}}
  - function: module:score
    rewards: [extra]
repeats: 3
report: 2
""".replace("method: slerp\n", "")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("helpful", Metric("helpful", "$.helpful", None, True)),
        ("loss:min", Metric("loss", "$.loss", None, False)),
        ("loss:minimize", Metric("loss", "$.loss", None, False)),
        ("x=$.a.b[0]:max", Metric("x", "$.a.b[0]", None, True)),
        ("acc=lm-eval:gsm8k:exact_match,strict-match", Metric("acc", "lm-eval:gsm8k:exact_match,strict-match", None, None)),
        ("acc=lm-eval:gsm8k:acc,none:min", Metric("acc", "lm-eval:gsm8k:acc,none", None, False)),
        ("my score", Metric("my score", '$["my score"]', None, True)),
    ],
)  # fmt: skip
def test_rewards_as_they_are_typed(text: str, wanted: Metric) -> None:
    """NAME[=ADDRESS][:direction]; a harness's file says its direction itself."""
    assert asking.parse_metric(text) == wanted


@pytest.mark.parametrize("text", ["", "=", "a=", "point", "lambda_a", "a,b", ":min", "a=b:c=d:", "x=nowhere"])
def test_rewards_that_mean_nothing(text: str) -> None:
    """Refused by name or address."""
    with pytest.raises(UsageError) as refused:
        asking.parse_metric(text)
    assert refused.value.code in ("E0232", "E0239")


def test_times_and_scales() -> None:
    """Seconds of the usual units; scales as a list or a grid of η from 0 to 1."""
    times = {"90": 90, "90s": 90, "10min": 600, "2h": 7200, "1.5 h": 5400, "1d": 86400}
    assert {text: asking.parse_duration(text) for text in times} == times
    assert asking.parse_scales("0,1/2,1") == asking.parse_scales("grid:3") == (0, Fraction(1, 2), 1)
    for wrong in ("", "0", "-1s", "1 year", "nan"):
        with pytest.raises(UsageError) as refused:
            asking.parse_duration(wrong)
        assert refused.value.code == "E0234"


@pytest.mark.fault("J10")
@pytest.mark.parametrize("command", ["a | b", "a && b", "a > out", "X=1 a", "a `b`", "a $(b)", "a ; b"])
def test_what_only_a_shell_understands_is_refused(command: str) -> None:
    """There is no shell, and a word that needs one would reach the program as it is."""
    with pytest.raises(UsageError) as refused:
        asking.make_spec(TWO, [EvaluatorSpec(SCORED.metrics, run=command)], Design(grid=3))
    assert refused.value.code == "E0233"
    assert "sh -c" in (refused.value.hint or "")


def refused(**changes: object) -> str:
    """The code of the refusal of a sweep with these parts."""
    parts: dict[str, object] = {"request": TWO, "evaluators": [SCORED], "design": Design(grid=3), **changes}
    with pytest.raises(UsageError) as found:
        asking.make_spec(**parts)  # type: ignore[arg-type]
    return found.value.code


def test_columns_of_the_table_are_distinct() -> None:
    """A metric called as the standard error of another, or as its report values where there are some: E0232."""
    both = [EvaluatorSpec((Metric("r", "$.r"), Metric(name, "$.x", guard=True)), run="x") for name in ("r_report", "r_stderr")]  # fmt: skip

    assert asking.make_spec(TWO, [both[0]], Design(grid=3)).metrics[1].name == "r_report"
    assert refused(evaluators=[both[0]], report_repeats=1) == "E0232"
    assert refused(evaluators=[both[1]]) == "E0232"


def test_parts_that_do_not_go_together() -> None:
    """Every contradiction has its refusal."""
    guard = EvaluatorSpec((Metric("g", "$.g", guard=True),), run="x")
    assert refused(evaluators=[]) == "E0235"
    assert refused(evaluators=[guard]) == "E0235"
    assert refused(evaluators=[EvaluatorSpec((), run="x")]) == "E0235"
    assert refused(evaluators=[SCORED, SCORED]) == "E0232"
    assert refused(strategy="best") == "E0210"
    assert refused(strategy="greedy", metric="r") == "E0206"
    assert refused(strategy="greedy", design=Design()) == "E0206"
    assert refused(strategy="greedy", design=Design(), metric="other") == "E0206"
    assert refused(strategy="uniform", design=Design(), metric="r") == "E0206"
    assert refused(metric="r") == "E0206"
    assert refused(design=Design()) == "E0250"
    assert refused(repeats=0) == "E0250"
    assert refused(report_all=True) == "E0250"
    assert refused(design=Design(grid=3, scales=(Fraction(0), Fraction(1)))) == "E0207"
    assert refused(request=Request([])) in ("E0202", "E0250")


def test_a_file_says_all_of_it() -> None:
    """Every key of a sweep file arrives."""
    spec = loads(FULL)
    assert spec.design == Design(5, True, ((Fraction(3, 10), Fraction(7, 10), Fraction(0)), (Fraction(1, 3), Fraction(2, 3), Fraction(0))), 3, 2, 7, (), (Fraction(0), Fraction(1, 2), Fraction(1)))  # fmt: skip
    assert (spec.refine, spec.repeats, spec.report_repeats) == (2, 3, 2)
    first, second = spec.evaluators
    assert first.run == "python score.py {model}"
    assert (first.timeout_seconds, first.files, first.version) == (600.0, ("data.jsonl",), "2")
    assert (first.metrics_file, first.output_bytes) == ("{out}/metrics.json", 1_000_000)
    assert first.metrics == (
        Metric("helpful", "$.helpful"),
        Metric("length", "$.len[0]", "$.len_se", False),
        Metric("acc", "lm-eval:gsm8k:acc,none", None, None),
        Metric("ppl", "$.ppl", None, False, True),
    )
    assert second.function == "module:score"


def same(one: SweepSpec, other: SweepSpec) -> bool:
    """Whether two specs ask for the same: equal in everything but how the request is spelt."""
    parts = ("evaluators", "design", "series", "strategy", "metric", "accept_equal", "refine", "repeats", "report_repeats", "report_all")  # fmt: skip
    return all(getattr(one, part) == getattr(other, part) for part in parts) and dump(one) == dump(other)


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        "ingredients: [{checkpoint: x}, {checkpoint: y}]\npoints: {grid: 3}\nreport: 2\nreport_all: true\nevaluate: [{run: e, rewards: [r]}]",
        "ingredients: [{checkpoint: x}, {checkpoint: y}]\nstrategy: greedy\nmetric: r\naccept_equal: true\nevaluate: [{run: e, rewards: [r]}]",
        "ingredients: [{name: g, checkpoints: [x, y]}, {name: h, checkpoint: z}, {name: m, checkpoint: w}]\npoints: {grid: 3, through: [m]}\nevaluate: [{run: e, rewards: [r]}]",
    ],
)
def test_a_sweep_is_written_as_it_is_read(text: str) -> None:
    """loads(dump(s)) asks for what s asks for."""
    spec = loads(text)
    assert same(loads(dump(spec)), spec)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("points:\n", "lambda: [1, 0, 0]\npoints:\n"), "no λ of its own"),
        (("grid: 5", "grid: one"), "whole number"),
        (("grid: 5", "gird: 5"), "did you mean 'grid'"),
        (("run: python score.py {model}", "runs: x"), "either 'run' or 'function'"),
        (("timeout: 10min", "timeout: soon"), "is no time"),
        (("direction: minimise, error", "direction: down, error"), "none of maximise, minimise"),
        (("0.3, 0.7, 0]", "0.3, 0.7, 1]"), "sums to 2"),
        (("repeats: 3", "repeat: 3"), "unknown key 'repeat'"),
        (("$.len[0]", "$.len[x]"), "address"),
    ],
)
def test_mistakes_in_a_file_have_their_place(change: tuple[str, str], said: str) -> None:
    """File, line and column, in the words of a file."""
    assert change[0] in FULL
    with pytest.raises(UsageError) as found:
        loads(FULL.replace(*change), name="s.yaml")
    text = str(found.value)
    assert said in text
    assert "s.yaml:" in text


def test_the_example_is_a_sweep(tmp_path: Path) -> None:
    """recipes/sweep.yaml is read, and refused by merge with the command to type."""
    file = ROOT / "recipes" / "sweep.yaml"
    spec = load(str(file))
    assert spec.design.grid == 11
    study = Study(spec, str(tmp_path / "run"))
    assert study.names == ("low", "high")
    with pytest.raises(RsoupError, match="rsoup sweep"):
        load_recipe(str(file))
