"""λ from a CSV file: one column per ingredient, one point per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from rsoup import mix as mixes
from rsoup.errors import UsageError, listing, show
from rsoup.request import Request
from rsoup.storage.files import open_regular
from rsoup.sweep.asking import checked_mix

MAX_BYTES: Final = 16_000_000


def read_mixes(path: str, request: Request) -> tuple[tuple[Fraction, ...], ...]:
    """Every λ of a file whose head names all ingredients, in any order; exact, each Σλ = 1 as for a merge.

    Raises UsageError E0236 with the line of what cannot be read, AccessError E0701 where there is no file.
    """
    shown = show(path)
    file = open_regular(path, shown)
    try:
        data = bytearray(min(file.size, MAX_BYTES + 1))
        file.read(0, memoryview(data))
    finally:
        file.close()
    if len(data) > MAX_BYTES:
        raise UsageError("E0236", "a list of λ this large is not meant", where=shown)
    try:
        text = bytes(data).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("E0236", "this is not UTF-8", where=shown, hint="save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: list[tuple[Fraction, ...]] = []
    order: list[int] | None = None
    try:
        for row in reader:
            if order is None:
                order = _order([cell.strip() for cell in row], [i.name for i in request.ingredients], shown)
            elif row:
                found.append(_row(row, order, request, f"{shown}:{reader.line_num}"))
    except csv.Error as error:
        raise UsageError("E0236", show(error), where=f"{shown}:{reader.line_num}") from error
    if not found:
        raise UsageError("E0236", "there is no λ in it", where=shown, hint="a head with the names, then a line per point")  # fmt: skip
    return tuple(found)


def _order(head: Sequence[str], names: Sequence[str], shown: str) -> list[int]:
    """The column of each ingredient; columns may be called NAME or lambda_NAME."""
    plain = [cell.removeprefix("lambda_") if cell not in names else cell for cell in head]
    if sorted(plain) != sorted(names):
        raise UsageError(
            "E0236",
            f"the columns are {listing(list(head), 20)}, the ingredients {listing(list(names), 20)}",
            where=f"{shown}:1",
            hint="one column per ingredient, separated by commas, and no other",
        )
    return [plain.index(name) for name in names]


def _row(row: Sequence[str], order: Sequence[int], request: Request, where: str) -> tuple[Fraction, ...]:
    if len(row) != len(order):
        raise UsageError("E0236", f"{len(row)} cells instead of {len(order)}", where=where)
    try:
        return checked_mix([mixes.parse_number(row[i]) for i in order], request)
    except UsageError as error:
        raise UsageError(error.code, error.message, where=where, hint=error.hint) from error
