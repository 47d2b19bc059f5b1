"""Values out of JSON and CSV, taken as what they must be or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Final, NoReturn, TypeVar

from rsoup.errors import RefusedFileError, UsageError, show
from rsoup.mix import parse_number

LARGEST: Final = 1e150  # squares and sums of such values are numbers still
MAX_STEP: Final = 10**18
STATUSES: Final = ("done", "failed", "pending")

T = TypeVar("T")


def refuse(what: str, shown: str) -> NoReturn:
    """Raise RefusedFileError E0808: `what` is wrong with the table at `shown`."""
    raise RefusedFileError(
        "E0808",
        f"not a table of metrics rsoup can trust: {what}",
        where=shown,
        hint='a sweep\'s metrics.json, a JSON object of numbers ({"helpful": 0.71, "helpful_stderr": 0.01}), or a CSV file with a header',
    )


def number(value: object, what: str, shown: str) -> float:
    """A finite number of a size that can be calculated with."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse(f"{what} is not a number", shown)
    try:
        found = float(value)
    except OverflowError:
        found = float("inf")
    if not abs(found) <= LARGEST:
        refuse(f"{what} is not finite, or beyond {LARGEST:g}", shown)
    return found


def error(value: object, name: str, shown: str) -> float | None:
    """A standard error, 0 or above, or None."""
    if value is None:
        return None
    found = number(value, f"the standard error of '{show(name)}'", shown)
    if found < 0:
        refuse(f"the standard error of '{show(name)}' is below 0", shown)
    return found


def status(value: object, what: str, shown: str) -> str:
    """One of STATUSES."""
    if value not in STATUSES:
        refuse(f"the status of {what} is none of {', '.join(STATUSES)}", shown)
    return str(value)


def share(value: object, what: str, shown: str) -> Fraction:
    """A λ or η, exactly as it is written."""
    try:
        return parse_number(str(value))
    except UsageError:
        refuse(f"'{show(value)}', a λ of {what}, is not a number", shown)


def step(value: object, what: str, shown: str) -> int | None:
    """A training step, a whole number from 0 on, or None; 200.0, as tables write it, is one too."""
    if value is None:
        return None
    whole = isinstance(value, float) and value.is_integer()
    if isinstance(value, bool) or not (isinstance(value, int) or whole) or not 0 <= value <= MAX_STEP:  # type: ignore[operator]
        refuse(f"the step of {what} is not a whole number", shown)
    return int(value)  # type: ignore[call-overload, no-any-return]


def text(value: object, what: str, shown: str) -> str:
    """A text that is not empty."""
    return _of(value, str, bool, f"{what} is not a text", shown)


def items(value: object, what: str, shown: str) -> list[object]:
    """A list."""
    return _of(value, list, lambda _: True, f"{what} is not a list", shown)


def mapping(value: object, what: str, shown: str) -> dict[str, object]:
    """A JSON object."""
    return _of(value, dict, lambda _: True, f"{what} is not an object", shown)


def _of(value: object, kind: type[T], usable: Callable[[T], object], what: str, shown: str) -> T:
    if not isinstance(value, kind) or not usable(value):
        refuse(what, shown)
    return value
