"""Utilities over rewards: Python's own arithmetic as the oracle, refusals with their place, errors that propagate."""

from __future__ import annotations

import ast
import math
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rsoup.errors import UsageError
from rsoup.gate.requirements import Require
from rsoup.measured.values import Measured
from rsoup.select.expression import FUNCTIONS
from rsoup.select.grammar import MAX_LENGTH, MAX_NESTED
from rsoup.select.utility import Worth, affine, parse_constraints, parse_utility, unmet, worth

REWARDS = ["r1", "r2", "rouge-1", "lm eval/acc", "helpful.v2"]
POINT = {"r1": 0.5, "r2": 0.9, "rouge-1": 0.25, "lm eval/acc": 2.0, "helpful.v2": -3.0}
SPELLING = {"rouge-1": '"rouge-1"', "lm eval/acc": "`lm eval/acc`"}
PYTHON = {
    "abs": abs,
    "clip": lambda x, low, high: min(max(x, low), high) if low <= high else math.sqrt(-1),
    "exp": math.exp,
    "log": math.log,
    "max": lambda *x: max(x),
    "mean": lambda *x: math.fsum(x) / len(x),
    "min": lambda *x: min(x),
    "power": lambda x, y: float(x) ** y if x >= 0 or y == int(y) else math.sqrt(-1),
    "sqrt": math.sqrt,
    "sum": lambda *x: math.fsum(x),
    "__builtins__": {},
}


