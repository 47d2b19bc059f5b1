"""Linear mode connectivity, the paper's Hypothesis 1: a soup's reward is at least the mean of its experts', or not."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rsoup.measured.student import outside, two_sided

Mix = tuple[Fraction, ...]
Errors = Sequence[Sequence[float | None]]
Repeats = Sequence[Sequence[int | None]]
PASS: Final = "PASS"  # noqa: S105 - a verdict
FAIL: Final = "FAIL"
INCONCLUSIVE: Final = "INCONCLUSIVE"
NOT_TESTED: Final = "NOT TESTED"
_ROUNDING = 8 * sys.float_info.epsilon  # of the largest value: what a chord computed in floats may be off
_FARTHEST = 1e100  # standard errors, whose square is finite
_MOST = 2.0**1000  # so that no difference and no square root of squares overflows


@dataclass(frozen=True, slots=True)
class Gap:
    """How far a reward at λ is above the chord, R(λ) − Σ λᵢR(eᵢ), turned so that below 0 is worse than the chord.

    `gap` is in the reward's unit, `relative` in the range of the experts (None where they are equal), `deviations` in
    `error`, its standard error (None where that is not known, or 0). `verdict` is this one pair's.
    """

    mix: Mix
    gap: float
    relative: float | None
    error: float | None
    deviations: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Chord:
    """One reward: its verdict, a gap per soup, the worst of them, and the range of the experts.

    `passes_at` is the smallest tolerance in range units that gives PASS (None: the experts are equal, nothing was
    tested, or a gap has no error where others have one). `noisy` tells whether errors took part in the verdict.
    """

    verdict: str
    gaps: tuple[Gap, ...]
    worst: Gap | None
    span: float
    passes_at: float | None
    noisy: bool


@dataclass(frozen=True, slots=True)
class Connectivity:
    """The verdict on all rewards together, and each reward's.

    `points` soups were tested, `left_out` not, for an expert of theirs is not measured; `tests` pairs of a soup and a
    reward have an error and share the `confidence`.
    """

    verdict: str
    rewards: tuple[Chord, ...]
    points: int
    left_out: int
    tests: int
    tolerance: float
    confidence: float


def connectivity(
    mixes: Sequence[Sequence[Fraction]],
    values: Sequence[Sequence[float]],
    maximise: Sequence[bool],
    errors: Errors | None = None,
    repeats: Repeats | None = None,
    *,
    tolerance: float = 0.0,
    confidence: float = 0.95,
) -> Connectivity:
    """gap_k(λ) = ±(R_k(λ) − Σ λᵢR_k(eᵢ)) ≥ −tolerance · range for every reward and every soup that is no expert?

    One row of `values`, `errors` (standard errors) and `repeats` (values behind each error) per λ. The error of a gap
    is √(se(λ)² + Σ λᵢ²seᵢ²), errors taken as independent: too large rather than too small where all points were
    measured on the same samples. Its quantile is Student's where errors come from repeats, with the degrees of freedom
    after Welch and Satterthwaite, else the normal distribution's; two-sided, as a gate's. The range is taken as it is.

    FAIL: a gap is below −tolerance by more than noise explains, after Holm's step-down over all pairs of soup and
    reward. Were every gap in truth at or above −tolerance, there would be a FAIL anywhere with a chance of at most
    (1 − `confidence`)/2, however many soups and rewards are tested.
    PASS: the confidence interval of every gap is above −tolerance, which needs no correction: were one gap in truth
    below, its own interval would let it pass with a chance of at most (1 − `confidence`)/2.
    INCONCLUSIVE: neither; more samples or a larger tolerance decide. At tolerance 0 no number of samples shows that a
    straight line is no lower than itself.

    A reward without any error above 0 is taken as it is written, up to 8 ulp for rounding: PASS or FAIL. Where some
    of its gaps have an error and others have none, those without are INCONCLUSIVE. Where the experts are equal,
    the range is 0 and no tolerance applies. NOT TESTED: there is no soup whose experts are all measured.

    Raises ValueError for a λ off the simplex or given twice, shapes that differ, values that are not finite, errors
    and tolerances below 0, repeats below 1, and a confidence outside ]0, 1[.
    Source: Ramé et al. 2023, Hypothesis 1; Holm 1979.
    """
    exact = [tuple(map(Fraction, mix)) for mix in mixes]
    _check(exact, values, maximise, errors, repeats)
    if not (0 <= tolerance < math.inf and 0 < confidence < 1):
        raise ValueError("a tolerance is 0 or above, a confidence between 0 and 1")
    rows = {mix: index for index, mix in enumerate(exact)}
    size = len(exact[0]) if exact else 0
    experts = [rows.get(tuple(Fraction(i == j) for j in range(size))) for i in range(size)]
    soups = [_soup(mix, index, experts) for mix, index in rows.items() if max(mix) < 1]
    whole = [soup for soup in soups if soup is not None]
    corners = [row for row in experts if row is not None]
    blank = [[None] * len(maximise)] * len(exact)
    cells = [[*map(_Value, *three)] for three in zip(values, errors or blank, repeats or blank, strict=True)]
    columns = [
        _column(whole, corners, [row[k] for row in cells], up, tolerance) for k, up in enumerate(maximise)
    ]
    chords, tests = _judged(columns, whole, confidence)
    verdict = _together({chord.verdict for chord in chords})
    return Connectivity(verdict, chords, len(whole), len(soups) - len(whole), tests, tolerance, confidence)


def _check(
    mixes: Sequence[Mix],
    values: Sequence[Sequence[float]],
    maximise: Sequence[bool],
    errors: Errors | None,
    repeats: Repeats | None,
) -> None:
    tables: list[Sequence[Sequence[float | None]]] = [table for table in (values, errors, repeats) if table is not None]  # fmt: skip
    if any(len(table) != len(mixes) for table in tables) or len(set(mixes)) != len(mixes):
        raise ValueError("there must be one row per λ, and every λ once")
    if any(len(row) != len(maximise) for table in tables for row in table) or len({*map(len, mixes)}) > 1:
        raise ValueError("every λ must have the same length, and every row a place per reward")
    if any(sum(mix) != 1 or min(mix) < 0 for mix in mixes):
        raise ValueError("a λ is not on the simplex")
    if not all(abs(value) <= _MOST for row in values for value in row):
        raise ValueError("a value is not finite, or too large")
    if not all(0 <= error <= _MOST for row in errors or () for error in row if error is not None):
        raise ValueError("an error is below 0, not finite, or too large")
    if not all(count >= 1 for row in repeats or () for count in row if count is not None):
        raise ValueError("a number of repeats is below 1")


@dataclass(frozen=True, slots=True)
class _Soup:
    """A λ that is no expert, its row, and its experts' shares and rows."""

    mix: Mix
    row: int
    sides: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class _Value:
    value: float
    error: float | None
    repeats: int | None


@dataclass(frozen=True, slots=True)
class _Test:
    """A gap before its verdict: how far it is above −tolerance · range, and of how many degrees its error is.

    What rounding explains counts as 0.
    """

    gap: float
    margin: float
    error: float | None
    freedom: float

    @property
    def chance(self) -> float:
        """The two-sided p of the margin; 0 for one without an error."""
        if not self.error:
            return 0.0
        ratio = min(abs(self.margin) / self.error, _FARTHEST)
        return math.erfc(ratio / math.sqrt(2)) if self.freedom > 1e6 else outside(ratio, self.freedom)


@dataclass(frozen=True, slots=True)
class _Column:
    """The tests of one reward; `noisy` where any value has an error above 0."""

    span: float
    noisy: bool
    tests: tuple[_Test, ...]


def _soup(mix: Mix, row: int, experts: Sequence[int | None]) -> _Soup | None:
    """None where an expert it is made of is not measured."""
    sides = [(share, expert) for share, expert in zip(mix, experts, strict=True) if share]
    known = tuple((float(share), expert) for share, expert in sides if expert is not None)
    return _Soup(mix, row, known) if len(known) == len(sides) else None


def _column(
    soups: Sequence[_Soup], experts: Sequence[int], measured: Sequence[_Value], up: bool, tolerance: float
) -> _Column:
    corners = [measured[row].value for row in experts]
    span = max(corners) - min(corners) if corners else 0.0
    allowed = min(tolerance * span, _MOST)
    tests = tuple(_test(soup, measured, up, allowed) for soup in soups)
    return _Column(span, any(value.error for value in measured), tests)


def _test(soup: _Soup, measured: Sequence[_Value], up: bool, allowed: float) -> _Test:
    own = measured[soup.row]
    sides = [(share, measured[row]) for share, row in soup.sides]
    terms = [own.value, *(-share * side.value for share, side in sides)]
    sign = 1.0 if up else -1.0
    gap, margin = sign * math.fsum(terms), math.fsum([*(sign * term for term in terms), allowed])
    rounding = _ROUNDING * max(abs(value.value) for value in (own, *(side for _, side in sides)))
    shares = [(1.0, own), *sides]
    error = None
    if all(value.error is not None for _, value in shares):
        error = math.hypot(*(share * (value.error or 0.0) for share, value in shares))
    return _Test(
        gap if abs(gap) > rounding else 0.0,
        margin if abs(margin) > rounding else 0.0,
        error,
        _freedom(shares, error),
    )


def _freedom(shares: Sequence[tuple[float, _Value]], error: float | None) -> float:
    """ν = (Σ λᵢ²seᵢ²)² / Σ (λᵢ⁴seᵢ⁴/(nᵢ − 1)); an error that does not come from repeats has no term below."""
    if not error:
        return math.inf
    below = math.fsum(
        (share * (value.error or 0.0) / error) ** 4 / (value.repeats - 1)
        for share, value in shares
        if value.repeats is not None and value.repeats > 1
    )
    return 1 / below if below else math.inf


# --- verdicts


def _judged(
    columns: Sequence[_Column], soups: Sequence[_Soup], confidence: float
) -> tuple[tuple[Chord, ...], int]:
    """A chord per column, and how many tests share the confidence."""
    noisy = [test for column in columns for test in column.tests if test.error]
    chances = {test: test.chance for test in noisy}
    failed: set[_Test] = set()
    for done, test in enumerate(sorted((test for test in noisy if test.margin < 0), key=chances.__getitem__)):
        if chances[test] > (1 - confidence) / (len(noisy) - done):
            break
        failed.add(test)
    passed = {test for test in noisy if test.margin > 0 and chances[test] <= 1 - confidence}
    return tuple(_chord(column, soups, failed, passed, confidence) for column in columns), len(noisy)


def _chord(
    column: _Column, soups: Sequence[_Soup], failed: set[_Test], passed: set[_Test], confidence: float
) -> Chord:
    span = column.span
    gaps = []
    for soup, test in zip(soups, column.tests, strict=True):
        if test.error:
            verdict = FAIL if test in failed else PASS if test in passed else INCONCLUSIVE
        elif test.error is None and column.noisy:
            verdict = INCONCLUSIVE
        else:
            verdict = PASS if test.margin >= 0 else FAIL
        relative = test.gap / span if span else None
        deviations = test.gap / test.error if test.error else None
        gaps.append(Gap(soup.mix, test.gap, relative, test.error, deviations, verdict))
    verdicts = {gap.verdict for gap in gaps}
    worst = min(gaps, key=lambda gap: gap.gap, default=None)
    return Chord(_together(verdicts), tuple(gaps), worst, span, _passes_at(column, confidence), column.noisy)


def _together(verdicts: set[str]) -> str:
    return next((found for found in (FAIL, INCONCLUSIVE, PASS) if found in verdicts), NOT_TESTED)


def _passes_at(column: _Column, confidence: float) -> float | None:
    """How far below the chord the lowest confidence interval reaches, in range units; 0 where none does."""
    tests = column.tests
    if not tests or not column.span or (column.noisy and any(test.error is None for test in tests)):
        return None
    widest = two_sided(confidence, min(test.freedom for test in tests))
    deepest = 0.0
    for bound, test in sorted(
        ((test.gap - widest * (test.error or 0.0), test) for test in tests), key=lambda pair: pair[0]
    ):
        if -bound <= deepest:  # nor does any after it reach deeper
            break
        half = two_sided(confidence, test.freedom) * test.error if test.error else 0.0
        deepest = max(deepest, half - test.gap)
    return deepest / column.span
