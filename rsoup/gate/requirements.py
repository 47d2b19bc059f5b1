"""The conditions of a gate as a user types them: `harmless>=0.80`, `helpful:0.01`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rsoup.errors import UsageError, show

_REQUIRE = re.compile(
    r"\s*(?P<metric>\S(?:.*?[^<>=\s])??)\s*(?P<relation>>=|<=|>|<)\s*(?P<limit>[^<>=]+)", re.DOTALL
)
_DECIMAL = re.compile(
    r"[+-]?(?:(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{0,99})?|\.[0-9]{1,99})(?:[eE][+-]?[0-9]{1,3})?"
)


@dataclass(frozen=True, slots=True)
class Require:
    """`metric relation limit`, the relation one of >=, >, <=, <; `text` is what was typed."""

    metric: str
    relation: str
    limit: Fraction
    text: str

    @property
    def sign(self) -> int:
        """1 where larger values are better for the condition, -1 where smaller ones are."""
        return 1 if self.relation[0] == ">" else -1

    @property
    def strict(self) -> bool:
        """Whether a value equal to the limit does not meet the condition."""
        return "=" not in self.relation


@dataclass(frozen=True, slots=True)
class NoWorse:
    """`metric` at most `allowed` worse than the baseline's, in the metric's own direction; `allowed` ≥ 0."""

    metric: str
    allowed: Fraction
    text: str


Condition = Require | NoWorse


def parse_require(text: str) -> Require:
    """`harmless>=0.80` as a condition: a metric, one of >= > <= <, and a decimal.

    Raises UsageError E0243 for anything else.
    """
    found = _REQUIRE.fullmatch(text)
    if found is None:
        raise UsageError(
            "E0243",
            f"--require '{show(text)}' is not a condition",
            hint="a metric, one of >= > <= <, and a number, in quotes: --require 'harmless>=0.80'",
        )
    limit = _decimal(found["limit"], f"--require '{show(text)}'")
    return Require(found["metric"], found["relation"], limit, text.strip())


def parse_no_worse(text: str) -> NoWorse:
    """`helpful:0.01` or `helpful`, which allows nothing; what stands behind the last colon is the number, if it is one.

    Raises UsageError E0243 for an empty metric, and for a number below 0.
    """
    metric, colon, allowed = text.rpartition(":")
    if not colon or not re.fullmatch(r"[ +-]*[0-9.].*|\s*", allowed, re.DOTALL):
        metric, allowed = text, "0"
    limit = _decimal(allowed, f"--no-worse '{show(text)}'")
    if not metric.strip() or limit < 0:
        raise UsageError(
            "E0243",
            f"--no-worse '{show(text)}' is not a metric and how much worse it may be",
            hint="a number from 0 on, in the metric's unit: --no-worse helpful:0.01",
        )
    return NoWorse(metric.strip(), limit, text.strip())


def _decimal(text: str, where: str) -> Fraction:
    stripped = text.strip()
    value = Fraction(stripped) if _DECIMAL.fullmatch(stripped) else None
    if value is None or not _is_float(value):
        hint = "write a decimal such as 0.8 or 1e-3"
        if re.fullmatch(r"[0-9.]+ ?%", stripped):
            hint = "write a share of 1 instead of a percentage: 0.8 for 80 %"
        raise UsageError("E0243", f"{where}: '{show(stripped)}' is not a decimal number", hint=hint)
    return value


def _is_float(value: Fraction) -> bool:
    try:
        number = float(value)
    except OverflowError:
        return False
    return math.isfinite(number) and (number != 0 or value == 0)


def parse_conditions(require: Sequence[str], no_worse: Sequence[str]) -> tuple[Condition, ...]:
    """All conditions in the order given, each one once.

    Raises UsageError E0243 for one that cannot be read, and where there is none.
    """
    found: list[Condition] = [*map(parse_require, require), *map(parse_no_worse, no_worse)]
    if not found:
        raise UsageError(
            "E0243",
            "there is no condition to judge by",
            hint="--require 'harmless>=0.80', or --no-worse helpful:0.01 --baseline metrics.json",
        )
    return tuple(dict.fromkeys(found))


def parse_confidence(text: str) -> float:
    """`0.95`, the share of intervals that hold the true value. UsageError E0249 for anything but 0.5 to 0.999999."""
    value = Fraction(text.strip()) if _DECIMAL.fullmatch(text.strip()) else Fraction(0)
    if not Fraction(1, 2) <= value <= Fraction("0.999999"):
        raise UsageError(
            "E0249",
            f"--confidence '{show(text)}' is not a share from 0.5 to 0.999999",
            hint="--confidence 0.95 is the default",
        )
    return float(value)
