"""The points a user names: the one to judge, and the one of the baseline."""

from __future__ import annotations

from rsoup.errors import UsageError, listing, show
from rsoup.measured.values import Row, Table
from rsoup.mix import parse_number


def _named(table: Table, name: str, code: str) -> Row:
    for row in table.rows:
        if row.name == name:
            return row
    raise UsageError(
        code,
        f"there is no point '{show(name)}'",
        where=table.shown,
        hint=f"there are {listing([row.name for row in table.rows])}",
    )


def baseline_row(baseline: Table, name: str | None) -> Row | None:
    """The point of this name, or the only one; None where each point has its own. Raises UsageError E0247."""
    row = None
    if name is not None:
        row = _named(baseline, name, "E0247")
    elif len(baseline.rows) == 1:
        row = baseline.rows[0]
    if row is not None and row.status != "done":
        raise UsageError(
            "E0247", f"the point '{show(row.name)}' of the baseline is {row.status}", where=baseline.shown,
            hint="measure it first, or name another: --baseline-point NAME",
        )  # fmt: skip
    return row


def asked_row(table: Table, name: str | None, mix: str | None) -> Row | None:
    """The point of this name or of this λ; None where neither is given.

    Raises UsageError E0201 (a λ that is no number) and E0246: both given, no such point, several points of one
    λ, or one that was not measured.
    """
    if name is None and mix is None:
        return None
    if name is not None and mix is not None:
        raise UsageError("E0246", "--point and --lambda both say which point", hint="leave one of them out")
    row = _named(table, name, "E0246") if name is not None else _of_mix(table, str(mix))
    if row.status != "done":
        raise UsageError(
            "E0246",
            f"the point '{show(row.name)}' is {row.status}: there is nothing to judge",
            where=table.shown,
            hint="run the sweep again, which evaluates what is missing",
        )
    return row


def _of_mix(table: Table, text: str) -> Row:
    mix = tuple(map(parse_number, text.split(",")))
    found = [row for row in table.rows if row.mix == mix]
    if len(found) != 1:
        names = [row.name for row in found or table.rows]
        raise UsageError(
            "E0246",
            f"{len(found) or 'no'} points have λ = {show(text)}",
            where=table.shown,
            hint=f"name one by --point: {listing(names)}",
        )
    return found[0]