class RealPowers(ast.NodeTransformer):
    """x ** y as power(x, y), which raises where Python would go on with a complex number."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """The power as a call, and what is in it."""
        self.generic_visit(node)
        if not isinstance(node.op, ast.Pow):
            return node
        return ast.Call(ast.Name("power", ast.Load()), [node.left, node.right], [])


def by_python(text: str, point: dict[str, float]) -> float | None:
    """What Python makes of the text, None where it raises or leaves the finite numbers."""
    tree = ast.fix_missing_locations(RealPowers().visit(ast.parse(text, mode="eval")))
    try:
        found = float(eval(compile(tree, "", "eval"), dict(PYTHON), point))
    except (ArithmeticError, ValueError):
        return None
    return found if math.isfinite(found) else None


def value(text: str, point: dict[str, float] | None = None) -> float | None:
    """The utility of a point."""
    return worth(parse_utility(text, REWARDS), point or POINT).value


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4, condition: bool = False) -> str:
    """Text over all of the grammar, with and without needless parentheses; conditions where they must be."""
    if condition:
        kind = draw(st.sampled_from(["compare", "compare", "not", "logic"])) if depth > 1 else "compare"
        inner = expressions(max(depth - 1, 0), condition=kind != "compare")
        if kind == "compare":
            signs = draw(
                st.lists(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), min_size=1, max_size=2)
            )
            text = draw(inner) + "".join(f" {sign} {draw(inner)}" for sign in signs)
            return f"({text})"
        if kind == "not":
            return f"(not {draw(inner)})"
        word = draw(st.sampled_from([" and ", " or "]))
        return f"({word.join(draw(st.lists(inner, min_size=2, max_size=3)))})"
    if depth <= 0:
        numbers = ["0", "1", "2", ".5", "0.25", "3.", "1e-1"]
        return draw(st.sampled_from([SPELLING.get(name, name) for name in REWARDS] + numbers))
    part = expressions(draw(st.integers(0, depth - 1)))
    kind = draw(
        st.sampled_from(["chain", "chain", "negative", "power", "call", "choice", "condition", "group"])
    )
    if kind == "chain":
        signs = draw(st.lists(st.sampled_from(["+", "-", "*", "/"]), min_size=1, max_size=3))
        return draw(part) + "".join(f" {sign} {draw(part)}" for sign in signs)
    if kind == "power":
        base = draw(part)
        base = base if draw(st.booleans()) and " " not in base else f"({base})"
        return f"{base}**{draw(st.sampled_from(['2', '-1', '.5', '0', '-2', '2**-1']))}"
    if kind == "call":
        name = draw(st.sampled_from(sorted(FUNCTIONS)))
        count = FUNCTIONS[name] or draw(st.integers(1, 3))
        return f"{name}({', '.join(draw(part) for _ in range(count))})"
    if kind == "choice":
        return f"({draw(part)} if {draw(expressions(depth - 1, condition=True))} else {draw(part)})"
    if kind == "condition":
        return draw(expressions(depth - 1, condition=True))
    return f"-{draw(part)}" if kind == "negative" else f"({draw(part)})"


@given(expressions(), st.tuples(*[st.floats(-3, 3) | st.sampled_from([0.0, 1.0, -1.0])] * 5))
def test_a_utility_is_what_python_makes_of_it(text: str, numbers: tuple[float, ...]) -> None:
    """Same text, same values, same result as Python's; not defined exactly where Python raises or leaves the reals."""
    assume(any(SPELLING.get(name, name) in text for name in REWARDS))
    point = dict(zip(REWARDS, numbers, strict=True))
    names = {"r1": "r1", "r2": "r2", "helpful.v2": "h", "rouge-1": "g", "lm eval/acc": "a"}
    code = text
    for name, other in names.items():
        code = code.replace(SPELLING.get(name, name), other)

    assert value(text, point) == by_python(code, {names[name]: number for name, number in point.items()})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("r1 if r2 > .8 else 0", 0.5),
        ("-r1**2", -0.25),
        ("2**3**0*r1", 1.0),
        ("r1 - r2 - 0.25", 0.5 - 0.9 - 0.25),
        ("r1 if r2 > 1 else 2 if r2 > 0.8 else 7", 2.0),
        ("0 < r1 < r2 < 1", 1.0),
        ("(r1 > .4) + (r2 > .95)", 1.0),
        ("r1 / (r2 - r2) if r1 > 1 else r2", 0.9),
        ("r1 > 2 and r1 / 0 > 1", 0.0),
        ('min("rouge-1", `lm eval/acc`)', 0.25),
        ("+r1\n+\tr2", 1.4),
        ("clip(helpful.v2, -1, 1)", -1.0),
    ],
)
def test_words_mean_what_they_mean_in_python(text: str, expected: float) -> None:
    """Precedence, laziness, chains, quoting, white space."""
    assert value(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1 / (r1 - 0.5)", "divides by 0"),
        ("(r1 - 0.5) ** -1", "divides by 0"),
        ("log(r1 - 1)", "logarithm"),
        ("log(r1 - r1)", "logarithm"),
        ("sqrt(-r1)", "square root"),
        ("(-r1) ** 0.5", "power"),
        ("exp(r1 * 10000)", "range"),
        ("1e300 * r1 * 1e300", "range"),
        ("1 / (1e300 * r1 * 1e300)", "range"),
        ("sum(1e308, 1e308) * r1", "range"),
        ("r1 ** (r2 * 100)", "exponent"),
        ("clip(r1, 1, 0)", "clip"),
    ],
)
def test_one_point_without_a_utility_leaves_the_others_theirs(text: str, why: str) -> None:
    """A value that does not exist is told for its point, in words; nothing is raised."""
    found = worth(parse_utility(text, REWARDS), POINT)

    assert (found.value, found.error) == (None, None)
    assert why in str(found.undefined)
    assert value("1 / (r1 - 0.5)", POINT | {"r1": 1.0}) == 2.0


