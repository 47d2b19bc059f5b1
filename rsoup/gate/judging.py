"""Verdicts: is a condition met, not met, or not decided at this sample size? Pure functions of measured values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rsoup.errors import GateError, Problem, show
from rsoup.gate.requirements import Condition, Require
from rsoup.measured.student import two_sided
from rsoup.measured.values import Measured

MET: Final = "met"
NOT_MET: Final = "not met"
UNDECIDED: Final = "not decided"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One condition and its verdict (`MET`, `NOT_MET`, `UNDECIDED`).

    `difference` is how far the value is beyond its limit in the good direction, `error` its standard error (None:
    not known), `half_width` half of its confidence interval; `samples` is by what factor the sample must
    grow to decide (None: decided, or no sample would). `maximise` tells the good direction.
    """

    condition: Condition
    verdict: str
    value: Measured
    baseline: Measured | None
    maximise: bool
    difference: Fraction
    error: float | None
    half_width: float
    samples: float | None


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a gate found: the point, its λ (None: not known), a judgement per condition, notes in words."""

    point: str
    mix: str | None
    judgements: tuple[Judgement, ...]
    confidence: float
    undecided_passes: bool
    notes: tuple[str, ...] = ()

    def count(self, verdict: str) -> int:
        """How many conditions have this verdict."""
        return sum(found.verdict == verdict for found in self.judgements)

    @property
    def passed(self) -> bool:
        """Whether nothing fails: no condition is not met, and none undecided unless those pass."""
        return not self.count(NOT_MET) and (self.undecided_passes or not self.count(UNDECIDED))


def judge(
    condition: Condition,
    value: Measured,
    baseline: Measured | None,
    *,
    maximise: bool,
    confidence: float,
) -> Judgement:
    """Met if d − z·se > 0, not met if d + z·se < 0, else not decided; d = value − limit in the good direction.

    The limit of a NoWorse is the baseline's value less what is allowed, and the errors of both add in
    quadrature. z is the two-sided quantile: of Student's t where errors come from repeats, with the degrees of
    freedom after Welch and Satterthwaite, else of the normal distribution. Without an error, or with 0, the values
    are compared as they are written. A Require is judged by its own relation, whatever `maximise` says.
    """
    difference, error = margin(condition, value, baseline, maximise=maximise)
    good = condition.sign > 0 if isinstance(condition, Require) else maximise
    strict = isinstance(condition, Require) and condition.strict
    half, samples = 0.0, None
    if not error:
        verdict = MET if difference > 0 or (difference == 0 and not strict) else NOT_MET
    else:
        half = two_sided(confidence, _freedom(value, baseline)) * error
        verdict = MET if difference > half else NOT_MET if difference < -half else UNDECIDED
        if verdict == UNDECIDED and float(difference):
            samples = _square(half / abs(float(difference)))
    return Judgement(condition, verdict, value, baseline, good, difference, error, half, samples)


def _square(ratio: float) -> float | None:
    return ratio * ratio if math.isfinite(ratio * ratio) else None


def margin(
    condition: Condition, value: Measured, baseline: Measured | None, *, maximise: bool
) -> tuple[Fraction, float | None]:
    """d and its standard error (None: neither side's is known; one that is not known counts as 0)."""
    if isinstance(condition, Require):
        return condition.sign * (value.exact - condition.limit), value.error
    assert baseline is not None
    gain = value.exact - baseline.exact
    known = [side.error for side in (value, baseline) if side.error is not None]
    return (gain if maximise else -gain) + condition.allowed, math.hypot(*known) if known else None


def _freedom(value: Measured, baseline: Measured | None) -> float:
    """ν = (Σ seᵢ²)² / Σ (seᵢ⁴/(nᵢ − 1)); an error that does not come from repeats has no term below."""
    sides = [side for side in (value, baseline) if side is not None and side.error]
    largest = max(side.error or 0.0 for side in sides)
    squares = [((side.error or 0.0) / largest) ** 2 for side in sides]
    below = sum(
        square**2 / (side.repeats - 1)
        for side, square in zip(sides, squares, strict=True)
        if side.repeats is not None and side.repeats > 1
    )
    return sum(squares) ** 2 / below if below else math.inf


def failure(result: GateResult, others: Sequence[str] = ()) -> GateError | None:
    """The error that a result is: E0402 where a condition is not met, E0403 where only undecided ones stand against it.

    `others` are the names of other points that were measured. None for a result that passed.
    """
    if result.passed:
        return None
    elsewhere = "gate another point: --point NAME" if others else "measure a soup with another λ"
    if found := _problems(result, NOT_MET):
        count = f"{len(found)} of {len(result.judgements)}"
        return GateError(
            "E0402",
            f"point '{show(result.point)}': {count} conditions not met",
            hint=elsewhere,
            details=found,
        )
    found = _problems(result, UNDECIDED)
    return GateError(
        "E0403",
        f"point '{show(result.point)}': {len(found)} of {len(result.judgements)} conditions not decided at this sample size",
        hint="measure more samples or repeats, or let them pass: --undecided pass",
        details=found,
    )


def _problems(result: GateResult, verdict: str) -> tuple[Problem, ...]:
    return tuple(
        Problem("", show(found.condition.text)) for found in result.judgements if found.verdict == verdict
    )
