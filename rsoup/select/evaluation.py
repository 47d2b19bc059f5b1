"""A tree of a utility as a function of a point: composed of Python functions, never compiled from text."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from rsoup.select import expression as tree

Run = Callable[[Mapping[str, float]], float]


class UndefinedError(ArithmeticError):
    """The utility has no value at this point; the text says why."""


def compiled(node: tree.Node) -> Run:
    """The function from rewards by name to the value of an expression; a condition is 1 or 0.

    What is not needed is not computed: sides of a choice, conditions after the deciding one. The function raises
    UndefinedError where there is no finite value, KeyError for a reward that is not given.
    """
    match node:
        case tree.Number(value):
            return lambda _: value
        case tree.Reward(name):
            return operator.itemgetter(name)
        case tree.Negative(of):
            inner = compiled(of)
            return lambda point: -inner(point)
        case tree.Chain(first, rest):
            return _folded(compiled(first), [(_ARITHMETIC[sign], compiled(part)) for sign, part in rest])
        case tree.Power(base, exponent):
            low, high = compiled(base), compiled(exponent)
            return lambda point: _power(low(point), high(point))
        case tree.Compare(first, rest):
            return _compared(compiled(first), [(_COMPARISONS[sign], compiled(part)) for sign, part in rest])
        case tree.Logic(word, parts):
            runs, joined = [compiled(part) for part in parts], all if word == "and" else any
            return lambda point: float(joined(run(point) for run in runs))
        case tree.Not(of):
            inner = compiled(of)
            return lambda point: float(not inner(point))
        case tree.Choice(branches, otherwise):
            pairs, last = [(compiled(c), compiled(v)) for c, v in branches], compiled(otherwise)
            return lambda point: next((value for when, value in pairs if when(point)), last)(point)
        case tree.Call(name, arguments):
            function, inputs = _FUNCTIONS[name], [compiled(part) for part in arguments]
            return lambda point: function([run(point) for run in inputs])


def _folded(first: Run, rest: Sequence[tuple[Callable[[float, float], float], Run]]) -> Run:
    def run(point: Mapping[str, float]) -> float:
        value = first(point)
        for function, part in rest:
            value = function(value, part(point))
        return finite(value)

    return run


def _compared(first: Run, rest: Sequence[tuple[Callable[[float, float], bool], Run]]) -> Run:
    def run(point: Mapping[str, float]) -> float:
        left = first(point)
        for holds, part in rest:
            right = part(point)
            if not holds(left, right):
                return 0.0
            left = right
        return 1.0

    return run


def finite(value: float) -> float:
    """The value itself, unless it is infinite or no number: UndefinedError then."""
    if not math.isfinite(value):
        raise UndefinedError("its value is beyond the range of numbers")
    return value


def _divided(one: float, other: float) -> float:
    if other == 0:
        raise UndefinedError("it divides by 0")
    return one / other


def _power(base: float, exponent: float) -> float:
    if abs(exponent) > tree.MAX_EXPONENT:
        raise UndefinedError(f"an exponent is beyond ±{tree.MAX_EXPONENT:g}")
    if base == 0 and exponent < 0:
        raise UndefinedError("it divides by 0")
    if base < 0 and not exponent.is_integer():
        raise UndefinedError("a negative number has no such power")
    return _within(lambda: base**exponent)


def _within(compute: Callable[[], float]) -> float:
    try:
        return finite(compute())
    except OverflowError:
        raise UndefinedError("its value is beyond the range of numbers") from None


def _root(inputs: Sequence[float]) -> float:
    if inputs[0] < 0:
        raise UndefinedError("a negative number has no square root")
    return math.sqrt(inputs[0])


def _logarithm(inputs: Sequence[float]) -> float:
    if inputs[0] <= 0:
        raise UndefinedError("only numbers above 0 have a logarithm")
    return math.log(inputs[0])


def _clipped(inputs: Sequence[float]) -> float:
    value, low, high = inputs
    if low > high:
        raise UndefinedError("the lower bound of clip is above the upper one")
    return min(max(value, low), high)


_ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divided,
}
_COMPARISONS: Final[dict[str, Callable[[float, float], bool]]] = dict(
    zip(
        tree.COMPARISONS,
        (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne),
        strict=True,
    )
)
_FUNCTIONS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "abs": lambda inputs: abs(inputs[0]),
    "clip": _clipped,
    "exp": lambda inputs: _within(lambda: math.exp(inputs[0])),
    "log": _logarithm,
    "max": max,
    "mean": lambda inputs: _within(lambda: math.fsum(inputs) / len(inputs)),
    "min": min,
    "sqrt": _root,
    "sum": lambda inputs: _within(lambda: math.fsum(inputs)),
}
