"""The worth of measured points under any utility of their rewards, with its standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rsoup.errors import UsageError, listing, show
from rsoup.gate.requirements import Require, parse_require
from rsoup.measured.values import Measured
from rsoup.select.evaluation import Run, UndefinedError, compiled, finite
from rsoup.select.expression import Call, Chain, Negative, Node, Reward, rewards_in
from rsoup.select.grammar import PLAIN, read_expression


@dataclass(frozen=True, slots=True)
class Worth:
    """A point's utility and its standard error (None: not known), or why it is not defined there (value None)."""

    value: float | None
    error: float | None = None
    undefined: str | None = None


@dataclass(frozen=True, slots=True)
class Utility:
    """A utility as typed (`text`), its tree, and the rewards it uses, in the order in which it names them."""

    text: str
    tree: Node
    rewards: tuple[str, ...]
    _run: Run = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Affine:
    """constant + Σ weights[k]·r_k."""

    constant: float
    weights: Mapping[str, float]


def parse_utility(text: str, rewards: Sequence[str]) -> Utility:
    """The utility a user typed, over `rewards`; its grammar is that of `read_expression`.

    Raises UsageError E0260 for what is no expression or names no reward, E0261 for a name not among `rewards`.
    """
    try:
        tree = read_expression(text)
    except UsageError as error:
        if quoted := _to_quote(text, rewards):
            error.hint = f"a name that is no plain word stands in quotes: {quoted}"
        raise
    used = rewards_in(tree)
    if not used:
        raise UsageError(
            "E0260",
            f"at character 1 of the utility: '{show(text)}' names no reward",
            hint="e.g. min(helpful, harmless)",
        )
    if unknown := [name for name in used if name not in rewards]:
        raise _unknown(unknown, rewards, _to_quote(text, rewards))
    return Utility(text, tree, used, compiled(tree))


def _to_quote(text: str, rewards: Sequence[str]) -> str | None:
    """A reward that needs quotes, in quotes, where the text has it without."""
    for name in rewards:
        quoted = '"' + name.replace('"', '""') + '"'
        if not PLAIN.fullmatch(name) and name in text and quoted not in text and f"`{name}`" not in text:
            return show(quoted)
    return None


def _unknown(unknown: Sequence[str], rewards: Sequence[str], quoted: str | None = None) -> UsageError:
    import difflib

    near = [name for name in rewards if name.casefold() == unknown[0].casefold()]
    near += difflib.get_close_matches(unknown[0][:100], list(rewards), 1)
    if quoted:
        first = f"a name that is no plain word stands in quotes: {quoted}; "
    else:
        first = f"did you mean '{show(near[0])}'? " if near else ""
    return UsageError(
        "E0261",
        f"no reward is called {listing(list(unknown))}",
        hint=f"{first}there are {listing(list(rewards), 20)}",
    )


def worth(
    utility: Utility, values: Mapping[str, float], errors: Mapping[str, float | None] | None = None
) -> Worth:
    """u(r), and its error √(Σₖ ½[(u(r+eₖ) − u(r))² + (u(r−eₖ) − u(r))²]) with eₖ the standard error of reward k alone.

    That is the delta method with the slope taken over one standard error to both sides, so that it is exact for
    weighted sums and does not vanish at the kinks of min, abs and thresholds. Rewards count as independent. The
    error is None where that of a used reward is not known, or u is not defined within one error. u is not defined
    where a used reward was not measured, for a division by 0, roots and logarithms that do not exist, and
    results that are no finite number. Raises ValueError for a value that is not finite and an error below 0.
    """
    if missing := [name for name in utility.rewards if name not in values]:
        return Worth(None, None, f"{listing(missing)} not measured")
    point = {name: values[name] for name in utility.rewards}
    spread = {name: (errors or {}).get(name) for name in utility.rewards}
    if not all(map(math.isfinite, point.values())):
        raise ValueError("a value is not finite")
    if not all(error is None or 0 <= error < math.inf for error in spread.values()):
        raise ValueError("a standard error is negative or not finite")
    try:
        value = finite(utility._run(point))
    except UndefinedError as problem:
        return Worth(None, None, str(problem))
    return Worth(value, _error(utility._run, point, value, spread))


def _error(
    run: Run, point: dict[str, float], value: float, spread: Mapping[str, float | None]
) -> float | None:
    moved = []
    for name, error in spread.items():
        if error is None:
            return None
        for step in (error, -error) if error else ():
            try:
                moved.append(finite(run({**point, name: point[name] + step})) - value)
            except UndefinedError:
                return None
    size = math.hypot(*moved) / math.sqrt(2)
    return size if math.isfinite(size) else None


# --- what kind of utility it is


def affine(utility: Utility) -> Affine | None:
    """constant + Σ wₖrₖ if the utility is written as such (sums, multiples, means; products of rewards are not)."""
    return _affine(utility.tree)


def _affine(node: Node) -> Affine | None:
    if not rewards_in(node):
        try:
            return Affine(finite(compiled(node)({})), {})
        except UndefinedError:
            return None
    match node:
        case Reward(name):
            return Affine(0.0, {name: 1.0})
        case Negative(of):
            return _times(_affine(of), -1.0)
        case Chain(first, rest):
            found = _affine(first)
            for sign, part in rest:
                found = _joined(sign, found, _affine(part))
            return found
        case Call("mean" | "sum" as name, arguments):
            found = Affine(0.0, {})
            for part in arguments:
                found = _joined("+", found, _affine(part))
            return _times(found, 1 / len(arguments)) if name == "mean" else found
    return None


def _times(one: Affine | None, factor: float) -> Affine | None:
    if one is None:
        return None
    return Affine(one.constant * factor, {name: weight * factor for name, weight in one.weights.items()})


def _joined(sign: str, one: Affine | None, other: Affine | None) -> Affine | None:
    if one is None or other is None:
        return None
    if sign == "*":
        constant, linear = (one, other) if not one.weights else (other, one)
        return None if constant.weights else _times(linear, constant.constant)
    if sign == "/":
        return None if other.weights or not other.constant else _times(one, 1 / other.constant)
    turn = -1.0 if sign == "-" else 1.0
    names = dict.fromkeys((*one.weights, *other.weights))
    weights = {name: one.weights.get(name, 0.0) + turn * other.weights.get(name, 0.0) for name in names}
    return Affine(one.constant + turn * other.constant, weights)


# --- constraints beside a utility


def parse_constraints(texts: Sequence[str], metrics: Sequence[str]) -> tuple[Require, ...]:
    """`harmless>=0.8` and the like, each once. UsageError E0243 for what is none, E0261 for an unknown metric."""
    found = tuple(dict.fromkeys(map(parse_require, texts)))
    if unknown := [each.metric for each in found if each.metric not in metrics]:
        raise _unknown(unknown, metrics)
    return found


def unmet(constraints: Sequence[Require], values: Mapping[str, Measured]) -> tuple[Require, ...]:
    """The constraints a point does not meet by its values as they are written; a metric not measured meets none."""
    return tuple(each for each in constraints if not _met(each, values.get(each.metric)))


def _met(constraint: Require, value: Measured | None) -> bool:
    if value is None:
        return False
    over = constraint.sign * (value.exact - constraint.limit)
    return over > 0 or (over == 0 and not constraint.strict)
