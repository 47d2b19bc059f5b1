"""Sizes, ranks and errors as text: exact values in words a user may type."""

from __future__ import annotations

import re
from fractions import Fraction

from rsoup import mix as mixes
from rsoup.errors import UsageError, show

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


def parse_size(text: str | None) -> int | None:
    """Bytes of `5GB` (powers of 1000) or `5GiB` (powers of 1024); None for None and `keep`.

    Raises UsageError E0212 for anything else, and for less than 1 byte.
    """
    if text is None or text == "keep":
        return None
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([A-Za-z]*)", text.strip())
    unit = _UNITS.get(found[2].upper()) if found else None
    size = int(Fraction(found[1]) * unit) if found and unit else 0
    if size < 1:
        raise UsageError("E0212", f"'{show(text)}' is not a size", hint="write 5GB, 500MB or keep")
    return size


def parse_rank(value: str | int | None) -> int | None:
    """A rank, a whole number above 0; None for None. Raises UsageError E0213 for anything else."""
    if value is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,5}", str(value)):
        raise UsageError("E0213", f"--rank {show(value)} is not a rank", hint="a whole number: --rank 32")
    return int(value)


def parse_max_error(value: str | float | None) -> str | None:
    """The largest relative error as an exact number, canonically spelt; None for None.

    Raises UsageError E0201 or E0213 for anything that is not between 0 and 1.
    """
    if value is None:
        return None
    found = mixes.parse_number(str(value))
    if not 0 < found < 1:
        raise UsageError(
            "E0213", f"--max-error {show(value)} is not a share of the update", hint="0.01 is 1 %"
        )
    return mixes.format_number(found)


def time_text(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.1f} h"