@pytest.mark.parametrize(
    ("text", "at", "hint"),
    [
        ("", 1, "min(helpful"),
        ("   ", 4, "min(helpful"),
        ("r1 +", 5, "min(helpful"),
        ("(r1", 4, "closed"),
        ("r1)", 3, "operator"),
        ("r1 r2", 4, "operator"),
        ("r1 ^ 2", 4, "**"),
        ("r1 = 2", 4, "=="),
        ("r1 & r2", 4, "and"),
        ("80%*r1", 3, "0.8"),
        ("r1 ≥ 1", 4, ">="),
        ("r1 − 1", 4, "written -"),
        ("2r1", 2, "2 * r1"),
        ("01*r1", 2, "2 * r1"),
        ("1_0*r1", 2, "2 * r1"),
        ("0x10*r1", 2, "2 * r1"),
        ("１*r1", 1, "numbers"),
        ("1e999*r1", 1, "0.8"),
        ("1e-999*r1", 1, "0.8"),
        ("r1**65", 5, "exp and log"),
        ("r1**-65", 5, "exp and log"),
        ("avg(r1)", 1, "mean"),
        ("clip(r1, 0)", 1, "clip(r1, 0, 1)"),
        ("abs(r1, r2)", 1, "abs(r1)"),
        ("min()", 5, "min(helpful"),
        ("min(r1,)", 8, "min(helpful"),
        ("r1 and r2", 1, "compare"),
        ("r1 > 1 or r2", 11, "compare"),
        ("not r1", 5, "compare"),
        ("r1 if r2 else 0", 7, "compare"),
        ("r1 if r2 > 1", 13, "two sides"),
        ("'r1'", 1, '"rouge-1"'),
        ('"r1', 1, "never closed"),
        ("r1[0]", 3, "numbers"),
        ("r1; r2", 3, "numbers"),
        ("lambda: r1", 7, "numbers"),
        ("__import__('os').system('id')", 12, '"rouge-1"'),
        ("__import__(r1)", 1, "abs"),
        ("r1.real()", 1, "abs"),
        ("1 + 2", 1, "min(helpful"),
    ],
)
def test_what_is_no_utility_is_refused_where_it_goes_wrong(text: str, at: int, hint: str) -> None:
    """E0260 with the character and what to write instead."""
    with pytest.raises(UsageError, match=rf"^at character {at} of the utility: ") as refused:
        parse_utility(text, REWARDS)

    assert refused.value.code == "E0260"
    assert hint in str(refused.value.hint)


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*'r1()+-*/<>=!,. "`', "and", "if", "else", "min", "9"])).map("".join)
)
def test_any_text_is_a_utility_or_refused(text: str) -> None:
    """Nothing but UsageError E0260 and E0261, each with a hint that can be shown."""
    found: UsageError | None = None
    try:
        parse_utility(text, REWARDS)
    except UsageError as refused:
        found = refused

    if found is not None:
        assert found.code in ("E0260", "E0261")
        assert all(c.isprintable() for c in f"{found.message}{found.hint}")
        assert found.hint


@given(st.text(min_size=1, max_size=20))
def test_every_name_can_be_quoted(name: str) -> None:
    """ "…" and `…`, with the quote itself doubled, name any reward."""
    for quote in '"`':
        text = quote + name.replace(quote, quote * 2) + quote

        assert parse_utility(f"2 * {text}", [name]).rewards == (name,)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("helpfull.v2 + r2", "did you mean 'helpful.v2'? there are 'r1', 'r2'"),
        ("rouge-1", 'stands in quotes: "rouge-1"'),
        ("min(r1, lm eval/acc)", 'stands in quotes: "lm eval/acc"'),
        ("quality", "there are 'r1'"),
        ("R1", "did you mean 'r1'"),
        ("True", "there are"),
        ("r1.__class__", "there are"),
    ],
)
def test_rewards_there_are_not(text: str, hint: str) -> None:
    """The rewards there are, the nearest one, and that some need quotes."""
    with pytest.raises(UsageError) as refused:
        parse_utility(text, REWARDS)

    assert refused.value.code == ("E0260" if "eval" in text else "E0261")
    assert hint in str(refused.value.hint)


