"""Preferences over rewards as they are typed: `0.3,0.7`, or `helpful=0.3,harmless=0.7`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from rsoup.errors import UsageError, listing, show
from rsoup.mix import format_number, parse_number


def parse_preference(text: str, rewards: Sequence[str]) -> tuple[Fraction, ...]:
    """μ̂ as exact fractions, one per reward, Σμ̂ = 1 exactly and none below 0; rewards that are not named get 0.

    Raises UsageError E0263 for another number or sum of them, an unknown or repeated name; E0201 for no number.
    """
    parts = [part for part in text.split(",") if part.strip()]
    if not any("=" in part for part in parts):
        if len(parts) != len(rewards):
            raise UsageError(
                "E0263",
                f"a preference of {len(parts)} for {len(rewards)} rewards",
                hint=f"one per reward, in this order: {listing(list(rewards))}; or NAME=SHARE",
            )
        return _whole(tuple(map(parse_number, parts)))
    found: dict[str, Fraction] = {}
    for part in parts:
        name, equals, share = part.rpartition("=")
        name = name.strip()
        if not equals or name not in rewards or name in found:
            raise UsageError(
                "E0263",
                f"'{show(part)}' is no preference for a reward, or the second one",
                hint=f"NAME=SHARE with {listing(list(rewards))}",
            )
        found[name] = parse_number(share)
    return _whole(tuple(found.get(name, Fraction(0)) for name in rewards))


def _whole(shares: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    total = sum(shares, Fraction(0))
    if total != 1 or min(shares) < 0:
        what = (
            "has a share below 0"
            if min(shares) < 0
            else f"sums to {show(format_number(total), 40)}, not to 1"
        )
        raise UsageError("E0263", f"the preference {what}", hint="shares of 1, such as 0.3,0.7 or 1/3,2/3")
    return shares
