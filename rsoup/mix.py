"""λ as text: exact fractions in, exact fractions out, nothing rescaled unless it is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from rsoup.errors import UsageError, show

_DECIMAL = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_FRACTION = re.compile(r"([+-]?(?:0|[1-9][0-9]*))/([1-9][0-9]*)")
_LONGEST = 1500


def parse_number(text: str) -> Fraction:
    """The exact value of a decimal (`0.3`, `1e-3`) or a fraction (`1/3`), ASCII only.

    Raises UsageError E0201 for everything else, among it `nan`, `inf`, `0,5`, `010`, `1_0`, `１`.
    """
    stripped = text.strip(" ")
    if len(stripped) <= _LONGEST:
        if found := _FRACTION.fullmatch(stripped):
            return _usable(Fraction(int(found[1]), int(found[2])), stripped)
        if _DECIMAL.fullmatch(stripped):
            return _usable(Fraction(stripped), stripped)
    raise UsageError("E0201", f"'{show(text)}' is not a number rsoup reads", hint=_number_hint(stripped))


def _usable(value: Fraction, text: str) -> Fraction:
    try:
        as_float = float(value)
    except OverflowError:
        as_float = float("inf")
    if (value != 0 and as_float == 0.0) or abs(as_float) > 1e12:
        raise UsageError(
            "E0201",
            f"'{show(text)}' is beyond what λ can be",
            hint="λ is a share of the soup: something like 0.3 or 1/3",
        )
    return value


def _number_hint(text: str) -> str:
    if re.fullmatch(r"[+-]?[0-9]+,[0-9]+", text):
        return f"write the decimal point as a point: {text.replace(',', '.')}"
    if re.fullmatch(r"[+-]?0[0-9]+(\.[0-9]*)?", text):
        return f"leave out the leading zero: {text.lstrip('+-').lstrip('0') or '0'}"
    if re.fullmatch(r"[+-]?[0-9.]+ ?%", text):
        return "write a share of 1 instead of a percentage: 0.3 for 30 %"
    return "write a decimal such as 0.3 or a fraction such as 1/3"


def format_number(value: Fraction) -> str:
    """The shortest exact text of `value`: a decimal where it ends, else `p/q`."""
    numerator, denominator = value.numerator, value.denominator
    twos = fives = 0
    rest = denominator
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    places = max(twos, fives)
    if rest != 1 or places > 20:
        return f"{numerator}/{denominator}"
    scaled = abs(numerator) * 10**places // denominator
    digits = str(scaled).rjust(places + 1, "0")
    text = digits if places == 0 else f"{digits[:-places]}.{digits[-places:]}"
    return f"-{text}" if numerator < 0 else text


def checked(
    mix: Sequence[Fraction], *, normalize: bool = False, affine: bool = False
) -> tuple[Fraction, ...]:
    """`mix` if Σλ = 1 exactly and every λ ≥ 0; λ/Σλ with `normalize`; any λ at all with `affine`.

    Raises UsageError: E0203 Σλ ≠ 1, E0204 a negative λ, E0205 Σλ ≤ 0 where it must be divided by,
    E0206 `normalize` and `affine` together.
    """
    total = sum(mix, Fraction(0))
    shown = ", ".join(show(format_number(value), 20) for value in mix[:10]) + (", …" if len(mix) > 10 else "")
    if normalize and affine:
        raise UsageError(
            "E0206", "--normalize and --affine contradict each other", hint="leave one of them out"
        )
    if affine:
        return tuple(mix)
    if negative := [value for value in mix if value < 0]:
        raise UsageError(
            "E0204",
            f"λ = {format_number(negative[0])} is negative, which leaves the span of the ingredients",
            hint="if that is meant, say --affine (with --base, unless these are adapters): θ₀ + Σ λᵢ(θᵢ − θ₀)",
        )
    if normalize:
        if total == 0:
            raise UsageError(
                "E0205", "λ sums to 0 and cannot be normalised", hint="give at least one λ above 0"
            )
        return tuple(value / total for value in mix)
    if total != 1:
        raise UsageError(
            "E0203",
            f"λ = {shown} sums to {show(format_number(total), 40)}, not to 1",
            hint=_sum_hint(mix, total),
        )
    return tuple(mix)


def _sum_hint(mix: Sequence[Fraction], total: Fraction) -> str:
    choices = [
        *(["--normalize divides by the sum"] if total > 0 else []),
        "--affine (with --base, unless these are adapters) takes any sum",
    ]
    if abs(total - 1) < Fraction(1, 50) and len(mix) > 1:
        exact = [value.limit_denominator(100) for value in mix]
        if sum(exact) == 1:
            choices.insert(0, f"--lambda {','.join(map(str, exact))} is exact")
    return "; ".join(choices)


def uniform(count: int) -> tuple[Fraction, ...]:
    """λᵢ = 1/N for N = `count`, exactly."""
    return (Fraction(1, count),) * count