def test_limits_hold_and_what_is_below_them_works() -> None:
    """Length, nesting; long sums and ladders of conditions nest nothing; no text exhausts the stack."""
    assert value("+".join(["r1"] * 600)) == 300.0
    ladder = "".join(f"{i} if r2 > {i} else " for i in range(100, 0, -1)) + "r1"
    assert value(ladder) == 0.5
    for opening, closing, inner, deep in (
        ("(", ")", "r1", MAX_NESTED),
        ("min(", ")", "r1", MAX_NESTED),
        ("-", "", "r1", MAX_NESTED),
        ("r1**", "", "r1", MAX_NESTED),
        ("not ", "", "r1 > 0", MAX_NESTED),
        ("1 + 2 * (3 - 4 / (", "))", "r1", MAX_NESTED // 2),
    ):
        assert parse_utility(opening * deep + inner + closing * deep, REWARDS).rewards == ("r1",)
        for count in (deep + 1, MAX_LENGTH // (len(opening) + len(closing) + 1)):
            with pytest.raises(UsageError, match="inside one another"):
                parse_utility(opening * count + inner + closing * count, REWARDS)
    with pytest.raises(UsageError, match="characters"):
        parse_utility("r1" + " " * MAX_LENGTH, REWARDS)


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 2)), min_size=5, max_size=5),
    st.lists(st.floats(-2, 2), min_size=5, max_size=5),
)
def test_the_error_of_a_weighted_sum_is_exact(
    measured: list[tuple[float, float]], weights: list[float]
) -> None:
    """√Σ(wₖeₖ)²; and `affine` reads the weights back from the text."""
    text = " + ".join(
        f"({w!r}) * {SPELLING.get(n, n)}" for w, n in zip(weights, REWARDS, strict=True)
    ).replace("(-", "(-")
    utility = parse_utility(text, REWARDS)
    values = {name: v for name, (v, _) in zip(REWARDS, measured, strict=True)}
    errors = {name: e for name, (_, e) in zip(REWARDS, measured, strict=True)}

    found = worth(utility, values, errors)

    assert found.error == pytest.approx(
        math.hypot(*(w * e for w, (_, e) in zip(weights, measured, strict=True))), abs=1e-12
    )
    assert found.value == pytest.approx(math.fsum(w * v for w, (v, _) in zip(weights, measured, strict=True)))
    kind = affine(utility)
    assert kind is not None
    assert kind.weights == {n: pytest.approx(w) for n, w in zip(REWARDS, weights, strict=True)}


@pytest.mark.parametrize(
    "text", ["r1 * r2", "exp(r1) + sqrt(r2)", "r1 ** 3 / r2", "log(r1 * r2)", "min(r1, 2 * r2)"]
)
def test_the_error_of_a_smooth_utility_is_that_of_many_evaluations(text: str) -> None:
    """The standard deviation over 4000 noisy evaluations, to 8 %."""
    random = np.random.default_rng(0)
    utility, point, errors = parse_utility(text, REWARDS), {"r1": 0.5, "r2": 0.9}, {"r1": 0.02, "r2": 0.03}
    noisy = [
        worth(utility, {k: v + errors[k] * random.standard_normal() for k, v in point.items()}).value
        for _ in range(4000)
    ]

    assert worth(utility, point, errors).error == pytest.approx(float(np.std(np.array(noisy))), rel=0.08)


def test_errors_do_not_vanish_where_slopes_do() -> None:
    """|x| at 0, a threshold within one error, a minimum at a tie: the error says that the value is open there."""
    errors = {"r1": 0.1, "r2": 0.1}
    assert worth(parse_utility("abs(r1)", REWARDS), {"r1": 0.0}, errors).error == pytest.approx(0.1)
    step = worth(parse_utility("r1 if r2 > .8 else 0", REWARDS), {"r1": 0.5, "r2": 0.85}, errors)
    assert step.error is not None
    assert step.error > 0.3
    far = worth(parse_utility("r1 if r2 > .8 else 0", REWARDS), {"r1": 0.5, "r2": 0.95}, errors)
    assert far.error == pytest.approx(0.1)
    tie = worth(parse_utility("min(r1, r2)", REWARDS), {"r1": 0.5, "r2": 0.5}, errors)
    assert tie.error == pytest.approx(0.1)


