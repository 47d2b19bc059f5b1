"""A gate's numbers in words, the same on the terminal, in Markdown and in JUnit."""

from __future__ import annotations

import math
from fractions import Fraction

from rsoup.gate.judging import MET, NOT_MET, UNDECIDED, GateResult, Judgement
from rsoup.gate.requirements import Require
from rsoup.measured.values import Measured

_DIGITS = 6
_MOST_PLACES = 12


def headline(result: GateResult) -> str:
    """`1 of 2 not met, 1 not decided`, or `2 of 2 met`."""
    total = len(result.judgements)
    found = [(verdict, result.count(verdict)) for verdict in (NOT_MET, UNDECIDED)]
    said = [(verdict, count) for verdict, count in found if count] or [(MET, total)]
    first, *rest = said
    return ", ".join(
        [f"{first[1]} of {total} {first[0]}", *(f"{count} {verdict}" for verdict, count in rest)]
    )


def measured(found: Judgement) -> str:
    """`0.806 ± 0.011`, or `0.698 ± 0.003 vs 0.712 ± 0.003`: what was compared, with standard errors."""
    value = _value(found.value)
    return value if found.baseline is None else f"{value} vs {_value(found.baseline)}"


def because(found: Judgement, confidence: float) -> str:
    """What decided: the difference and what is allowed, the interval of the value, what is missing."""
    share = f"{confidence * 100:.6g} %"
    if found.error is None:
        said = "no standard error known"
    elif found.error == 0:
        said = "the standard error is 0"
    else:
        said = f"{share} interval {_interval(found)}"
    if not isinstance(found.condition, Require):
        change = found.difference - found.condition.allowed
        change, allowed = (
            (change, -found.condition.allowed) if found.maximise else (-change, found.condition.allowed)
        )
        said = f"{_number(float(change), found.error, '+')}, allowed {_number(float(allowed), None, '+')}; {said}"
        if (
            any(side is not None and side.error is None for side in (found.value, found.baseline))
            and found.error
        ):
            said += ", with the standard error of one side alone"
    if found.verdict == UNDECIDED:
        said += f": {_missing(found.samples)}"
    return said


def _missing(samples: float | None) -> str:
    if samples is None or samples > 1e6:
        return "no sample size that can be had would decide"
    return f"about {max(samples, 1.1):.1f} times the samples needed" if samples < 9.5 else (
        f"about {samples:.0f} times the samples needed"
    )  # fmt: skip


def _interval(found: Judgement) -> str:
    """Of the value for a limit, of the change for a baseline."""
    if isinstance(found.condition, Require):
        middle = found.value.exact
        sign = ""
    else:
        gain: Fraction = found.difference - found.condition.allowed
        middle = gain if found.maximise else -gain
        sign = "+"
    low, high = float(middle) - found.half_width, float(middle) + found.half_width
    return f"{_number(low, found.error, sign)} to {_number(high, found.error, sign)}"


def _value(value: Measured) -> str:
    if not value.error:
        return _number(value.value, None)
    return f"{_number(value.value, value.error)} ± {_number(value.error, value.error)}"


def _number(value: float, error: float | None, sign: str = "") -> str:
    """Two digits of the error decide how many are shown; six where there is none."""
    if not error or not math.isfinite(math.log10(error)):
        return f"{value:{sign}.{_DIGITS}g}"
    places = 1 - math.floor(math.log10(error))
    if abs(value) >= 1e12 or places > _MOST_PLACES:
        return f"{value:{sign}.{_DIGITS}g}"
    return f"{value:{sign}.{max(places, 0)}f}"