def test_errors_that_cannot_be_known_are_none() -> None:
    """Unknown for a used reward, or the utility ends within one error; unused rewards do not count; 0 is known."""
    utility = parse_utility("log(r1) + r2", REWARDS)
    assert worth(utility, POINT, {"r1": 0.1}) == Worth(math.log(0.5) + 0.9, None)
    assert worth(utility, POINT, {"r1": 0.6, "r2": 0.1}).error is None
    assert worth(utility, POINT).error is None
    assert worth(utility, POINT, {"r1": 0.0, "r2": 0.0, "rouge-1": None}).error == 0.0


def test_rewards_that_were_not_measured_have_no_utility() -> None:
    """In words; a value that is no number is the caller's mistake."""
    utility = parse_utility('r1 + "rouge-1"', REWARDS)
    assert worth(utility, {"r1": 1.0}).undefined == "'rouge-1' not measured"
    assert utility.rewards == ("r1", "rouge-1")
    for values, errors in (
        ({"r1": math.nan}, {}),
        ({"r1": math.inf}, {}),
        ({}, {"r1": -0.1}),
        ({}, {"r1": math.nan}),
    ):
        with pytest.raises(ValueError, match="finite"):
            worth(utility, POINT | values, errors)


@pytest.mark.parametrize(
    ("text", "constant", "weights"),
    [
        ("mean(r1, r2) * 2 - 1", -1.0, {"r1": 1.0, "r2": 1.0}),
        ("-(r1 - 3) / 2", 1.5, {"r1": -0.5}),
        ("sum(r1, r1, max(1, 2))", 2.0, {"r1": 2.0}),
        ("r1 * r2", None, {}),
        ("min(r1, r2)", None, {}),
        ("1 / r1", None, {}),
        ("r1 > 1", None, {}),
        ("r1 / 0", None, {}),
        ("r1 + 1 / 0", None, {}),
    ],
)
def test_weighted_sums_are_recognised(text: str, constant: float | None, weights: dict[str, float]) -> None:
    """Constant and weights where the text is a weighted sum, None where it is not."""
    found = affine(parse_utility(text, REWARDS))

    assert (found is None) == (constant is None)
    assert found is None or (found.constant, dict(found.weights)) == (constant, weights)


def test_constraints_are_met_as_they_are_written() -> None:
    """0.8 ≥ 0.8 whatever its binary neighbour; > is strict; what was not measured meets nothing."""
    found = parse_constraints(["r1>=0.8", "r2<0.3", "r1>=0.8"], REWARDS)

    assert found == (
        Require("r1", ">=", Fraction(4, 5), "r1>=0.8"),
        Require("r2", "<", Fraction(3, 10), "r2<0.3"),
    )
    assert unmet(found, {"r1": Measured(0.8), "r2": Measured(0.29)}) == ()
    assert unmet(found, {"r1": Measured(0.7999999999999999), "r2": Measured(0.3)}) == found
    assert unmet(found, {"r1": Measured(1.0)}) == found[1:]
    with pytest.raises(UsageError, match="no reward is called 'r3'") as refused:
        parse_constraints(["r3>1"], REWARDS)
    assert refused.value.code == "E0261"
    with pytest.raises(UsageError) as refused:
        parse_constraints(["r1=1"], REWARDS)
    assert refused.value.code == "E0243"


def test_thousands_of_points_take_less_than_a_second() -> None:
    """3000 points of 8 rewards with errors."""
    names = [f"x{k}" for k in range(8)]
    utility = parse_utility("min(x0, x1) + 0.5 * mean(x2, x3, x4) if x5 > .1 else x6 * x7", names)
    random = np.random.default_rng(0)
    points = [dict(zip(names, map(float, row), strict=True)) for row in random.random((3000, 8))]
    errors = dict.fromkeys(names, 0.01)
    began = time.process_time()

    found = [worth(utility, point, errors) for point in points]

    assert time.process_time() - began < 1
    assert all(one.error for one in found)
